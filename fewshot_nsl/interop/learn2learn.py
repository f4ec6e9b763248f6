"""The bridge to learn2learn: `ImageDataset` is a dataset that its `MetaDataset` takes; here are its index, and tasks both ways.

A task of a `TaskDataset` is `(data, labels)`: the images of `n_way` classes, supports and queries together, `[n, c, h, w]`, and their
labels, 0 ... n_way-1. Which are supports is for the user to say; as in its `partition_task`, they are the first `n_shot` of each label.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from fewshot_nsl.episodes import EpisodeBatch, ImageDataset
from fewshot_nsl.errors import EpisodeError
from fewshot_nsl.interop.foreign import checked_tasks

Task = Sequence[Tensor]
"""`(data, labels)`; learn2learn's own collation gives a list of the two."""

_ADVICE = "add RemapLabels(dataset) to the task transforms"


def labels_to_indices(images: ImageDataset) -> dict[int, list[int]]:
    """What `MetaDataset(images, labels_to_indices=...)` wants to know; without it, it reads every image to learn its label."""
    order = np.argsort(images.labels, kind="stable")
    labels, starts = np.unique(images.labels[order], return_index=True)
    return {int(label): rows.tolist() for label, rows in zip(labels, np.split(order, starts[1:]), strict=True)}


def to_learn2learn(batch: EpisodeBatch) -> list[tuple[Tensor, Tensor]]:
    """The tasks of a batch, each `(data, labels)`: class by class, the supports of a class before its queries; images stay uint8."""
    labels = torch.cat([batch.support_labels, batch.query_labels], dim=1)
    order = labels.argsort(dim=1, stable=True)
    images = torch.cat([batch.support, batch.query], dim=1)
    return [(task[rows], each[rows]) for task, each, rows in zip(images, labels, order, strict=True)]


def from_learn2learn(tasks: Sequence[Task], n_shot: int, *, white: int = 255) -> EpisodeBatch:
    """One batch of these tasks, `[(data, labels), ...]`: the first `n_shot` images of each label are its supports, the others queries.

    Such a task does not know which images of which classes it holds: `support_rows`, `query_rows` and `classes` are -1.

    Args:
        tasks: of one size.
        n_shot: supports of each class.
        white: the value of a white pixel in images that are not uint8; 1 after torchvision's `ToTensor`.

    Raises:
        DataError: images that are not whole numbers 0 to 255, as after `Normalize`.
        EpisodeError: no task, tasks of several sizes, labels other than 0 ... way-1, or a class without a support or a query.
    """
    if not tasks:
        raise EpisodeError("no task to make a batch of: expected at least one (data, labels), for instance taskset.sample()")
    if n_shot < 1:
        raise EpisodeError(f"n_shot is {n_shot}: expected at least 1")
    shapes = sorted({(*data.shape, *labels.shape) for data, labels in tasks})
    if len(shapes) > 1:
        sizes = " and ".join(str(list(shape[:4])) for shape in shapes)
        raise EpisodeError(f"tasks of {sizes} images make no batch: expected one size; give them one by one")
    images, labels = checked_tasks([torch.stack(each) for each in zip(*tasks, strict=True)], white, _ADVICE)
    parts = [_partition(each, n_shot) for each in labels]
    support, query = (torch.stack(rows) for rows in zip(*parts, strict=True))
    task = torch.arange(len(tasks), device=labels.device)[:, None]
    return EpisodeBatch(
        support=images[task, support],
        support_labels=labels[task, support],
        query=images[task, query],
        query_labels=labels[task, query],
        support_rows=torch.full_like(support, -1),
        query_rows=torch.full_like(query, -1),
        classes=labels.new_full((len(tasks), int(labels.max()) + 1), -1),
    )


def _partition(labels: Int64[Tensor, " n"], n_shot: int) -> tuple[Int64[Tensor, " n_support"], Int64[Tensor, " n_query"]]:
    """Places of the supports and of the queries, each class by class."""
    order, counts = labels.argsort(stable=True), labels.bincount()
    if (fewest := int(counts.min())) <= n_shot:
        raise EpisodeError(
            f"class {int(counts.argmin())} of a task has {fewest} images, expected more than the {n_shot} shots; ask KShots for shots and "
            "queries together (k = n_shot + n_query)"
        )
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(labels), device=labels.device) - starts[labels[order]]  # of each image among those of its class
    return order[place < n_shot], order[place >= n_shot]
