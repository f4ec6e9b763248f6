"""One strategy on given episodes: the accuracy of each."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeDataset, EpisodeLoader, Episodes
from fewshot_nsl.strategies import FeatureLearner, Learner

IMAGES_AT_ONCE = 500
EPISODES_AT_ONCE = 10
FEATURE_EPISODES_AT_ONCE = 100
"""Features are small, so more episodes of them fit in a batch."""

_Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support, support labels, query, query labels."""


def evaluate(
    strategy: Learner,
    store: ImageStore,
    sampler: Episodes,
    episodes: int,
    device: torch.device,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Float64[np.ndarray, " episodes"]:
    """Accuracy of `strategy` on each of the episodes 0 ... `episodes` - 1, fractions in [0, 1].

    With the same sampler, every strategy meets the same episodes. One with `encode` sees each image of the sampler once and then episodes
    of features; any other gets episodes of images.

    Args:
        strategy: anything with `fit`; its parameters are on `device`.
        store: where the images are.
        sampler: an `EpisodeSampler` made from labels of `store`, usually of one split, or frozen episodes of it.
        episodes: how many.
        device: what the images are put on.
        progress: called with episodes done and in all.
    """
    encode = strategy.encode if isinstance(strategy, FeatureLearner) else None
    dataset = EpisodeDataset(store, sampler, episodes, FEATURE_EPISODES_AT_ONCE if encode else EPISODES_AT_ONCE)
    accuracies: list[float] = []
    for support, support_labels, query, query_labels in _features(dataset, encode, device) if encode else _images(dataset, device):
        predicted = strategy.fit(support, support_labels)(query).argmax(-1)
        accuracies += (predicted == query_labels).double().mean(1).tolist()
        if progress:
            progress(len(accuracies), episodes)
    return np.array(accuracies)


def _images(dataset: EpisodeDataset, device: torch.device) -> Iterator[_Batch]:
    for batch in EpisodeLoader(dataset, device):
        yield batch.support, batch.support_labels, batch.query, batch.query_labels


def _features(dataset: EpisodeDataset, encode: Callable[[Tensor], Tensor], device: torch.device) -> Iterator[_Batch]:
    """Encode every image that an episode may show, once; then episodes are rows of that table."""
    images, rows = dataset.store.images, dataset.sampler.rows
    chunks = (torch.from_numpy(images[rows[i : i + IMAGES_AT_ONCE]]) for i in range(0, len(rows), IMAGES_AT_ONCE))
    table = torch.cat([encode(chunk.to(device).movedim(-1, 1)) for chunk in chunks])
    place = np.zeros(len(images), dtype=np.int64)
    place[rows] = np.arange(len(rows))
    for index in range(len(dataset)):
        drawn = dataset.draw(index)
        support = np.stack([place[episode.support_rows] for episode in drawn])
        query = np.stack([place[episode.query_rows] for episode in drawn])
        support_labels = np.stack([episode.support_labels for episode in drawn])
        query_labels = np.stack([episode.query_labels for episode in drawn])
        s, s_labels, q, q_labels = (torch.from_numpy(array).to(device) for array in (support, support_labels, query, query_labels))
        yield table[s], s_labels, table[q], q_labels
