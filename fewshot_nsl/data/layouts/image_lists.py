"""The lists of Ravi and Larochelle, `train.csv`, `val.csv` and `test.csv` (columns filename, label), beside `images/` or ILSVRC-2012.

In `images/` lie files of the listed names, of any size. In a folder of ILSVRC-2012, a listed name such as `n0153282900000005.jpg` is the
fifth image of the class n01532829 in the order of the numbers in ILSVRC's own file names (`n01532829_<number>.JPEG`).
"""

import csv
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path, PurePosixPath

from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.data.images import decode_images
from fewshot_nsl.data.layouts.class_folders import find_class_root, image_files
from fewshot_nsl.data.layouts.layout import Layout
from fewshot_nsl.data.source import Source, SourceClass
from fewshot_nsl.errors import DataError

Locate = Callable[[str, str], Path]
"""From a listed file name and its label to the image; refuses in the middle of a sentence that begins with the line."""

_COLUMNS = ["filename", "label"]
_LISTED = re.compile(r"(n\d{8})(\d{8})\.jpe?g", re.IGNORECASE)
_NUMBERED = re.compile(r"(n\d{8})_(\d+)")


def _find_images(_: Card, source: Path) -> Path | None:
    return source if _has_list(source) and (source / "images").is_dir() else None


def _find_ilsvrc(card: Card, source: Path) -> Path | None:
    root = find_class_root(card, source) if _has_list(source) else None
    if root is None:
        return None
    # Copies of Mini-ImageNet in class folders often keep the lists beside them, which then say nothing that the folders do not.
    return source if any(_ranked(root / name) for split in SPLITS for name in card.splits[split]) else None


def _ranked(folder: Path) -> list[Path]:
    """ILSVRC's images of a class, in the order of their numbers; none of other names."""
    matches = ((path, _NUMBERED.fullmatch(path.stem)) for path in (image_files(folder) if folder.is_dir() else ()))
    numbers = {path: int(match[2]) for path, match in matches if match and match[1] == folder.name}
    return sorted(numbers, key=lambda path: numbers[path])


def _has_list(source: Path) -> bool:
    return any((source / f"{split}.csv").is_file() for split in SPLITS)


def _read_images(card: Card, root: Path) -> Source:
    def locate(name: str, _: str) -> Path:
        if not (root / "images" / name).is_file():
            raise DataError(f"images/{name} is missing; put it there, then prepare again")
        return root / "images" / name

    return _read_lists(card, root, locate, IMAGE_LISTS.name)


def _read_ilsvrc(card: Card, root: Path) -> Source:
    classes = find_class_root(card, root) or root
    ranked = cache(_ranked)

    def locate(name: str, label: str) -> Path:
        match = _LISTED.fullmatch(name)
        if match is None or match[1] != label:
            raise DataError(f"'{name}' does not name an image of {label} by its place; expected, for instance, {label}00000001.jpg")
        place, paths = int(match[2]), ranked(classes / label)
        if not 1 <= place <= len(paths):
            raise DataError(
                f"'{name}' is image {place} of its class, but {classes / label} has {len(paths)}; complete it, then prepare again"
            )
        return paths[place - 1]

    return _read_lists(card, root, locate, ILSVRC_LISTS.name)


def _read_lists(card: Card, root: Path, locate: Locate, layout: str) -> Source:
    """The classes of the three lists.

    Raises:
        DataError: a list is missing, or one of its rows is malformed, repeated, of two splits, or without image.
    """
    absent = [f"{split}.csv" for split in SPLITS if not (root / f"{split}.csv").is_file()]
    if absent:
        raise DataError(f"{root} has no {', '.join(absent)}; to get {card.name}: {card.how_to_get}")
    seen: dict[Path, str] = {}
    classes: dict[str, SourceClass] = {}
    for split in SPLITS:
        for label, paths in _read_list(root / f"{split}.csv", locate, seen).items():
            if label in classes:
                other = classes[label].split
                raise DataError(f"{root / split}.csv has the class {label}, which is in {other}.csv too; expected each class in one split")
            origins = tuple(path.relative_to(root).as_posix() for path in paths)
            classes[label] = SourceClass(split, label, origins, partial(decode_images, paths, card.image_size, card.channels))
    return Source(layout, tuple(classes.values()))


def _read_list(path: Path, locate: Locate, seen: dict[Path, str]) -> dict[str, list[Path]]:
    """Class -> its images, in the order of the list; `seen` collects where each image was listed."""
    classes: dict[str, list[Path]] = {}
    for line, name, label in _rows(path):
        where = f"{path}, line {line}"
        for what, value in (("file name", name), ("label", label)):
            if PurePosixPath(value).name != value or "\\" in value or ":" in value or value == "..":
                raise DataError(f"{where}: '{value}' leads out of the folder; expected a plain {what}")
        try:
            image = locate(name, label)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if image in seen:
            raise DataError(f"{where}: '{name}' was listed already, in {seen[image]}")
        seen[image] = where
        classes.setdefault(label, []).append(image)
    return classes


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, file name and label of each row; line ends of Windows and the mark that some editors put first are no matter."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            if (columns := next(reader, [])) != _COLUMNS:
                raise DataError(f"{path} has columns {columns}, expected {_COLUMNS}")
            for row in reader:
                if len(row) != len(_COLUMNS) or not all(row):
                    raise DataError(f"{path}, line {reader.line_num}: {row} is not a file name and a label")
                yield reader.line_num, row[0], row[1]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}, line {reader.line_num} or after: no text in UTF-8 ({error}); get a fresh copy") from error


IMAGE_LISTS = Layout("images and lists", "images/ with train.csv, val.csv and test.csv", _find_images, _read_images)
ILSVRC_LISTS = Layout(
    "ILSVRC-2012 and lists", "the ILSVRC-2012 training folder with train.csv, val.csv and test.csv beside it", _find_ilsvrc, _read_ilsvrc
)
