"""Batches of episodes by number, for a torch `DataLoader`."""

from collections.abc import Iterator

from torch.utils.data import Dataset

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes.batch import EpisodeBatch, gather
from fewshot_nsl.episodes.episode import Episode, Episodes
from fewshot_nsl.episodes.pixels import Pixels

DRAWN_AT_ONCE = 64
"""Episodes that are drawn together where batches are asked for in order."""


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
        return self._draw(index * self.tasks, self.tasks)

    def draw_all(self) -> Iterator[list[Episode]]:
        """The episodes of every batch in order; many are drawn at once, which is several times faster for small batches."""
        batches = max(1, DRAWN_AT_ONCE // self.tasks)
        for first in range(0, len(self), batches):
            drawn = self._draw(first * self.tasks, batches * self.tasks)
            for start in range(0, len(drawn), self.tasks):
                yield drawn[start : start + self.tasks]

    def _draw(self, first: int, count: int) -> list[Episode]:
        numbers = range(self.start + first, self.start + min(first + count, self.episodes))
        return self.sampler.draw(numbers)
