"""A folder of images for each class, named as the class: in `train/`, `val/` and `test/`, or all in one place."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.data.images import SUFFIXES, decode_images
from fewshot_nsl.data.layouts.layout import Layout
from fewshot_nsl.data.source import Source, SourceClass
from fewshot_nsl.errors import DataError

_SPELLINGS: Mapping[str, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_ROOTS = (
    ".",
    "images",
    "CUB_200_2011/images",
    "CUB_200_2011/CUB_200_2011/images",
    "train",
    "ILSVRC2012_img_train",
    "ILSVRC/Data/CLS-LOC/train",
)
"""Where class folders begin in what people have: their own collections, CUB as unpacked, ILSVRC-2012 from its home and from Kaggle."""


def split_places(source: Path) -> dict[str, Path] | None:
    """Split -> its folder, where `source` has one of folders for each; `val` may be spelt `valid` or `validation`."""
    found = {split: next((source / name for name in names if (source / name).is_dir()), None) for split, names in _SPELLINGS.items()}
    places = {split: place for split, place in found.items() if place is not None and subfolders(place)}
    return places if len(places) == len(SPLITS) else None


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders in `folder`, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """The files in `folder` that are images by their endings, sorted by name, hidden ones left out."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))
    return [folder / name for name in names if Path(name).suffix.lower() in SUFFIXES]


def find_class_root(card: Card, source: Path) -> Path | None:
    """The first place in `source` that has a folder named as a class of the card."""
    names = [name for split in SPLITS for name in card.splits[split]]
    return next((source / root for root in _ROOTS if any((source / root / name).is_dir() for name in names)), None)


def _find_split(card: Card, source: Path) -> Path | None:
    # Not by `train`: the folder of ILSVRC-2012 has a `train/` with all classes, and `val/` and `test/` without any.
    places = split_places(source)
    known = places and any(set(card.splits[split]) & set(subfolders(places[other])) for split in SPLITS for other in ("val", "test"))
    return source if known else None


def _read_split(card: Card, root: Path) -> Source:
    places = split_places(root) or {}
    for split, name in ((own, name) for own in SPLITS for name in card.splits[own]):
        for other in SPLITS:
            if other != split and (places[other] / name).is_dir():
                raise DataError(
                    f"{places[other] / name} is in '{other}', but {card.name} has that class in '{split}'; move it there, "
                    f"or put a card with your split into data/cards/{card.name}.toml"
                )
    return _read(card, root, places, SPLIT_FOLDERS.name)


def _read_flat(card: Card, root: Path) -> Source:
    return _read(card, root, dict.fromkeys(SPLITS, root), CLASS_FOLDERS.name)


def _read(card: Card, root: Path, places: Mapping[str, Path], layout: str) -> Source:
    """The card's classes; folders of other names are left alone: a part of a larger collection is meant."""
    classes = []
    for split in SPLITS:
        for name in card.splits[split]:
            folder = places[split] / name
            if folder.is_dir():  # `check_source` names those that are missing, all together
                paths = image_files(folder)
                origins = tuple(path.relative_to(root).as_posix() for path in paths)
                classes.append(SourceClass(split, name, origins, partial(decode_images, paths, card.image_size, card.channels)))
    return Source(layout, classes)


SPLIT_FOLDERS = Layout("class folders by split", "train/, val/ and test/ with a folder of images for each class", _find_split, _read_split)
CLASS_FOLDERS = Layout("class folders", "a folder of images for each class", find_class_root, _read_flat)
