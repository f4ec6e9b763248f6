"""Episodes with their images: one at a time for a torch `DataLoader`, or many from a store that lies on the device."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes.batch import EpisodeBatch
from fewshot_nsl.episodes.episode import Episode, Episodes

MEMORY_FRACTION = 0.5
"""A store goes to the GPU whole if it takes no more than this part of the memory free there."""


class EpisodeDataset(Dataset[EpisodeBatch]):
    """Item b is the batch of episodes `start + b * tasks ...`, the last one shorter; use it with `DataLoader(dataset, batch_size=None)`.

    Args:
        store: where the images are.
        sampler: an `EpisodeSampler` made from the labels of `store`, or frozen episodes of it.
        episodes: how many in all.
        tasks: episodes of a batch.
        start: number of the first.
    """

    def __init__(self, store: ImageStore, sampler: Episodes, episodes: int, tasks: int = 1, start: int = 0) -> None:
        self.store, self.sampler = store, sampler
        self.episodes, self.tasks, self.start = episodes, tasks, start

    def __len__(self) -> int:
        """Batches."""
        return -(-self.episodes // self.tasks)

    def __getitem__(self, index: int) -> EpisodeBatch:
        """Batch `index`, on the CPU."""
        images = self.store.images
        return gather(self.draw(index), lambda rows: torch.from_numpy(images[rows.numpy()]))

    def draw(self, index: int) -> list[Episode]:
        """The episodes of batch `index`, without their images."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        first = index * self.tasks
        return [self.sampler[self.start + i] for i in range(first, min(first + self.tasks, self.episodes))]


class EpisodeLoader:
    """Iterates the batches of an `EpisodeDataset`, on `device`.

    On a GPU the whole store is copied there once if it fits, and every batch is then a gather in the GPU's memory; otherwise, and on a CPU,
    a batch is gathered from the memory map.
    """

    def __init__(self, dataset: EpisodeDataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device
        self._resident = resident_images(dataset.store, device)

    def __len__(self) -> int:
        """Batches."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[EpisodeBatch]:
        """Batches in order."""
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: int) -> EpisodeBatch:
        """Batch `index`, on the device."""
        images = self._resident
        if images is None:
            return self.dataset[index].to(self.device)
        return gather(self.dataset.draw(index), lambda rows: images[rows.to(self.device)]).to(self.device)


def gather(episodes: Sequence[Episode], read: Callable[[Tensor], Tensor]) -> EpisodeBatch:
    """The batch of these episodes; `read` gives the images `[rows, h, w, c]` of given rows of the store."""

    def stack(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    def images(rows: Tensor) -> Tensor:
        # The store's images are channels last; the view puts channels first and leaves the memory so.
        return read(rows.flatten()).unflatten(0, tuple(rows.shape)).movedim(-1, -3)

    support_rows = stack([episode.support_rows for episode in episodes])
    query_rows = stack([episode.query_rows for episode in episodes])
    return EpisodeBatch(
        support=images(support_rows),
        support_labels=stack([episode.support_labels for episode in episodes]),
        query=images(query_rows),
        query_labels=stack([episode.query_labels for episode in episodes]),
        support_rows=support_rows,
        query_rows=query_rows,
        classes=stack([episode.classes for episode in episodes]),
    )


def resident_images(store: ImageStore, device: torch.device) -> UInt8[Tensor, "n h w c"] | None:
    """All images of the store in the GPU's memory, or None: on a CPU, or if they do not fit."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if store.images.nbytes > MEMORY_FRACTION * free:
        return None
    return torch.from_numpy(np.array(store.images)).to(device)
