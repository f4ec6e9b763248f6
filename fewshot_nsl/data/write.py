"""Writing a store's files: one class in memory at a time, in canonical order."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from fewshot_nsl import __version__
from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.data.fingerprint import fingerprint, pixel_digest
from fewshot_nsl.data.record import IMAGES_FILE, INDEX_FILE, SOURCES_FILE, SplitSize, StoreRecord
from fewshot_nsl.data.source import Images, Source, SourceClass, check_source
from fewshot_nsl.data.statistics import ChannelStatistics
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import file_checksum

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

Row = tuple[str, str, str, bytes]
"""Split, class name, origin, pixel digest."""


def write_store(card: Card, source: Source, folder: Path, progress: Progress | None = None) -> None:
    """Write the four files of a store into the empty `folder`, flushed to disk.

    Raises:
        DataError: the source is not what the card says, or an image cannot be read.
    """
    check_source(card, source)
    shape = (source.n_images, card.image_size, card.image_size, card.channels)
    statistics = ChannelStatistics(card.channels)
    rows: list[Row] = []
    # Written as a stream: on a full disk that is an error to report, where writing to a memory map would kill the process.
    with (folder / IMAGES_FILE).open("wb") as file:
        _write_header(file, shape)
        for each in sorted(source.classes, key=lambda each: (SPLITS.index(each.split), each.name)):
            images, class_rows = _in_canonical_order(each, shape)
            file.write(images.tobytes())
            rows.extend(class_rows)
            if each.split == "train":
                statistics.add(images)
            if progress is not None:
                progress(len(rows), source.n_images)
    found = fingerprint(shape, ((split, name, digest) for split, name, _, digest in rows))
    _check_fingerprint(card, found)
    _write_tables(folder, rows)
    StoreRecord(
        name=card.name,
        title=card.title,
        fingerprint=found,
        images=source.n_images,
        image_size=card.image_size,
        channels=card.channels,
        mean=statistics.mean,
        std=statistics.std,
        augmentations=card.augmentations,
        licence=card.licence,
        layout=source.layout,
        package_version=__version__,
        splits={split: _split_size(source, split) for split in SPLITS},
        checksums={name: file_checksum(folder / name) for name in (IMAGES_FILE, INDEX_FILE, SOURCES_FILE)},
    ).write(folder)
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _split_size(source: Source, split: str) -> SplitSize:
    classes = [each for each in source.classes if each.split == split]
    return SplitSize(classes=len(classes), images=sum(len(each.origins) for each in classes))


def _write_header(file: BinaryIO, shape: tuple[int, int, int, int]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _in_canonical_order(each: SourceClass, shape: tuple[int, int, int, int]) -> tuple[Images, list[Row]]:
    """A class's images sorted by pixel digest (equal images by origin), and the rows that describe them."""
    images = each.load()
    expected = (len(each.origins), *shape[1:])
    if images.shape != expected:
        raise DataError(f"class {each.name}: the source gave images {list(images.shape)}, expected {list(expected)}")
    digests = [pixel_digest(image) for image in images]
    order = sorted(range(len(images)), key=lambda i: (digests[i], each.origins[i]))
    return images[order], [(each.split, each.name, each.origins[i], digests[i]) for i in order]


def _check_fingerprint(card: Card, found: str) -> None:
    if card.fingerprint not in (None, found):
        raise DataError(
            f"{card.name}: the images have fingerprint {found}, expected {card.fingerprint}, which its card gives; they are not the images "
            f"that others measure on (to use them all the same, put a card without fingerprint into data/cards/{card.name}.toml)"
        )


def _write_tables(folder: Path, rows: list[Row]) -> None:
    splits, names, origins, digests = zip(*rows, strict=True)
    number = np.arange(len(rows))
    pd.DataFrame({"row": number, "class": names, "split": splits}).to_parquet(folder / INDEX_FILE, index=False)
    hexadecimal = [digest.hex() for digest in digests]
    pd.DataFrame({"row": number, "source": origins, "sha256": hexadecimal}).to_parquet(folder / SOURCES_FILE, index=False)
