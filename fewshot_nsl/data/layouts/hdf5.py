"""Mini-ImageNet as torchmeta keeps it: `{train,val,test}_data.hdf5`, an array of images a class, and `{split}_labels.json`, the classes.

Reading it needs h5py, which is not installed with the package: `pip install "fewshot-nsl[hdf5]"`.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.data.layouts.layout import Layout
from fewshot_nsl.data.source import Images, Source, SourceClass
from fewshot_nsl.errors import DataError

if TYPE_CHECKING:
    import h5py

_MOST = 10**6
"""Images of a class: a small file can claim to hold any number."""

_GROUP = "datasets"


def _find(_: Card, source: Path) -> Path | None:
    candidates = (source, source / "miniimagenet")
    return next((root for root in candidates if any((root / f"{split}_data.hdf5").is_file() for split in SPLITS)), None)


def _read(card: Card, root: Path) -> Source:
    """The classes of the three files.

    Raises:
        DataError: a file is missing or damaged, keeps its images elsewhere, or has other shapes; or h5py is not installed.
    """
    absent = [name for split in SPLITS for name in (f"{split}_data.hdf5", f"{split}_labels.json") if not (root / name).is_file()]
    if absent:
        raise DataError(f"{root} has no {', '.join(absent)}; to get {card.name}: {card.how_to_get}")
    classes = []
    for split in SPLITS:
        path = root / f"{split}_data.hdf5"
        for name, n in _sizes(card, path, _labels(card, root, split)).items():
            origins = tuple(f"{path.name}#{name}/{place}" for place in range(n))
            classes.append(SourceClass(split, name, origins, partial(_load, path, name)))
    return Source(HDF5.name, classes)


def _labels(card: Card, root: Path, split: str) -> list[str]:
    path = root / f"{split}_labels.json"
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of JSON, and of UTF-8
        raise DataError(f"{path} is no JSON ({error}); get a fresh copy, then prepare again") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{path} is no list of classes; get a fresh copy, then prepare again")
    for label in labels:
        # Also keeps a name such as ../elsewhere from leading out of the group.
        if label not in card.splits[split]:
            raise DataError(f"{path} names the class {label!r}, which the card of {card.name} does not have in '{split}'")
    return labels


def _sizes(card: Card, path: Path, names: list[str]) -> Mapping[str, int]:
    """Class -> number of its images."""
    shape = [card.image_size, card.image_size, card.channels]
    sizes = {}
    with _opened(path) as file:
        for name in names:
            array = _array(file, path, name)
            found = list(array.shape or ())  # None where there is nothing
            if array.dtype != np.uint8 or found[1:] != shape or found[0] > _MOST:
                raise DataError(f"{path}: '{name}' holds {array.dtype} {found}, expected uint8 [n, {str(shape)[1:]}")
            sizes[name] = len(array)
    return sizes


def _load(path: Path, name: str) -> Images:
    with _opened(path) as file:
        return np.asarray(_array(file, path, name)[()])


@contextmanager
def _opened(path: Path) -> "Iterator[h5py.File]":
    """The file; what HDF5 raises while it is open is a refusal too, since much of a file is only looked at when it is asked for."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path} is HDF5, which h5py reads; run: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no whole HDF5 file ({error}); get a fresh copy, then prepare again") from error


def _array(file: "h5py.File", path: Path, name: str) -> "h5py.Dataset":
    """The images of a class, which lie in this very file."""
    import h5py

    group = _own(file, _GROUP)
    array = _own(group, name) if isinstance(group, h5py.Group) else None
    if not isinstance(array, h5py.Dataset) or array.external or array.is_virtual:
        raise DataError(f"{path} has no images of its own in {_GROUP}/{name}; get a fresh copy, then prepare again")
    return array


def _own(group: "h5py.Group", name: str) -> object:
    """What the group itself holds under this name: HDF5 can point elsewhere, into other files too."""
    import h5py

    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


HDF5 = Layout("torchmeta HDF5", "{train,val,test}_data.hdf5 with {train,val,test}_labels.json", _find, _read)
