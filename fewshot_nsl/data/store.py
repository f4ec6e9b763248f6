"""A prepared dataset: all its images in one memory-mapped array, in canonical order, with labels, splits and fingerprint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int64, UInt8

from fewshot_nsl.data.card import SPLITS
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
    # Folders being written, and those left by a killed process, start with a dot; data/cards holds the cards.
    return sorted(
        path.parent.name
        for path in workspace.data.glob(f"*/{RECORD_FILE}")
        if not path.parent.name.startswith(".") and path.parent.name != "cards"
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


def read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A Parquet file of a store, with exactly `columns`, whose `row` counts from 0.

    Raises:
        DataError: it is missing, damaged, or has other columns or rows.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are kinds of these
        raise damaged(path, f"cannot be read: {error}") from error
    if tuple(table.columns) != columns:
        raise damaged(path, f"has columns {', '.join(map(str, table.columns))}, expected {', '.join(columns)}")
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


def _split_rows(root: Path, record: StoreRecord, index: pd.DataFrame) -> dict[str, range]:
    """Split -> its rows, where the index has the splits in order and of the sizes that the card says."""
    counts = index["split"].value_counts(sort=False).to_dict()
    expected = {split: record.splits[split].images for split in SPLITS if split in record.splits}
    if list(counts.items()) != list(expected.items()) or index["split"].ne(index["split"].shift()).sum() != len(expected):
        raise damaged(root / INDEX_FILE, f"has splits {counts}, expected {expected} in this order")
    stops = np.cumsum(list(expected.values())).tolist()
    return {split: range(stop - size, stop) for (split, size), stop in zip(expected.items(), stops, strict=True)}


def _number_classes(root: Path, record: StoreRecord, index: pd.DataFrame) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Class ids by first appearance, which is canonical order, and their names."""
    labels, names = pd.factorize(index["class"])
    n_expected = sum(size.classes for size in record.splits.values())
    if len(names) != n_expected or (np.diff(labels) < 0).any():
        raise damaged(root / INDEX_FILE, f"has {len(names)} classes, expected {n_expected}, each in one run of rows")
    return labels.astype(np.int64), tuple(str(name) for name in names)
