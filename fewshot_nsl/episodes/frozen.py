"""Episodes drawn once and for all: any library can show a learner the very same."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes.episode import Episode
from fewshot_nsl.episodes.frozen_check import check_table, damaged
from fewshot_nsl.episodes.frozen_table import EpisodeTable, FrozenDescription, content_fingerprint
from fewshot_nsl.errors import DataError, EpisodeError


class FrozenEpisodes:
    """`frozen[i]` is episode i of a frozen set, as rows of a store; every image of the set is checked here, once.

    Args:
        store: the one that the set was drawn from.
        description: what the set says of itself.
        table: its content.
        name: of the set, for refusals.

    Raises:
        DataError: the set is of another store, or is not what its description says.
    """

    def __init__(self, store: ImageStore, description: FrozenDescription, table: EpisodeTable, name: str) -> None:
        if description.store_fingerprint != store.fingerprint:
            raise DataError(
                f"{name} was drawn from {description.dataset} of fingerprint {description.store_fingerprint[:12]}: expected "
                f"{store.fingerprint[:12]}, which {store.name} has here; prepare the same images, or draw a set from these: "
                f"fewshot-nsl episodes freeze --dataset {store.name}"
            )
        rows = store.splits.get(description.split, range(0))
        self.rows: Int64[np.ndarray, " rows"] = np.arange(rows.start, rows.stop)
        """Every row of the split, ascending, as an `EpisodeSampler` has it."""
        self.description = description
        self._classes, taken = check_table(store, description, table, name)
        shape = (description.episodes, -1)
        self._support = taken[~table.query].reshape(shape), table.label[~table.query].reshape(shape)
        self._query = taken[table.query].reshape(shape), table.label[table.query].reshape(shape)
        found = content_fingerprint(description.store_fingerprint, description.split, table)
        if found != description.fingerprint:
            raise damaged(name, f"its episodes have fingerprint {found[:12]}, expected {description.fingerprint[:12]}")

    @property
    def split(self) -> str:
        """Where the classes are from: "train", "val" or "test"."""
        return self.description.split

    @property
    def n_way(self) -> int:
        """Classes of an episode."""
        return self.description.n_way

    @property
    def n_shot(self) -> tuple[int, ...]:
        """Support images of each class, one number per way."""
        return self.description.shots

    @property
    def n_query(self) -> int:
        """Query images of each class."""
        return self.description.n_query

    @property
    def seed(self) -> int:
        """Of the sampler that drew the set."""
        return self.description.seed

    @property
    def fingerprint(self) -> str:
        """Of the content: equal for equal episodes of equal images."""
        return self.description.fingerprint

    def __len__(self) -> int:
        """Episodes."""
        return self.description.episodes

    def __iter__(self) -> Iterator[Episode]:
        """Episodes in order."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Episode:
        """Episode `index`, from 0."""
        if not 0 <= index < len(self):
            raise EpisodeError(f"episode {index} is out of range: the frozen set has {len(self)}, numbered from 0")
        parts = (self._classes, *self._support, *self._query)
        classes, support_rows, support_labels, query_rows, query_labels = (part[index].copy() for part in parts)
        return Episode(classes, support_rows, support_labels, query_rows, query_labels)

    def draw(self, indices: Sequence[int]) -> list[Episode]:
        """The episodes of these numbers."""
        return [self[index] for index in indices]
