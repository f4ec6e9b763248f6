"""One tree of photographs, written in every layout of Mini-ImageNet: one store, byte for byte."""

import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
import pytest

from fewshot_nsl.data import Source, SourceClass, load_card, prepare
from fewshot_nsl.data.fingerprint import pixel_digest
from fewshot_nsl.data.record import read_record
from fewshot_nsl.data.write import write_store
from fewshot_nsl.workspace import Workspace

Pixels = Mapping[str, np.ndarray]

SPLIT = MappingProxyType({"n01532829": "train", "n02110341": "train", "n01855672": "val", "n01930112": "test"})
"""Of each class, in canonical order."""


@pytest.fixture
def expected(imagenet: Workspace, photographs: Pixels, tmp_path: Path) -> Path:
    """The store of the photographs as they are in memory, from no layout."""
    origins = tuple(map(str, range(6)))
    classes = [SourceClass(split, name, origins, partial(photographs.__getitem__, name)) for name, split in SPLIT.items()]
    (tmp_path / "expected").mkdir()
    write_store(load_card(imagenet, "mini-imagenet"), Source("memory", classes), tmp_path / "expected")
    return tmp_path / "expected"


def test_what_all_are_compared_with_is_in_canonical_order(expected: Path, photographs: Pixels) -> None:
    images = [image for name in SPLIT for image in sorted(photographs[name], key=pixel_digest)]
    np.testing.assert_array_equal(np.load(expected / "images.npy"), np.stack(images))


def _leave(_: Path) -> None:
    pass


def _move(root: Path, **names: str) -> None:
    for old, new in names.items():
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)


def _move_classes(folder: str, root: Path) -> None:
    _move(root, **{name: f"{folder}/{name}" for name in SPLIT})


def _link_classes(root: Path) -> None:
    _move_classes("../elsewhere", root)
    for name in SPLIT:
        (root / name).symlink_to(Path("..") / "elsewhere" / name)


def _as_ilsvrc_comes(root: Path) -> None:
    """Validation and test images of ILSVRC-2012 lie in no class folders."""
    _move_classes("train", root)
    for name in ("val", "test"):
        (root / name).mkdir()
        (root / name / f"ILSVRC2012_{name}_00000001.JPEG").touch()


def _shuffle_rows(root: Path) -> None:
    for path in root.glob("*.csv"):
        header, *rows = path.read_text().splitlines(keepends=True)
        path.write_text("".join([header, *np.random.default_rng(0).permutation(rows)]))


def _save_lists_with_notepad(root: Path) -> None:
    for path in root.glob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))


def _name_as_png(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.rename(path.with_suffix(".png"))
    for path in root.glob("*.csv"):
        path.write_text(path.read_text().replace(".jpg,", ".png,"))


def _pickle(protocol: int, root: Path, *, arrays: bool = False, python_2: bool = False, columns: bool = False) -> None:
    """Write the pickles again, in another of the ways that are found."""
    for path in root.glob("*.pkl"):
        content = pickle.loads(path.read_bytes())
        images, places = content["image_data"], content["class_dict"]
        images = np.asfortranarray(images) if columns else images
        places = {name: np.array(each, dtype=np.int32) if arrays else each for name, each in places.items()}
        places = {name.encode(): each for name, each in places.items()} if python_2 else places
        keys = (b"image_data", b"class_dict") if python_2 else ("image_data", "class_dict")
        path.write_bytes(pickle.dumps(dict(zip(keys, (images, places), strict=True)), protocol=protocol))


def _spell_validation(root: Path) -> None:
    _move(root, **{"mini-imagenet-cache-val.pkl": "mini-imagenet-cache-validation.pkl"})


def _exchange_val_and_test(root: Path) -> None:
    """As in old copies."""
    for old, new in (("val", "aside"), ("test", "val"), ("aside", "test")):
        _move(root, **{f"mini-imagenet-cache-{old}.pkl": f"mini-imagenet-cache-{new}.pkl"})


def _compress(root: Path) -> None:
    for path in (root / "miniimagenet").glob("*.hdf5"):
        with h5py.File(path) as file:
            arrays = {name: array[()] for name, array in file["datasets"].items()}
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(f"datasets/{name}", data=array, chunks=(1, 84, 84, 3), compression="gzip", shuffle=True)


def _without_folder(root: Path) -> None:
    for path in (root / "miniimagenet").iterdir():
        path.rename(root / path.name)


LISTS, ILSVRC, FLAT, SPLIT_FOLDERS, PICKLES, HDF5 = "lists", "ilsvrc", "class_folders", "split_folders", "cache_pickles", "hdf5_files"

LAYOUT = {
    LISTS: "images and lists",
    ILSVRC: "ILSVRC-2012 and lists",
    FLAT: "class folders",
    SPLIT_FOLDERS: "class folders by split",
    PICKLES: "mini-imagenet-cache pickles",
    HDF5: "torchmeta HDF5",
}

CHANGES: Mapping[str, tuple[str, Callable[[Path], None]]] = {
    "lists": (LISTS, _leave),
    "lists, rows shuffled": (LISTS, _shuffle_rows),
    "lists, of Windows": (LISTS, _save_lists_with_notepad),
    "lists, of names in .png": (LISTS, _name_as_png),
    "ilsvrc": (ILSVRC, _leave),
    "ilsvrc, rows shuffled": (ILSVRC, _shuffle_rows),
    "ilsvrc, as it comes": (ILSVRC, _as_ilsvrc_comes),
    "ilsvrc, as unpacked": (ILSVRC, partial(_move_classes, "ILSVRC2012_img_train")),
    "ilsvrc, of Kaggle": (ILSVRC, partial(_move_classes, "ILSVRC/Data/CLS-LOC/train")),
    "flat": (FLAT, _leave),
    "flat, in images/": (FLAT, partial(_move_classes, "images")),
    "flat, as ilsvrc comes": (FLAT, _as_ilsvrc_comes),
    "flat, of links": (FLAT, _link_classes),
    "by split": (SPLIT_FOLDERS, _leave),
    "by split, valid": (SPLIT_FOLDERS, partial(_move, val="valid")),
    "by split, validation": (SPLIT_FOLDERS, partial(_move, val="validation")),
    "pickles": (PICKLES, _leave),
    "pickles, validation": (PICKLES, _spell_validation),
    "pickles, val and test exchanged": (PICKLES, _exchange_val_and_test),
    "pickles, protocol 2": (PICKLES, partial(_pickle, 2)),
    "pickles, protocol 5": (PICKLES, partial(_pickle, 5)),
    "pickles, places in arrays": (PICKLES, partial(_pickle, 4, arrays=True)),
    "pickles, keys of Python 2": (PICKLES, partial(_pickle, 2, arrays=True, python_2=True)),
    "pickles, arrays in columns": (PICKLES, partial(_pickle, 5, columns=True)),
    "hdf5": (HDF5, _leave),
    "hdf5, compressed": (HDF5, _compress),
    "hdf5, in no folder": (HDF5, _without_folder),
}


@pytest.mark.parametrize(("fixture", "change"), CHANGES.values(), ids=CHANGES)
def test_every_layout_gives_the_same_store(
    imagenet: Workspace, expected: Path, request: pytest.FixtureRequest, fixture: str, change: Callable[[Path], None]
) -> None:
    root = request.getfixturevalue(fixture)
    change(root)
    announced: list[str] = []
    store = prepare(imagenet, "mini-imagenet", root, announce=announced.append)
    for name in ("images.npy", "index.parquet"):
        assert (store.root / name).read_bytes() == (expected / name).read_bytes()
    assert store.fingerprint == read_record(expected).fingerprint
    assert announced == [read_record(store.root).layout] == [LAYOUT[fixture]]


@pytest.mark.parametrize("fixture", [ILSVRC, FLAT, SPLIT_FOLDERS])
def test_the_order_in_which_the_system_gives_files_means_nothing(
    imagenet: Workspace, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, fixture: str
) -> None:
    root, scandir, rng = request.getfixturevalue(fixture), os.scandir, np.random.default_rng(0)

    @contextmanager
    def shuffled(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as entries:
            listed = list(entries)
        yield [listed[i] for i in rng.permutation(len(listed))]

    def tables() -> list[bytes]:
        store = prepare(imagenet, "mini-imagenet", root, force=True)
        return [(store.root / name).read_bytes() for name in ("images.npy", "index.parquet", "sources.parquet")]

    before = tables()
    monkeypatch.setattr("fewshot_nsl.data.layouts.class_folders.os.scandir", shuffled)
    assert tables() == before
