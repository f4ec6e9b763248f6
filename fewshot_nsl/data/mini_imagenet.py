"""Mini-ImageNet (Vinyals et al., NeurIPS 2016, https://arxiv.org/abs/1606.04080) in the layout of Ravi and Larochelle's lists.

    images/*.jpg
    train.csv, val.csv, test.csv        columns filename, label

The images may be of any size; they are resized to the card's.
"""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.data.images import decode_images
from fewshot_nsl.data.source import Source, SourceClass
from fewshot_nsl.errors import DataError

LAYOUT = "mini-imagenet lists"
_COLUMNS = ["filename", "label"]


def read_mini_imagenet(card: Card, source: Path | None) -> Source:
    """Mini-ImageNet from the folder `source`; images of another size are resized to the card's (84 x 84).

    Raises:
        DataError: `source` is not given; a list is missing, or one of its rows is malformed, repeated, of two splits, or without image.
    """
    if source is None:
        raise DataError(f"{card.name} is not embedded: give its images with --from PATH; to get them: {card.how_to_get}")
    absent = [name for name in (*(f"{split}.csv" for split in SPLITS), "images") if not (source / name).exists()]
    if absent:
        raise DataError(f"{source} has no {', '.join(absent)}; to get {card.name}: {card.how_to_get}")
    seen: dict[str, str] = {}
    classes: list[SourceClass] = []
    for split in SPLITS:
        for label, names in _read_list(source / f"{split}.csv", seen).items():
            if other := next((each.split for each in classes if each.name == label), None):
                raise DataError(
                    f"{source / f'{split}.csv'} has the class {label}, which is in {other}.csv too; expected each class in one split"
                )
            paths = [source / "images" / name for name in names]
            load = partial(decode_images, paths, card.image_size, card.channels)
            classes.append(SourceClass(split, label, tuple(f"images/{name}" for name in names), load))
    return Source(LAYOUT, tuple(classes))


def _read_list(path: Path, seen: dict[str, str]) -> dict[str, list[str]]:
    """Class -> its file names, in the order of the list; `seen` collects where each file name was listed."""
    classes: dict[str, list[str]] = {}
    for line, name, label in _rows(path):
        where = f"{path}, line {line}"
        if PurePosixPath(name).name != name or "\\" in name or ":" in name:
            raise DataError(f"{where}: '{name}' leads out of images/; expected a plain file name")
        if name in seen:
            raise DataError(f"{where}: '{name}' was listed already, in {seen[name]}")
        if not (path.parent / "images" / name).is_file():
            raise DataError(f"{where}: images/{name} is missing; put it there, then prepare again")
        seen[name] = where
        classes.setdefault(label, []).append(name)
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
