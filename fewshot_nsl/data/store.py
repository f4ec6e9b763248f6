"""A prepared dataset: all its images in one memory-mapped array, in canonical order, with labels, splits and fingerprint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64, UInt8

from fewshot_nsl.data.card import SPLITS, TAKEN
from fewshot_nsl.data.record import IMAGES_FILE, INDEX_FILE, RECORD_FILE, StoreRecord, damaged, read_record
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Images of a dataset, opened for reading.

    **Canonical order** of the rows: split (train, val, test), class name, SHA-256 of the image's pixels. Any layout that holds
    the same pixels therefore gives the same store, bit for bit.

    A pickled store is small: it carries its folder and fingerprint, and opens the memory map again where it arrives.
    """

    name: str
    root: Path
    """The folder `data/<name>`."""
    images: UInt8[np.ndarray, "n h w c"]
    """A read-only memory map; pixels 0-255."""
    labels: Int64[np.ndarray, " n"]
    """Class id of each row, 0 to n_classes - 1, numbered in canonical order."""
    classes: tuple[str, ...]
    """Class id -> name."""
    splits: Mapping[str, range]
    """Split -> its rows, which are contiguous."""
    fingerprint: str
    """Hexadecimal SHA-256 of pixels and index; `fewshot_nsl.data.fingerprint` says of which bytes."""
    mean: tuple[float, ...]
    """Per channel over the train split, 0-255."""
    std: tuple[float, ...]
    """Per channel over the train split, in pixel units."""
    augmentations: tuple[str, ...]
    """Changes of a training image that keep its label: "crop", "flip"."""

    def split_labels(self, split: str) -> Int64[np.ndarray, " n"]:
        """The labels, with -1 for every row outside `split`.

        Raises:
            DataError: the store has no such split.
        """
        if split not in self.splits:
            raise DataError(f"{self.name} has no split '{split}'; there are: {', '.join(self.splits)}")
        rows = self.splits[split]
        labels = np.full_like(self.labels, -1)
        labels[rows.start : rows.stop] = self.labels[rows.start : rows.stop]
        return labels

    def __reduce__(self) -> tuple[Callable[[Path, str], "ImageStore"], tuple[Path, str]]:
        return _reopen, (self.root, self.fingerprint)


def prepared_stores(workspace: Workspace) -> list[str]:
    """Sorted names of the datasets that are prepared in `workspace`."""
    # Folders being written, and those left by a killed process, start with a dot.
    return sorted(
        path.parent.name
        for path in workspace.data.glob(f"*/{RECORD_FILE}")
        if not path.parent.name.startswith(".") and path.parent.name not in TAKEN
    )


def open_store(workspace: Workspace, name: str) -> ImageStore:
    """The prepared dataset `name`. Sizes and index are checked; pixels are not read (`verify` does that).

    Raises:
        DataError: it is not prepared, or its files do not agree with its card.
    """
    prepared = prepared_stores(workspace)
    if name not in prepared:
        raise DataError(
            f"{name} is not prepared in {workspace.data} (prepared: {', '.join(prepared) or 'none'}); "
            f"run: fewshot-nsl data prepare {name} [--from PATH]"
        )
    return _open(workspace.data / name)


def _reopen(root: Path, fingerprint: str) -> ImageStore:
    store = _open(root)
    if store.fingerprint != fingerprint:
        raise DataError(f"{root} was replaced while in use: fingerprint {store.fingerprint[:12]}, expected {fingerprint[:12]}; start again")
    return store


def _open(root: Path) -> ImageStore:
    record = read_record(root)
    if record.name != root.name:
        raise damaged(root / RECORD_FILE, f"is of the dataset {record.name}")
    index = read_table(root / INDEX_FILE, ("row", "class", "split"))
    splits = _split_rows(root, record, index)
    labels, classes = _number_classes(root, record, index)
    return ImageStore(
        name=record.name,
        root=root,
        images=_map_images(root, record),
        labels=labels,
        classes=classes,
        splits=splits,
        fingerprint=record.fingerprint,
        mean=record.mean,
        std=record.std,
        augmentations=record.augmentations,
    )


def read_table(path: Path, columns: tuple[str, ...]) -> pa.Table:
    """A Parquet file of a store, with exactly `columns`: `row`, which counts from 0, and texts.

    Raises:
        DataError: it is missing, damaged, or has other columns or rows.
    """
    try:
        names = pq.read_schema(path).names
        if tuple(names) != columns:
            raise damaged(path, f"has columns {', '.join(names)}, expected {', '.join(columns)}")
        # Not through pandas, and text as numbers into a dictionary: five times faster than an object for every cell.
        table = pq.ParquetFile(path, read_dictionary=columns[1:]).read().unify_dictionaries().combine_chunks()
    except (OSError, ValueError) as error:  # pyarrow's errors are kinds of these
        raise damaged(path, f"cannot be read: {error}") from error
    if not np.array_equal(table["row"].to_numpy(), np.arange(len(table))):
        raise damaged(path, "has a column 'row' that does not count 0, 1, 2, …")
    return table


def _map_images(root: Path, record: StoreRecord) -> UInt8[np.ndarray, "n h w c"]:
    path = root / IMAGES_FILE
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, f"cannot be read: {error}") from error
    if images.dtype != np.uint8 or images.shape != record.shape:
        raise damaged(path, f"holds {images.dtype} {list(images.shape)}, expected uint8 {list(record.shape)}")
    return images


def _split_rows(root: Path, record: StoreRecord, index: pa.Table) -> dict[str, range]:
    """Split -> its rows, where the index has the splits in order and of the sizes that the card says."""
    runs = _runs(index["split"])
    found = [(split, len(rows)) for split, rows in runs]
    expected = [(split, record.splits[split].images) for split in SPLITS if split in record.splits]
    if found != expected:
        raise damaged(root / INDEX_FILE, f"has splits {dict(found)}, expected {dict(expected)} in this order")
    return dict(runs)


def _number_classes(root: Path, record: StoreRecord, index: pa.Table) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Class ids by first appearance, which is canonical order, and their names."""
    runs = _runs(index["class"])
    names = tuple(name for name, _ in runs)
    n_expected = sum(size.classes for size in record.splits.values())
    if len(names) != n_expected or len(set(names)) != len(names):
        raise damaged(root / INDEX_FILE, f"has {len(set(names))} classes, expected {n_expected}, each in one run of rows")
    return np.repeat(np.arange(len(names), dtype=np.int64), [len(rows) for _, rows in runs]), names


def _runs(column: pa.ChunkedArray) -> list[tuple[str, range]]:
    """Each run of rows that have the same text."""
    if len(column) == 0:
        return []
    values = column.chunk(0)
    codes = values.indices.to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist()]
    names = values.dictionary.to_pylist()
    return [(names[codes[start]], range(start, stop)) for start, stop in zip(starts, [*starts[1:], len(codes)], strict=True)]
