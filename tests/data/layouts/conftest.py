"""The same photographs in every layout of Mini-ImageNet, lossless, so that all must give one store."""

import json
import pickle
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from fewshot_nsl.workspace import Workspace

Pixels = Mapping[str, np.ndarray]
"""Class name -> uint8 [n, h, w, 3]."""

WORDNET_IDS = {"pear": "n02110341", "apple": "n01532829", "bear": "n01855672", "road": "n01930112"}
"""For the classes of the tiny card."""

SPLITS = {"train": ("n02110341", "n01532829"), "val": ("n01855672",), "test": ("n01930112",)}

NUMBERS = (1000, 9, 31, 100, 2, 20000, 10, 3)
"""Of ILSVRC's files of a class; in order of number, the images at the odd places and the last one are the photographs."""


@pytest.fixture
def imagenet(workspace: Workspace, edit: Callable[[Path, str, str], None]) -> Workspace:
    """The workspace, with WordNet ids for the classes of its card of mini-imagenet."""
    for name, wordnet_id in WORDNET_IDS.items():
        edit(workspace.data / "cards" / "mini-imagenet.toml", f'"{name}"', f'"{wordnet_id}"')
    return workspace


@pytest.fixture(scope="session")
def photographs() -> Pixels:
    """Six images of 84 x 84 of each class; of n01855672 two are equal."""
    rng = np.random.default_rng(3)
    images = {name: rng.integers(0, 256, (6, 84, 84, 3), dtype=np.uint8) for names in SPLITS.values() for name in names}
    images["n01855672"][5] = images["n01855672"][2]
    return images


@pytest.fixture
def lists(tmp_path: Path, photographs: Pixels) -> Path:
    """images/ and the three lists."""
    root = tmp_path / "lists"
    for name, images in photographs.items():
        for i, image in enumerate(images):
            _save(root / "images" / f"{name}{i + 1:08}.jpg", image)
    _write_lists(root, {name: range(1, 7) for name in photographs})
    return root


@pytest.fixture
def ilsvrc(tmp_path: Path, photographs: Pixels) -> Path:
    """Class folders of ILSVRC-2012 with eight images each, and lists of six: those at places 1, 3, 4, 5, 7 and 8."""
    root = tmp_path / "ilsvrc"
    places = (1, 3, 4, 5, 7, 8)
    for name, images in photographs.items():
        at = dict(zip(places, images, strict=True))
        for place, number in enumerate(sorted(NUMBERS), start=1):
            _save(root / name / f"{name}_{number}.JPEG", at.get(place, np.full((84, 84, 3), place, dtype=np.uint8)))
    _write_lists(root, dict.fromkeys(photographs, places))
    return root


@pytest.fixture
def class_folders(tmp_path: Path, photographs: Pixels) -> Path:
    """A folder for each class, all in one place."""
    for name, images in photographs.items():
        for i, image in enumerate(images):
            _save(tmp_path / "flat" / name / f"{i}{('.png', '.jpg', '.JPEG')[i % 3]}", image)
    return tmp_path / "flat"


@pytest.fixture
def split_folders(tmp_path: Path, photographs: Pixels) -> Path:
    """A folder for each class, in train/, val/ and test/."""
    for split, names in SPLITS.items():
        for name in names:
            for i, image in enumerate(photographs[name]):
                _save(tmp_path / "split" / split / name / f"{i}.jpg", image)
    return tmp_path / "split"


@pytest.fixture
def cache_pickles(tmp_path: Path, photographs: Pixels) -> Path:
    """The three pickles of learn2learn; images of the classes of a split take turns."""
    root = tmp_path / "pickles"
    root.mkdir()
    for split, names in SPLITS.items():
        images = np.stack([photographs[name] for name in names], axis=1).reshape(-1, 84, 84, 3)
        places = {name: list(range(i, len(images), len(names))) for i, name in enumerate(names)}
        content = {"image_data": images, "class_dict": places}
        (root / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(content))
    return root


@pytest.fixture
def hdf5_files(tmp_path: Path, photographs: Pixels) -> Path:
    """The six files of torchmeta, in `miniimagenet/` of the folder given."""
    root = tmp_path / "torchmeta" / "miniimagenet"
    root.mkdir(parents=True)
    for split, names in SPLITS.items():
        with h5py.File(root / f"{split}_data.hdf5", "w") as file:
            for name in names:
                file.create_dataset(f"datasets/{name}", data=photographs[name])
        (root / f"{split}_labels.json").write_text(json.dumps(names))
    return root.parent


def _save(path: Path, image: np.ndarray) -> None:
    """As PNG, whatever the name says: what is decoded is what was put in."""
    content = BytesIO()
    Image.fromarray(image).save(content, "PNG", compress_level=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())


def _write_lists(root: Path, places: Mapping[str, tuple[int, ...] | range]) -> None:
    for split, names in SPLITS.items():
        rows = [f"{name}{place:08}.jpg,{name}\n" for name in names for place in places[name]]
        (root / f"{split}.csv").write_text("filename,label\n" + "".join(rows))
