"""One episode as rows of a store, and what anything that gives episodes by number has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True)
class Episode:
    """One task, as rows of a store. Label i of the episode is `classes[i]`; the order inside a set means nothing."""

    classes: Int64[np.ndarray, " way"]
    support_rows: Int64[np.ndarray, " n_support"]
    support_labels: Int64[np.ndarray, " n_support"]
    query_rows: Int64[np.ndarray, " n_query_total"]
    query_labels: Int64[np.ndarray, " n_query_total"]


@runtime_checkable
class Episodes(Protocol):
    """Episodes by number, all of one size: an `EpisodeSampler`, or `FrozenEpisodes`."""

    @property
    def rows(self) -> Int64[np.ndarray, " rows"]:
        """Every row that an episode may show, ascending."""
        ...

    def __getitem__(self, index: int) -> Episode:
        """Episode `index`, from 0."""
        ...

    def draw(self, indices: Sequence[int]) -> list[Episode]:
        """The episodes of these numbers; many at once may be faster than one by one."""
        ...
