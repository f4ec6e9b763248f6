"""Batches of episodes by number, for a torch `DataLoader`."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch.utils.data import Dataset

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes.batch import EpisodeBatch, gather
from fewshot_nsl.episodes.episode import Episode, Episodes
from fewshot_nsl.episodes.pixels import Pixels


@runtime_checkable
class DrawsMany(Protocol):
    """`Episodes` that come faster several at once: an `EpisodeSampler`."""

    def draw(self, indices: Sequence[int]) -> list[Episode]:
        """The episodes of these numbers."""
        ...


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
        self._pixels = Pixels(store)

    def __len__(self) -> int:
        """Batches."""
        return -(-self.episodes // self.tasks)

    def __getitem__(self, index: int) -> EpisodeBatch:
        """Batch `index`, on the CPU."""
        return gather(self.draw(index), self._pixels.read)

    def draw(self, index: int) -> list[Episode]:
        """The episodes of batch `index`, without their images."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        first = index * self.tasks
        numbers = range(self.start + first, self.start + min(first + self.tasks, self.episodes))
        return self.sampler.draw(numbers) if isinstance(self.sampler, DrawsMany) else [self.sampler[i] for i in numbers]
