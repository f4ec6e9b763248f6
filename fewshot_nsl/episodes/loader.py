"""Batches of episodes on a device, made while the one before is in use."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes.ahead import make_ahead
from fewshot_nsl.episodes.batch import EpisodeBatch, gather
from fewshot_nsl.episodes.dataset import EpisodeDataset
from fewshot_nsl.episodes.episode import Episode
from fewshot_nsl.episodes.pixels import Pixels

MEMORY_FRACTION = 0.5
"""A store goes to the GPU whole if it takes no more than this part of the memory free there."""


class EpisodeLoader:
    """Iterates the batches of an `EpisodeDataset`, on `device`.

    On a GPU the whole store is copied there once if it fits, and every batch is then a gather in the GPU's memory; otherwise, and on a CPU,
    a batch is gathered from the memory map.

    Args:
        dataset: what is iterated.
        device: where the batches are to be.
        ahead: batches that a thread draws, and gathers from the map, while the caller works; by default 1 for a GPU, 0 for a CPU, where the
            gather itself takes all cores.
    """

    def __init__(self, dataset: EpisodeDataset, device: torch.device, *, ahead: int | None = None) -> None:
        self.dataset, self.device = dataset, device
        on_gpu = device.type == "cuda"
        self.ahead = int(on_gpu) if ahead is None else ahead
        self._pixels = Pixels(dataset.store, pinned=on_gpu)
        self._resident = resident_images(dataset.store, device)

    def __len__(self) -> int:
        """Batches."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[EpisodeBatch]:
        """Batches in order."""
        drawn = self.dataset.draw_all()
        for finish in make_ahead(lambda _: self._begin(next(drawn)), len(self), self.ahead):
            yield finish()

    def __getitem__(self, index: int) -> EpisodeBatch:
        """Batch `index`, on the device."""
        return self._begin(self.dataset.draw(index))()

    def read(self, rows: Int64[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        """Images of these rows of the store, on the device; `rows` are on the CPU."""
        if self._resident is not None:
            return self._resident[rows.to(self.device)].movedim(-1, 1)
        return self._pixels.read(rows).to(self.device)

    def _begin(self, episodes: list[Episode]) -> Callable[[], EpisodeBatch]:
        """What any thread may do; the rest, which it gives back, is for the caller's, so that the GPU's work is in the caller's order."""
        images = self._resident
        if images is not None:
            return lambda: gather(episodes, lambda rows: images[rows.to(self.device)].movedim(-1, 1)).to(self.device)
        batch = gather(episodes, self._pixels.read)
        return lambda: batch.to(self.device)


def resident_images(store: ImageStore, device: torch.device) -> UInt8[Tensor, "n h w c"] | None:
    """All images of the store in the GPU's memory, or None: on a CPU, or if they do not fit."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if store.images.nbytes > MEMORY_FRACTION * free:
        return None
    return torch.from_numpy(np.array(store.images)).to(device)
