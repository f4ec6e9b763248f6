"""Reading a whole store again to prove that it is what its card says."""

from collections.abc import Iterator

import numpy as np

from fewshot_nsl.data.fingerprint import fingerprint, pixel_digest
from fewshot_nsl.data.record import IMAGES_FILE, INDEX_FILE, RECORD_FILE, SOURCES_FILE, StoreRecord, damaged, read_record
from fewshot_nsl.data.statistics import ChannelStatistics
from fewshot_nsl.data.store import ImageStore, open_store, read_table
from fewshot_nsl.data.write import Progress
from fewshot_nsl.workspace import Workspace, file_checksum


def verify(workspace: Workspace, name: str, progress: Progress | None = None) -> ImageStore:
    """Read every byte of the prepared dataset `name` and compare it with the checksums, fingerprint and statistics of its card.

    Raises:
        DataError: it is not prepared, or is damaged; names the first file or image that is wrong.
    """
    store = open_store(workspace, name)
    record = read_record(store.root)
    # The tables first: once they are proven, a wrong image can be named by row.
    for file in (INDEX_FILE, SOURCES_FILE):
        _check_file(store, record, file)
    found = fingerprint(record.shape, _proven_rows(store, progress))
    _check_file(store, record, IMAGES_FILE)
    if found != record.fingerprint:
        raise damaged(store.root / RECORD_FILE, f"gives fingerprint {record.fingerprint}, but the images have {found}")
    train = ChannelStatistics(record.channels)
    for rows in _class_rows(store, "train"):
        train.add(store.images[rows])
    if (train.mean, train.std) != (record.mean, record.std):
        raise damaged(
            store.root / RECORD_FILE, f"gives mean {record.mean} and std {record.std}, but the images have {train.mean}, {train.std}"
        )
    return store


def _check_file(store: ImageStore, record: StoreRecord, name: str) -> None:
    if file_checksum(store.root / name) != record.checksums.get(name):
        raise damaged(store.root / name, f"does not have the checksum that {RECORD_FILE} gives")


def _proven_rows(store: ImageStore, progress: Progress | None) -> Iterator[tuple[str, str, bytes]]:
    """(split, class, pixel digest) of each row, where the digest is the one that was written."""
    sources = read_table(store.root / SOURCES_FILE, ("row", "source", "sha256"))
    written = sources["sha256"].to_pylist()
    for split, rows in store.splits.items():
        for row in rows:
            name = store.classes[store.labels[row]]
            digest = pixel_digest(store.images[row])
            if digest.hex() != written[row]:
                origin = sources["source"][row].as_py()
                raise damaged(store.root / IMAGES_FILE, f"is damaged in row {row} (class {name}, read from {origin})")
            yield split, name, digest
            if progress is not None and (row + 1 == len(store.labels) or row % 500 == 0):
                progress(row + 1, len(store.labels))


def _class_rows(store: ImageStore, split: str) -> Iterator[slice]:
    """The rows of each class of `split`, so that no more than a class is in memory."""
    labels = store.split_labels(split)
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        yield slice(int(rows[0]), int(rows[-1]) + 1)
