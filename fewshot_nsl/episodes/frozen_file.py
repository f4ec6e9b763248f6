"""Frozen episodes as Parquet files, which say what they are and can be read by anything that reads Parquet."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from fewshot_nsl import __version__
from fewshot_nsl.config import first_wrong_field
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes.frozen import FrozenEpisodes
from fewshot_nsl.episodes.frozen_check import damaged
from fewshot_nsl.episodes.frozen_table import EpisodeTable, FrozenDescription, content_fingerprint, number_classes
from fewshot_nsl.episodes.sampler import EpisodeSampler
from fewshot_nsl.errors import DataError, EpisodeError
from fewshot_nsl.workspace import Workspace, moved_into_place

SUFFIX = ".parquet"
_KEY = b"fewshot-nsl"
"""Of the description among the file's key-value metadata."""
_SETS = ("support", "query")
_COLUMNS = ("episode", "set", "label", "class", "index")
_AT_ONCE = 1000
"""Episodes drawn together."""


def freeze(
    store: ImageStore,
    sampler: EpisodeSampler,
    path: Path,
    *,
    split: str,
    episodes: int,
    force: bool = False,
) -> FrozenEpisodes:
    """Draw episodes 0 ... `episodes` - 1 and write them to `path`; where the very same are there already, nothing is written.

    Rows go by episode, then label, supports before queries, each in the sampler's order: the first shots of a class are its episode of
    fewer shots, the first queries that of fewer queries. Equal episodes give equal bytes with the same pyarrow.

    Args:
        store: where the images are.
        sampler: made from `store.split_labels(split)`.
        path: of the Parquet file.
        split: "train", "val" or "test".
        episodes: how many.
        force: replace a file that is there, whatever it is.

    Raises:
        EpisodeError: the file is there, with other episodes.
        DataError: the file is there and is no frozen set of this store; or the sampler shows images outside the split.
    """
    table = _draw(store, sampler, episodes)
    description = FrozenDescription(
        dataset=store.name,
        store_fingerprint=store.fingerprint,
        split=split,
        n_way=sampler.n_way,
        n_shot=sampler.n_shot[0] if len(set(sampler.n_shot)) == 1 else sampler.n_shot,
        n_query=sampler.n_query,
        balanced=sampler.balanced,
        episodes=episodes,
        seed=sampler.seed,
        fingerprint=content_fingerprint(store.fingerprint, split, table),
        package_version=__version__,
    )
    frozen = FrozenEpisodes(store, description, table, str(path))
    if path.exists() and not force:
        there = read_frozen(path, store)
        if there.fingerprint != frozen.fingerprint:
            raise EpisodeError(
                f"{path} has other episodes (fingerprint {there.fingerprint[:12]}, these have {frozen.fingerprint[:12]}): "
                f"choose another file with --output, or pass --force to replace it"
            )
        return there
    with moved_into_place(path) as aside:
        _write(table, description, aside)
    return frozen


def read_frozen(path: Path, store: ImageStore) -> FrozenEpisodes:
    """The frozen set in the file `path`, of the images of `store`.

    Raises:
        DataError: the file is missing or damaged, is no frozen set, or is one of other images.
    """
    with _open(path) as file:
        description = _description(file, path)
        if tuple(file.schema_arrow.names) != _COLUMNS:
            raise damaged(str(path), f"it has columns {', '.join(file.schema_arrow.names)}, expected {', '.join(_COLUMNS)}")
        columns = file.read()
        if nulls := [name for name in _COLUMNS if columns[name].null_count]:
            raise damaged(str(path), f"column {nulls[0]} has empty places, expected none")
        episode, label, index = (columns[name].cast(pa.int64()).to_numpy() for name in ("episode", "label", "index"))
        (sets, of_set), (classes, of_class) = (_codes(columns[name]) for name in ("set", "class"))
    if not set(sets) <= set(_SETS):
        raise damaged(str(path), f"column set has {', '.join(sorted(sets))}, expected {' and '.join(_SETS)}")
    query = np.array([name == _SETS[1] for name in sets], dtype=bool)[of_set]
    class_, names = number_classes(of_class, classes)
    return FrozenEpisodes(store, description, EpisodeTable(episode, query, label, class_, index, names), str(path))


def read_description(path: Path) -> FrozenDescription:
    """What the frozen set in the file `path` says of itself; its episodes are not read.

    Raises:
        DataError: the file is missing or damaged, or is no frozen set.
    """
    with _open(path) as file:
        return _description(file, path)


def find_frozen(workspace: Workspace, name: str) -> Path:
    """The frozen set `name`: a file's path, or the stem of one in the workspace's or the package's `episodes/`.

    Raises:
        DataError: there is none; those that are there are listed.
    """
    path = Path(name) if Path(name).is_file() else workspace.find(f"episodes/{name}{SUFFIX}")
    if path is None:
        known = ", ".join(workspace.list("episodes", SUFFIX)) or "none"
        raise DataError(f"frozen set {name} is neither a file nor in episodes/ (there: {known}); make it: fewshot-nsl episodes freeze")
    return path


def _draw(store: ImageStore, sampler: EpisodeSampler, episodes: int) -> EpisodeTable:
    drawn = [each for start in range(0, episodes, _AT_ONCE) for each in sampler.draw(range(start, min(start + _AT_ONCE, episodes)))]
    rows = np.concatenate([part for each in drawn for part in (each.support_rows, each.query_rows)])
    labels = np.concatenate([part for each in drawn for part in (each.support_labels, each.query_labels)])
    shown = sum(sampler.n_shot) + sampler.n_way * sampler.n_query
    episode, place = np.divmod(np.arange(episodes * shown), shown)
    query = place >= sum(sampler.n_shot)
    order = np.lexsort((query, labels, episode))  # stable: images of a class stay as they were drawn
    ids = store.labels[rows[order]]
    class_, names = number_classes(ids, store.classes)
    return EpisodeTable(episode, query[order], labels[order], class_, rows[order] - np.searchsorted(store.labels, ids), names)


def _write(table: EpisodeTable, description: FrozenDescription, path: Path) -> None:
    columns = (
        pa.array(table.episode.astype(np.int32)),
        pa.DictionaryArray.from_arrays(table.query.astype(np.int8), _SETS),
        pa.array(table.label.astype(np.int16)),
        pa.DictionaryArray.from_arrays(table.class_.astype(np.int32), table.names),
        pa.array(table.index.astype(np.int32)),
    )
    metadata = {_KEY: description.model_dump_json().encode()}
    pq.write_table(pa.table(columns, _COLUMNS, metadata=metadata), path, compression="zstd", compression_level=22)


@contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise damaged(str(path), f"it cannot be read as Parquet: {error}") from error


def _description(file: pq.ParquetFile, path: Path) -> FrozenDescription:
    metadata = file.metadata.metadata or {}
    if _KEY not in metadata:
        raise damaged(str(path), f"its metadata has no '{_KEY.decode()}', expected a file of fewshot-nsl episodes freeze")
    try:
        return FrozenDescription.model_validate_json(metadata[_KEY])
    except ValidationError as error:
        raise damaged(str(path), f"its description has a wrong field {first_wrong_field(error)}") from error


def _codes(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The distinct texts of a column, and which each row has."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
