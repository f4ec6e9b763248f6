import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewshot_nsl import __version__
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeSampler, find_frozen, freeze, read_description, read_frozen
from fewshot_nsl.errors import DataError, EpisodeError
from fewshot_nsl.workspace import Workspace


@pytest.fixture
def sampler(tiny_store: ImageStore) -> EpisodeSampler:
    return EpisodeSampler(tiny_store.split_labels("test"), 3, 2, 4, seed=0)


@pytest.fixture
def path(tiny_store: ImageStore, sampler: EpisodeSampler, tmp_path: Path) -> Path:
    path = tmp_path / "new" / "set.parquet"
    freeze(tiny_store, sampler, path, split="test", episodes=40)
    return path


def test_rows_name_class_and_place_within_the_class(path: Path, tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    frame = pq.read_table(path).to_pandas()
    assert list(frame.columns) == ["episode", "set", "label", "class", "index"]
    for number, rows in frame.groupby("episode"):
        episode = sampler[int(str(number))]
        for part, drawn, labels in (
            ("support", episode.support_rows, episode.support_labels),
            ("query", episode.query_rows, episode.query_labels),
        ):
            chosen = rows[rows["set"] == part]
            assert chosen["label"].tolist() == labels.tolist()
            assert chosen["class"].tolist() == [tiny_store.classes[tiny_store.labels[row]] for row in drawn]
            places = [row - np.flatnonzero(tiny_store.labels == tiny_store.labels[row])[0] for row in drawn]
            assert chosen["index"].tolist() == places


def test_types_are_small_and_texts_are_dictionaries(path: Path) -> None:
    text = pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.string())
    assert [str(field.type) for field in pq.read_schema(path)] == ["int32", str(text[0]), "int16", str(text[1]), "int32"]


def test_the_file_describes_itself(path: Path, tiny_store: ImageStore) -> None:
    metadata = json.loads(pq.read_metadata(path).metadata[b"fewshot-nsl"])
    fingerprint = read_frozen(path, tiny_store).fingerprint
    assert metadata == {
        "format": 1,
        "dataset": "tiny",
        "store_fingerprint": tiny_store.fingerprint,
        "split": "test",
        "n_way": 3,
        "n_shot": 2,
        "n_query": 4,
        "balanced": True,
        "episodes": 40,
        "seed": 0,
        "fingerprint": fingerprint,
        "package_version": __version__,
    }
    assert read_description(path).model_dump(mode="json") == metadata


def test_equal_episodes_give_equal_bytes(path: Path, tiny_store: ImageStore, sampler: EpisodeSampler, tmp_path: Path) -> None:
    freeze(tiny_store, sampler, tmp_path / "again.parquet", split="test", episodes=40)
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_a_row_takes_less_than_a_byte(tiny_store: ImageStore, sampler: EpisodeSampler, tmp_path: Path) -> None:
    freeze(tiny_store, sampler, tmp_path / "set.parquet", split="test", episodes=2000)
    assert (tmp_path / "set.parquet").stat().st_size < 2000 * 18  # a place among 20 is 0.54 bytes of information


@pytest.mark.parametrize("how", ["pandas", "small groups, no dictionaries", "large texts, wide numbers"])
def test_the_same_rows_written_otherwise_are_the_same_set(path: Path, tiny_store: ImageStore, how: str) -> None:
    before, table = read_frozen(path, tiny_store), pq.read_table(path)
    metadata = {b"fewshot-nsl": table.schema.metadata[b"fewshot-nsl"]}
    if how == "pandas":
        other = pa.Table.from_pandas(table.to_pandas()).replace_schema_metadata(metadata)
        pq.write_table(other, path)
    else:
        text = pa.string() if "small" in how else pa.large_string()
        number = pa.int8() if "small" in how else pa.int64()
        types = {"episode": number, "set": text, "label": number, "class": text, "index": number}
        other = table.cast(pa.schema(types)).replace_schema_metadata(metadata)
        pq.write_table(other, path, row_group_size=7, use_dictionary=False, compression="none")
    after = read_frozen(path, tiny_store)
    assert after.fingerprint == before.fingerprint
    assert all(np.array_equal(a.query_rows, b.query_rows) for a, b in zip(after, before, strict=True))


def test_the_very_same_episodes_are_not_written_again(path: Path, tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    table = pq.read_table(path)
    pq.write_table(table, path, compression="none")  # as another version might
    before = path.read_bytes()
    frozen = freeze(tiny_store, sampler, path, split="test", episodes=40)
    assert path.read_bytes() == before
    assert frozen.fingerprint == read_frozen(path, tiny_store).fingerprint


def test_other_episodes_are_kept_unless_forced(path: Path, tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    before = path.read_bytes()
    with pytest.raises(
        EpisodeError,
        match=r"set.parquet has other episodes \(fingerprint \w{12}, these have \w{12}\): choose another file with --output, or pass --for",
    ):
        freeze(tiny_store, sampler, path, split="test", episodes=41)
    assert path.read_bytes() == before
    freeze(tiny_store, sampler, path, split="test", episodes=41, force=True)
    assert len(read_frozen(path, tiny_store)) == 41


def test_what_is_no_frozen_set_is_kept_unless_forced(path: Path, tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    path.write_text("my notes")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        freeze(tiny_store, sampler, path, split="test", episodes=40)
    assert path.read_text() == "my notes"
    freeze(tiny_store, sampler, path, split="test", episodes=40, force=True)
    assert len(read_frozen(path, tiny_store)) == 40


def test_a_sampler_of_another_split_is_refused_and_nothing_is_written(
    tiny_store: ImageStore, sampler: EpisodeSampler, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="which tiny does not have in split 'val'"):
        freeze(tiny_store, sampler, tmp_path / "set.parquet", split="val", episodes=40)
    assert list(tmp_path.iterdir()) == []


def test_many_episodes_are_drawn_in_parts_and_all_are_there(tiny_store: ImageStore, sampler: EpisodeSampler, tmp_path: Path) -> None:
    frozen = freeze(tiny_store, sampler, tmp_path / "set.parquet", split="test", episodes=2050)
    for i in (0, 999, 1000, 2000, 2049):
        assert np.array_equal(frozen[i].query_rows, sampler[i].query_rows)


def test_a_missing_file_is_refused(tiny_store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}/none.parquet: it cannot be read as Parquet: .*; fetch that file again"):
        read_frozen(tmp_path / "none.parquet", tiny_store)


def test_a_file_cut_anywhere_is_refused(path: Path, tiny_store: ImageStore) -> None:
    whole = path.read_bytes()
    for end in (0, 3, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            read_frozen(path, tiny_store)


def test_a_flipped_bit_is_refused_or_changes_nothing(path: Path, tiny_store: ImageStore) -> None:
    whole, before = path.read_bytes(), read_frozen(path, tiny_store)
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(4, len(whole) - 8, 200):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << int(rng.integers(8)))]) + whole[at + 1 :])
        try:
            after = read_frozen(path, tiny_store)
        except DataError:
            refused += 1
        else:  # a byte of no meaning, as in the footer's statistics
            assert after.fingerprint == before.fingerprint
            assert np.array_equal(after[39].query_rows, before[39].query_rows)
    assert refused > 50


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, "its metadata has no 'fewshot-nsl', expected a file of fewshot-nsl episodes freeze"),
        ("{", "its description has a wrong field ''"),
        ('{"format": 2}', "its description has a wrong field 'format'"),
        ('{"surprise": 2}', "its description has a wrong field 'dataset'"),
    ],
)
def test_a_file_that_does_not_say_what_it_is_is_refused(path: Path, tiny_store: ImageStore, description: str | None, message: str) -> None:
    table = pq.read_table(path).replace_schema_metadata({"fewshot-nsl": description} if description else None)
    pq.write_table(table, path)
    for read in (lambda: read_description(path), lambda: read_frozen(path, tiny_store)):
        with pytest.raises(DataError, match=f"set.parquet: {message}"):
            read()


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("set", None, "it has columns episode, label, class, index, expected episode, set, label, class, index"),
        ("set", "train", "column set has train, expected support and query"),
        ("label", "one", "it cannot be read as Parquet: .*"),
        ("index", 0.5, "it cannot be read as Parquet: .*"),
    ],
)
def test_other_columns_are_refused(path: Path, tiny_store: ImageStore, column: str, values: object, message: str) -> None:
    table = pq.read_table(path)
    place = table.column_names.index(column)
    other = table.remove_column(place) if values is None else table.set_column(place, column, pa.array([values] * len(table)))
    pq.write_table(other, path)
    with pytest.raises(DataError, match=f"set.parquet: {message}"):
        read_frozen(path, tiny_store)


@pytest.mark.parametrize("column", ["episode", "set", "label", "class", "index"])
def test_empty_places_are_refused(path: Path, tiny_store: ImageStore, column: str) -> None:
    table = pq.read_table(path)
    values = [None, *table[column].to_pylist()[1:]]
    pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(values)), path)
    with pytest.raises(DataError, match=f"set.parquet: column {column} has empty places"):
        read_frozen(path, tiny_store)


def test_a_set_is_found_by_path_and_by_name(workspace: Workspace, path: Path) -> None:
    assert find_frozen(workspace, str(path)) == path
    own = workspace.root / "episodes" / "mine.parquet"
    own.parent.mkdir()
    own.write_bytes(path.read_bytes())
    assert find_frozen(workspace, "mine") == own


def test_a_set_that_is_not_there_is_refused_and_those_that_are_are_listed(workspace: Workspace) -> None:
    (workspace.root / "episodes").mkdir()
    (workspace.root / "episodes" / "mine.parquet").write_text("")
    with pytest.raises(DataError, match=r"frozen set yours is neither a file nor in episodes/ \(there: .*mine.*\); make it: fewshot-nsl"):
        find_frozen(workspace, "yours")
