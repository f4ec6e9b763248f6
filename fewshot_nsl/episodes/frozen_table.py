"""What a frozen set holds: its description, and a table of every image of every episode, by class name and place within the class."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Int64
from pydantic import BaseModel, ConfigDict, Field

_Size = Annotated[int, Field(ge=1)]
_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class FrozenDescription(BaseModel):
    """What a frozen set says of itself; frozen, and no field beyond these is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    dataset: str
    store_fingerprint: _Hash
    split: str
    n_way: _Size
    n_shot: _Size | tuple[_Size, ...] = Field(description="support images of each class, or one number per way")
    n_query: _Size = Field(description="query images of each class; where not balanced, on average")
    balanced: bool = Field(description="whether every class of every episode has exactly n_query")
    episodes: _Size
    seed: int = Field(description="of the sampler that drew them")
    fingerprint: _Hash = Field(description="of the content, as `content_fingerprint` gives it")
    package_version: str = Field(description="the fewshot-nsl that drew them")

    @property
    def shots(self) -> tuple[int, ...]:
        """One number per way."""
        return (self.n_shot,) * self.n_way if isinstance(self.n_shot, int) else self.n_shot


@dataclass(frozen=True, eq=False)
class EpisodeTable:
    """One row per image of every episode."""

    episode: Int64[np.ndarray, " rows"]
    query: Bool[np.ndarray, " rows"]
    label: Int64[np.ndarray, " rows"]
    class_: Int64[np.ndarray, " rows"]
    """Place of the class in `names`."""
    index: Int64[np.ndarray, " rows"]
    """Place of the image within its class, in the store's canonical order."""
    names: tuple[str, ...]
    """Of the classes that occur, sorted."""


def number_classes(numbers: Int64[np.ndarray, " rows"], names: Sequence[str]) -> tuple[Int64[np.ndarray, " rows"], tuple[str, ...]]:
    """`class_` and `names` of a table whose classes are given by `numbers` of any list of distinct `names`."""
    used = np.flatnonzero(np.bincount(numbers, minlength=len(names)))
    ordered = sorted(used.tolist(), key=lambda number: names[number])
    place = np.zeros(len(names), dtype=np.int64)
    place[ordered] = np.arange(len(ordered))
    return place[numbers], tuple(names[number] for number in ordered)


def content_fingerprint(store_fingerprint: str, split: str, table: EpisodeTable) -> str:
    r"""Hexadecimal SHA-256 of which images make which episodes, however a file encodes them.

    The bytes hashed are, in UTF-8, a line each (ended by `\n`) for `fewshot-nsl episodes 1`, the store's fingerprint, the split, and the
    names of the classes that occur, sorted; then for each row of the table, in its order, five little-endian int32: episode, 0 for
    support or 1 for query, label, place of the class among those names, and index.
    """
    hasher = hashlib.sha256("\n".join(["fewshot-nsl episodes 1", store_fingerprint, split, *table.names, ""]).encode())
    columns = (table.episode, table.query, table.label, table.class_, table.index)
    hasher.update(np.stack(columns, axis=1).astype("<i4").data)
    return hasher.hexdigest()
