"""Every way in which a set may be wrong is put into a file, and found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeSampler, FrozenDescription, freeze, read_description, read_frozen
from fewshot_nsl.errors import DataError

Columns = dict[str, list[Any]]
Edit = Callable[[Columns], object]

SIZE = 3 * (2 + 4)
"""Rows of an episode."""


@pytest.fixture
def path(tiny_store: ImageStore, tmp_path: Path) -> Path:
    """10 episodes: 3 ways (all classes of val: bat, cat, dog), 2 shots, 4 queries."""
    path = tmp_path / "set.parquet"
    sampler = EpisodeSampler(tiny_store.split_labels("val"), 3, 2, 4, seed=0)
    freeze(tiny_store, sampler, path, split="val", episodes=10)
    return path


def _rewrite(path: Path, edit: Edit, **described: object) -> None:
    """Edit rows and description; the fingerprint in it stays as it was."""
    columns = pq.read_table(path).to_pydict()
    edit(columns)
    description = read_description(path).model_copy(update=described)
    pq.write_table(pa.table(columns, metadata={"fewshot-nsl": description.model_dump_json()}), path)


def _nothing(_: Columns) -> None:
    pass


def _cut(columns: Columns) -> None:
    for values in columns.values():
        values.pop()


def _set(row: int, column: str, value: object) -> Edit:
    return lambda columns: columns[column].__setitem__(row, value)


def _copy(row: int, to: int) -> Edit:
    return lambda columns: columns["index"].__setitem__(to, columns["index"][row])


def _swap(column: str, one: int, other: int) -> Edit:
    def edit(columns: Columns) -> None:
        values = columns[column]
        values[one], values[other] = values[other], values[one]

    return edit


def _change(column: str, changed: Callable[[Any], object]) -> Edit:
    return lambda columns: columns.update({column: [changed(value) for value in columns[column]]})


def _rename(old: str, new: str) -> Edit:
    return _change("class", lambda name: new if name == old else name)


E2 = 2 * SIZE
"""First row of episode 2: supports of label 0 are E2 and E2 + 1, its queries the four after these."""


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_cut, "it has 179 rows, expected 10 episodes of 18"),
        (_set(E2, "episode", 1), "episode 2: row 36 is of episode 1, expected episodes from 0 in order, 18 rows each"),
        (_swap("episode", E2 - 1, E2), "episode 1: row 35 is of episode 2, expected episodes from 0"),
        (_change("episode", lambda number: number + 1), "episode 0: row 0 is of episode 1"),
        (_set(E2, "label", 3), "episode 2: label 3, expected 0 to 2"),
        (_set(E2, "label", -1), "episode 2: label -1, expected 0 to 2"),
        (_set(E2 + 2, "set", "support"), "episode 2: label 0 has 3 support images, expected 2"),
        (_set(E2, "set", "query"), "episode 2: label 0 has 1 support images, expected 2"),
        (_set(E2, "label", 1), "episode 2: label 0 has 1 support images, expected 2"),
        (_set(E2 + 5, "label", 1), "episode 2: label 0 has 3 query images, expected 4"),
        (_rename("cat", "cow"), r"episode \d: class cow, which tiny does not have in split 'val'"),
        (_rename("cat", "ant"), r"episode \d: class ant, which tiny does not have in split 'val'"),
        (_swap("class", E2, E2 + SIZE - 1), r"episode 2: label 0 is of \w+ and \w+, expected one class"),
        (_rename("cat", "dog"), "episode 0: two labels are of one class, expected distinct classes"),
        (_set(E2 + 7, "index", 20), r"episode 2: index 20 of \w+, expected 0 to 19"),
        (_set(E2 + 7, "index", -1), r"episode 2: index -1 of \w+, expected 0 to 19"),
        (_copy(E2, E2 + 1), "episode 2: an image occurs twice, expected distinct images"),
        (_copy(E2, E2 + 2), "episode 2: an image occurs twice, expected distinct images"),
        (_swap("index", E2, E2 + 1), "its episodes have fingerprint [0-9a-f]{12}, expected [0-9a-f]{12}"),
    ],
)
def test_what_is_wrong_is_found_and_placed(path: Path, tiny_store: ImageStore, edit: Edit, message: str) -> None:
    _rewrite(path, edit)
    with pytest.raises(
        DataError, match=f"set.parquet: {message}.*; fetch that file again, or draw a new one: fewshot-nsl episodes freeze$"
    ):
        read_frozen(path, tiny_store)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"episodes": 9}, "it has 180 rows, expected 9 episodes of 18"),
        ({"n_way": 2, "n_shot": 5}, "episode 0: label 2, expected 0 to 1"),
        ({"n_shot": 3, "n_query": 3}, "episode 0: label 0 has 2 support images, expected 3"),
        ({"n_shot": (2, 2)}, "n_shot lists 2 numbers, expected one for each of 3 ways"),
        ({"n_shot": (2, 3, 1)}, "episode 0: label 1 has 2 support images, expected 3"),
        ({"split": "test"}, r"episode 0: class \w+, which tiny does not have in split 'test'"),
        ({"split": "holdout"}, r"episode 0: class \w+, which tiny does not have in split 'holdout'"),
        ({"fingerprint": "0" * 64}, "its episodes have fingerprint [0-9a-f]{12}, expected 000000000000"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(path: Path, tiny_store: ImageStore, described: dict[str, object], message: str) -> None:
    _rewrite(path, _nothing, **described)
    with pytest.raises(DataError, match=f"set.parquet: {message}"):
        read_frozen(path, tiny_store)


def test_of_unbalanced_queries_only_the_number_in_all_is_given(path: Path, tiny_store: ImageStore) -> None:
    _rewrite(path, _nothing, balanced=False)
    assert read_frozen(path, tiny_store).description == FrozenDescription(
        **read_description(path).model_dump(exclude={"balanced"}), balanced=False
    )


def test_a_set_of_other_images_is_refused(path: Path, tiny_store: ImageStore) -> None:
    other = replace(tiny_store, name="other", fingerprint="ab" * 32)
    with pytest.raises(
        DataError,
        match=f"set.parquet was drawn from tiny of fingerprint {tiny_store.fingerprint[:12]}: expected abababababab, which other has here; "
        "prepare the same images, or draw a set from these: fewshot-nsl episodes freeze --dataset other",
    ):
        read_frozen(path, other)


def test_an_untouched_rewrite_passes(path: Path, tiny_store: ImageStore) -> None:
    _rewrite(path, _nothing)
    assert len(read_frozen(path, tiny_store)) == 10
