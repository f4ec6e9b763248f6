"""What a learner gets: a batch of tasks, images as uint8 on the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fewshot_nsl.episodes.episode import Episode


@dataclass(frozen=True)
class EpisodeBatch:
    """Several tasks of one size. Images are uint8, 0-255; labels are 0 ... way-1; the order inside a set means nothing.

    `support_rows`, `query_rows` and `classes` say which rows and class ids of the store these are.
    """

    support: UInt8[Tensor, "tasks n_support c h w"]
    support_labels: Int64[Tensor, "tasks n_support"]
    query: UInt8[Tensor, "tasks n_query c h w"]
    query_labels: Int64[Tensor, "tasks n_query"]
    support_rows: Int64[Tensor, "tasks n_support"]
    query_rows: Int64[Tensor, "tasks n_query"]
    classes: Int64[Tensor, "tasks way"]

    def to(self, device: torch.device) -> "EpisodeBatch":
        """The same batch on `device`."""
        # To a GPU, what is computed there next waits by itself; on the CPU nothing would wait for a copy that is still under way.
        unblocked = device.type != "cpu"
        return EpisodeBatch(**{field.name: getattr(self, field.name).to(device, non_blocking=unblocked) for field in fields(self)})

    def split(self, tasks: int) -> "list[EpisodeBatch]":
        """The same tasks, in order, in batches of `tasks` and a last one of what is left."""
        parts = {field.name: getattr(self, field.name).split(tasks) for field in fields(self)}
        return [EpisodeBatch(**dict(zip(parts, values, strict=True))) for values in zip(*parts.values(), strict=True)]


def gather(episodes: Sequence[Episode], read: Callable[[Tensor], Tensor]) -> EpisodeBatch:
    """The batch of these episodes; `read` gives the images `[n, c, h, w]` of given rows of the store, and is called once."""

    def stack(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    support_rows = stack([episode.support_rows for episode in episodes])
    query_rows = stack([episode.query_rows for episode in episodes])
    images = read(torch.cat([support_rows.flatten(), query_rows.flatten()]))
    support, query = images.split([support_rows.numel(), query_rows.numel()])
    return EpisodeBatch(
        support=support.unflatten(0, tuple(support_rows.shape)),
        support_labels=stack([episode.support_labels for episode in episodes]),
        query=query.unflatten(0, tuple(query_rows.shape)),
        query_labels=stack([episode.query_labels for episode in episodes]),
        support_rows=support_rows,
        query_rows=query_rows,
        classes=stack([episode.classes for episode in episodes]),
    )
