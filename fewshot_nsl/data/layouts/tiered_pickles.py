"""tieredImageNet as its authors give it (Ren et al. 2018): `{train,val,test}_images_png.pkl` and `{train,val,test}_labels.pkl`.

The first is a list of PNG files, each a uint8 array; the second a dict of `label_specific`, the class number of each image, and
`label_specific_str`, the classes in English, which `class_names.txt` and, line by line, `synsets.txt` turn into WordNet ids. All come in
one archive, found at https://github.com/renmengye/few-shot-ssl-public. The images of `train` take some 8 GB of memory.
"""

from functools import partial
from pathlib import Path

import numpy as np

from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.data.images import decode_each, decode_image
from fewshot_nsl.data.layouts.latest import Latest
from fewshot_nsl.data.layouts.layout import Layout
from fewshot_nsl.data.pickles import load_plain_pickle, texts
from fewshot_nsl.data.source import Images, Source, SourceClass
from fewshot_nsl.errors import DataError

_NAMES, _IDS = "class_names.txt", "synsets.txt"


def _find(_: Card, source: Path) -> Path | None:
    candidates = (source, source / "tiered-imagenet")
    return next((root for root in candidates if any((root / f"{split}_images_png.pkl").is_file() for split in SPLITS)), None)


def _read(card: Card, root: Path) -> Source:
    """The classes of the three pairs of pickles.

    Raises:
        DataError: a pickle is missing, holds anything but plain values, or is not as described above.
    """
    pickles = (f"{split}_{kind}.pkl" for split in SPLITS for kind in ("images_png", "labels"))
    absent = [name for name in (*pickles, _NAMES, _IDS) if not (root / name).is_file()]
    if absent:
        raise DataError(f"{root} has no {', '.join(absent)}; to get {card.name}: {card.how_to_get}")
    ids = _wordnet_ids(card, root)
    labels = {split: _read_labels(root / f"{split}_labels.pkl") for split in SPLITS}
    images = Latest(lambda split: _read_images(root / f"{split}_images_png.pkl", sum(map(len, labels[split].values()))))
    classes = []
    for split in SPLITS:
        for name, places in labels[split].items():
            origins = tuple(f"{split}_images_png.pkl#{place}" for place in places)
            classes.append(SourceClass(split, ids.get(name, name), origins, partial(_load, card, images, split, places, root)))
    return Source(TIERED_PICKLES.name, classes)


def _wordnet_ids(card: Card, root: Path) -> dict[str, str]:
    """English name -> WordNet id, of the card's classes: of all of ImageNet two have the same name."""
    names, ids = ((root / file).read_text(encoding="utf-8", errors="replace").splitlines() for file in (_NAMES, _IDS))
    if len(names) != len(ids):
        raise DataError(
            f"{root / _NAMES} has {len(names)} lines, {_IDS} {len(ids)}; expected as many; get a fresh copy, then prepare again"
        )
    known = {name for split in SPLITS for name in card.splits[split]}
    return {name.strip(): each.strip() for name, each in zip(names, ids, strict=True) if each.strip() in known}


def _load(card: Card, images: Latest[list[object]], split: str, places: list[int], root: Path) -> Images:
    files = images(split)
    name = f"{root / split}_images_png.pkl"

    def decode(place: int) -> np.ndarray:
        content = files[place]
        packed = content.tobytes() if isinstance(content, np.ndarray) and content.dtype == np.uint8 else content
        if not isinstance(packed, bytes):
            raise DataError(f"{name}: entry {place} is no PNG; get a fresh copy, then prepare again")
        return decode_image(packed, card.image_size, card.channels, f"{name}#{place}")

    return decode_each(places, decode, (card.image_size, card.image_size, card.channels))


def _read_images(path: Path, n: int) -> list[object]:
    with path.open("rb") as file:
        content = load_plain_pickle(file, str(path))
    if not isinstance(content, list):
        raise DataError(f"{path} is no list of PNG files; get a fresh copy, then prepare again")
    if len(content) != n:  # those of another split, perhaps
        raise DataError(f"{path} has {len(content)} images, but its labels are {n}; get a fresh copy, then prepare again")
    return content


def _read_labels(path: Path) -> dict[str, list[int]]:
    """Class -> the places of its images, ascending."""
    with path.open("rb") as file:
        content = load_plain_pickle(file, str(path))
    values = texts(content) if isinstance(content, dict) else {}
    labels, names = values.get("label_specific"), values.get("label_specific_str")
    numbers = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers) or not isinstance(names, list):
        raise DataError(f"{path} has no label_specific and label_specific_str; get a fresh copy, then prepare again")
    if not all(0 <= number < len(names) for number in numbers):
        raise DataError(f"{path} gives an image a class that it does not name; get a fresh copy, then prepare again")
    places: list[list[int]] = [[] for _ in names]
    for place, number in enumerate(numbers):
        places[number].append(place)
    return {
        name.decode(errors="replace") if isinstance(name, bytes) else str(name): found for name, found in zip(names, places, strict=True)
    }


TIERED_PICKLES = Layout(
    "tiered-imagenet pickles",
    "{train,val,test}_images_png.pkl and {train,val,test}_labels.pkl with class_names.txt and synsets.txt",
    _find,
    _read,
)
