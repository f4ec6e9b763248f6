"""The official archive of CIFAR-100 for Python: pickles `cifar-100-python/{train,test,meta}`, in a folder or still in its .tar.gz.

Each of `train` and `test` is a dict of `data` (uint8 [n, 3072]: 1024 red values, row by row, then green, then blue),
`fine_labels` and `filenames`; `meta` has `fine_label_names`. See https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import tarfile
import zlib
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.data.layouts.layout import Layout
from fewshot_nsl.data.pickles import load_plain_pickle
from fewshot_nsl.data.source import Images, Source, SourceClass
from fewshot_nsl.errors import DataError

_FOLDER = "cifar-100-python"
_SIDE = 32
_MEMBERS = ("train", "test", "meta")


def _find(_: Card, source: Path) -> Path | None:
    """The archive's folder, where `source` is that folder or the one around it; or the archive itself, or in the folder `source`."""
    if source.is_file() and source.name.endswith((".tar.gz", ".tgz", ".tar")):
        return source
    folders = (root for root in (source, source / _FOLDER) if all((root / member).is_file() for member in _MEMBERS))
    packed = source / f"{_FOLDER}.tar.gz"
    return next(folders, packed if packed.is_file() else None)


def _read(card: Card, archive: Path) -> Source:
    """The card's classes, each with its images from both `train` and `test` of the archive: few-shot splits are by class.

    Raises:
        DataError: a member is missing, is no pickle of plain values, has other shapes, or a class of the card is not in it.
    """
    names = _strings(_member(archive, "meta"), "fine_label_names", archive)
    missing = [name for split in SPLITS for name in card.splits[split] if name not in names]
    if missing:
        raise DataError(f"{archive} has no class '{missing[0]}', which the card of {card.name} has")
    halves = [_read_half(archive, member) for member in ("train", "test")]
    return Source(
        CIFAR_ARCHIVE.name, tuple(_read_class(halves, split, name, names.index(name)) for split in SPLITS for name in card.splits[split])
    )


@dataclass(frozen=True)
class _Half:
    """`train` or `test`."""

    pixels: UInt8[np.ndarray, "n 3072"]
    labels: Int64[np.ndarray, " n"]
    origins: tuple[str, ...]


def _read_class(halves: list[_Half], split: str, name: str, label: int) -> SourceClass:
    rows = [np.flatnonzero(half.labels == label) for half in halves]
    origins = tuple(half.origins[row] for half, found in zip(halves, rows, strict=True) for row in found)
    return SourceClass(split, name, origins, partial(_load, halves, rows))


def _load(halves: list[_Half], rows: list[np.ndarray]) -> Images:
    pixels = np.concatenate([half.pixels[found] for half, found in zip(halves, rows, strict=True)])
    return np.ascontiguousarray(pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))


def _read_half(archive: Path, member: str) -> _Half:
    content = _member(archive, member)
    pixels, labels = content.get(b"data"), content.get(b"fine_labels")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3 * _SIDE * _SIDE,):
        raise DataError(f"{archive}: '{member}' has no data of uint8 [n, 3072]; get a fresh copy, then prepare again")
    names = _strings(content, "filenames", archive)
    if (
        not isinstance(labels, list)
        or not len(labels) == len(names) == len(pixels)
        or not all(isinstance(label, int) and 0 <= label < 100 for label in labels)
    ):
        raise DataError(
            f"{archive}: '{member}' has not one filename and one fine label, 0 to 99, for each image; get a fresh copy, then prepare again"
        )
    return _Half(pixels, np.array(labels, dtype=np.int64), tuple(f"{member}/{name}" for name in names))


def _strings(content: dict[object, object], key: str, archive: Path) -> list[str]:
    values = content.get(key.encode())
    if not isinstance(values, list) or not all(isinstance(value, bytes) for value in values):
        raise DataError(f"{archive} has no list '{key}'; get a fresh copy, then prepare again")
    return [value.decode(errors="replace") for value in values]


def _member(archive: Path, member: str) -> dict[object, object]:
    name = f"{archive}/{member}"
    content = load_plain_pickle(BytesIO((archive / member).read_bytes() if archive.is_dir() else _packed(archive, member)), name)
    if not isinstance(content, dict):
        raise DataError(f"{name} is not a dict; expected the official archive of CIFAR-100")
    return content


def _packed(archive: Path, member: str) -> bytes:
    """A member's bytes, read in memory: nothing is unpacked to disk, so no path in the archive matters."""
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile(f"{_FOLDER}/{member}")
            if file is not None:
                return file.read()
    except KeyError:
        pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = " ".join(str(error).split())  # tarfile tells it in several lines
        raise DataError(f"{archive} is not a whole archive ({reason}); download it again, then prepare again") from error
    raise DataError(f"{archive} has no file {_FOLDER}/{member}; expected the official cifar-100-python.tar.gz")


CIFAR_ARCHIVE = Layout("cifar-100-python", "cifar-100-python.tar.gz, or cifar-100-python/ with train, test and meta", _find, _read)
