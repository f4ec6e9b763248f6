"""One strategy on given episodes: the accuracy of each."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor
from torch.nn import functional

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
    at_once = FEATURE_EPISODES_AT_ONCE if isinstance(strategy, FeatureLearner) else EPISODES_AT_ONCE
    dataset = EpisodeDataset(store, sampler, episodes, at_once)
    if isinstance(strategy, FeatureLearner):
        batches = draw_features(dataset, encode_rows(strategy.encode, store, sampler.rows, device))
    else:
        batches = _images(dataset, device)
    accuracies: list[float] = []
    for support, support_labels, query, query_labels in batches:
        predicted = strategy.fit(support, support_labels)(query).argmax(-1)
        accuracies += (predicted == query_labels).double().mean(1).tolist()
        if progress:
            progress(len(accuracies), episodes)
    return np.array(accuracies)


def encode_rows(
    encode: Callable[[Tensor], Tensor], store: ImageStore, rows: Int64[np.ndarray, " n"], device: torch.device
) -> Float[Tensor, "n d"]:
    """Features of these images of a store, each encoded once."""
    return torch.cat([encode(chunk) for chunk in read_images(store, rows, device)])


def read_images(store: ImageStore, rows: Int64[np.ndarray, " n"], device: torch.device) -> Iterator[UInt8[Tensor, "_ c h w"]]:
    """These images of a store, `IMAGES_AT_ONCE` at a time."""
    for i in range(0, len(rows), IMAGES_AT_ONCE):
        yield torch.from_numpy(store.images[rows[i : i + IMAGES_AT_ONCE]]).to(device).movedim(-1, 1)


def draw_features(dataset: EpisodeDataset, table: Float[Tensor, "n d"]) -> Iterator[_Batch]:
    """Episodes as rows of a table of features, which `encode_rows` made of every image that an episode may show."""
    place = np.zeros(len(dataset.store.images), dtype=np.int64)
    place[dataset.sampler.rows] = np.arange(len(table))
    for drawn in dataset.draw_all():
        support = np.stack([place[episode.support_rows] for episode in drawn])
        query = np.stack([place[episode.query_rows] for episode in drawn])
        support_labels = np.stack([episode.support_labels for episode in drawn])
        query_labels = np.stack([episode.query_labels for episode in drawn])
        s, s_labels, q, q_labels = (torch.from_numpy(array).to(table.device) for array in (support, support_labels, query, query_labels))
        # Row by row; an index would copy number by number.
        yield functional.embedding(s, table), s_labels, functional.embedding(q, table), q_labels


def _images(dataset: EpisodeDataset, device: torch.device) -> Iterator[_Batch]:
    for batch in EpisodeLoader(dataset, device):
        yield batch.support, batch.support_labels, batch.query, batch.query_labels
