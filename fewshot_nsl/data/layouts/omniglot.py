"""Omniglot as its authors give it (Lake et al. 2015): `images_background` and `images_evaluation`, zipped or unpacked.

    <zip name>/<Alphabet>/character<NN>/*.png       20 drawings a character, 105 x 105, 1 bit

A class is `<Alphabet>/character<NN>`; with `/rot090` at its end, the same drawings turned by 90 degrees counterclockwise, and so on.
Found at https://github.com/brendenlake/omniglot.
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from fewshot_nsl.data.card import QUARTER_TURNS, SPLITS, Card
from fewshot_nsl.data.images import decode_each, decode_image
from fewshot_nsl.data.layouts.layout import Layout
from fewshot_nsl.data.source import Images, Source, SourceClass
from fewshot_nsl.errors import DataError

_PARTS = ("images_background", "images_evaluation", "images_background_small1", "images_background_small2")
"""A character that lies in more than one (the small ones are parts of the first) is read from the first."""

_MOST_BYTES = 2**20
"""Of one drawing; a real one has some hundred."""

_Drawings = Mapping[str, bytes]
"""Origin -> the bytes of a PNG, of one character."""


def _find(_: Card, source: Path) -> Path | None:
    return source if _parts(source) else None


def _parts(source: Path) -> list[Path]:
    """The zips or folders of Omniglot that are `source`, or lie in it."""
    if source.stem in _PARTS:
        return [source]
    candidates = ((source / f"{part}.zip", source / part) for part in _PARTS)
    return [path for pair in candidates for path in pair if path.exists()]


def _read(card: Card, root: Path) -> Source:
    """The card's characters that are there. The drawings of all of them take some 20 MB, packed as they are.

    Raises:
        DataError: a zip is damaged.
    """
    characters: dict[str, _Drawings] = {}
    for part in _parts(root):
        found = _in_zip(part) if part.is_file() else _in_folder(part)
        characters = {**found, **characters}
    classes = []
    for split in SPLITS:
        for name in card.splits[split]:
            character, turns = _turned(name)
            if character in characters:
                drawings = characters[character]
                load = partial(_load, drawings, turns, card.image_size, card.channels)
                classes.append(SourceClass(split, name, tuple(drawings), load))
    return Source(OMNIGLOT.name, classes)


def _turned(name: str) -> tuple[str, int]:
    """The character of a class, and its number of quarter turns."""
    character, _, turn = name.rpartition("/")
    return (character, QUARTER_TURNS.index(turn)) if turn in QUARTER_TURNS else (name, 0)


def _load(drawings: _Drawings, turns: int, size: int, channels: int) -> Images:
    def decode(origin: str) -> np.ndarray:
        return decode_image(drawings[origin], size, channels, origin)

    images = decode_each(tuple(drawings), decode, (size, size, channels))
    return np.ascontiguousarray(np.rot90(images, turns, axes=(1, 2)))


def _in_zip(path: Path) -> dict[str, _Drawings]:
    """Class -> its drawings, read in memory: nothing is unpacked to disk, so no path in the archive matters."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".png")]
            if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
                raise ValueError("it is compressed in an unusual way")  # whose damage Python may not know how to tell
            if large := next((member for member in members if member.file_size > _MOST_BYTES), None):
                raise DataError(f"{path}: {large.filename} has {large.file_size} bytes, no drawing of Omniglot; get a fresh copy")
            return _by_class({member.filename: archive.read(member) for member in members})
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:  # ValueError: a name that is no text
        raise DataError(f"{path} is no whole zip ({error}); download it again, then prepare again") from error


def _in_folder(path: Path) -> dict[str, _Drawings]:
    return _by_class({file.relative_to(path.parent).as_posix(): file.read_bytes() for file in sorted(path.glob("*/character*/*.png"))})


def _by_class(drawings: _Drawings) -> dict[str, _Drawings]:
    classes: dict[str, dict[str, bytes]] = {}
    for origin, content in drawings.items():
        parts: Sequence[str] = PurePosixPath(origin).parts
        if len(parts) == 4 and not parts[3].startswith("."):  # what macOS adds lies deeper, or is hidden
            classes.setdefault("/".join(parts[1:3]), {})[origin] = content
    return dict(classes)


OMNIGLOT = Layout("Omniglot's own", "images_background and images_evaluation, zipped or unpacked", _find, _read)
