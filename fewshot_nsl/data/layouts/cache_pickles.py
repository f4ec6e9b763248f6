"""Mini-ImageNet as learn2learn and others keep it: `mini-imagenet-cache-{train,val,test}.pkl`; `val` may be spelt `validation`.

Each is a dict of `image_data`, uint8 [n, h, w, c], and `class_dict`, class -> the places of its images. They are of the card's size.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.data.layouts.latest import Latest
from fewshot_nsl.data.layouts.layout import Layout
from fewshot_nsl.data.pickles import load_plain_pickle, texts
from fewshot_nsl.data.source import Images, Source, SourceClass
from fewshot_nsl.errors import DataError

_SPELLINGS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}

_Cache = tuple[Images, Mapping[str, list[int]]]
"""All images of a split, and class -> the places of its images."""


def _paths(source: Path) -> dict[str, Path]:
    named = {split: [source / f"mini-imagenet-cache-{name}.pkl" for name in names] for split, names in _SPELLINGS.items()}
    return {split: path for split, paths in named.items() for path in paths if path.is_file()}


def _find(_: Card, source: Path) -> Path | None:
    return source if _paths(source) else None


def _read(card: Card, root: Path) -> Source:
    """The classes of the three pickles.

    Raises:
        DataError: a pickle is missing, holds anything but plain values, or has other shapes.
    """
    paths = _paths(root)
    absent = [split for split in SPLITS if split not in paths]
    if absent:
        raise DataError(f"{root} has no mini-imagenet-cache-{absent[0]}.pkl; to get {card.name}: {card.how_to_get}")
    # A store is written split by split, so each is read twice: now for its classes, later for its images. `train` takes up to 2 GB.
    cache = Latest(lambda file: _read_cache(card, paths[file]))
    # Old copies exist whose val and test are exchanged, so the card tells a class's split and not the file it is in.
    splits = {name: split for split in SPLITS for name in card.splits[split]}
    classes = []
    for file in SPLITS:
        for name, places in cache(file)[1].items():
            origins = tuple(f"{paths[file].name}#{place}" for place in places)
            classes.append(SourceClass(splits.get(name, file), name, origins, partial(_load, cache, file, places)))
    return Source(CACHE_PICKLES.name, classes)


def _load(cache: Latest[_Cache], file: str, places: list[int]) -> Images:
    return cache(file)[0][places]


def _read_cache(card: Card, path: Path) -> _Cache:
    with path.open("rb") as file:
        content = load_plain_pickle(file, str(path))
    values = texts(content) if isinstance(content, dict) else {}
    images, classes = values.get("image_data"), values.get("class_dict")
    shape = (card.image_size, card.image_size, card.channels)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != shape:
        raise DataError(f"{path} has no image_data of uint8 [n, {', '.join(map(str, shape))}]; get a fresh copy, then prepare again")
    if not isinstance(classes, dict):
        raise DataError(f"{path} has no class_dict, from classes to places of images; get a fresh copy, then prepare again")
    return images, {name: _checked(path, name, places, len(images)) for name, places in texts(classes).items()}


def _checked(path: Path, name: str, places: object, n: int) -> list[int]:
    numbers = places.tolist() if isinstance(places, np.ndarray) else places
    if (
        not isinstance(numbers, list | tuple)
        or not all(type(number) is int and 0 <= number < n for number in numbers)
        or len(set(numbers)) < len(numbers)
    ):
        raise DataError(
            f"{path}: class_dict['{name}'] is no list of different places among {n} images; get a fresh copy, then prepare again"
        )
    return list(numbers)


CACHE_PICKLES = Layout("mini-imagenet-cache pickles", "mini-imagenet-cache-{train,val,test}.pkl", _find, _read)
