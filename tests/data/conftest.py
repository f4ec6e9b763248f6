"""Tiny datasets, made on the spot: no test of this room needs a file from elsewhere."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_nsl.workspace import Workspace, open_workspace

Pixels = Mapping[str, np.ndarray]
"""Class name -> uint8 [n, h, w, 3]."""

CARD = """
name = "{name}"
title = "Tiny"
image_size = {size}
channels = 3
images_per_class = 6
augmentations = ["crop", "flip"]
licence = "none"
citation = "nobody"
homepage = "https://example.org"
how_to_get = "ask a friend"

[splits]
train = ["pear", "apple"]
val = ["bear"]
test = ["road"]
"""

SPLITS = {"train": ["pear", "apple"], "val": ["bear"], "test": ["road"]}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace whose own cards make cifar-fs and mini-imagenet tiny: 4 classes of 6 images."""
    cards = tmp_path / "workspace" / "data" / "cards"
    cards.mkdir(parents=True)
    for name, size in (("cifar-fs", 32), ("mini-imagenet", 84)):
        (cards / f"{name}.toml").write_text(CARD.format(name=name, size=size))
    return open_workspace(tmp_path / "workspace")


@pytest.fixture
def pixels() -> Pixels:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8) for names in SPLITS.values() for name in names}


@pytest.fixture
def cifar_folders(tmp_path: Path, pixels: Pixels) -> Path:
    """The folder around `cifar100`, in the layout of Bertinetto et al."""
    root = tmp_path / "folders" / "cifar100"
    for name, images in pixels.items():
        (root / "data" / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / "data" / name / f"{i}.png")
    (root / "splits" / "bertinetto").mkdir(parents=True)
    for split, names in SPLITS.items():
        (root / "splits" / "bertinetto" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root.parent


@pytest.fixture
def cifar_archive(tmp_path: Path, pixels: Pixels) -> Path:
    """The folder around `cifar-100-python`: five images of each class in `train`, one in `test`, shuffled."""
    root = tmp_path / "archive" / "cifar-100-python"
    root.mkdir(parents=True)
    names = sorted(pixels)
    for member, part in (("train", slice(0, 5)), ("test", slice(5, 6))):
        rows = [(image, label) for label, name in enumerate(names) for image in pixels[name][part]]
        rows = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
        content = {
            b"data": np.stack([image.transpose(2, 0, 1).reshape(-1) for image, _ in rows]),
            b"fine_labels": [label for _, label in rows],
            b"filenames": [f"{i}.png".encode() for i in range(len(rows))],
        }
        (root / member).write_bytes(pickle.dumps(content, protocol=2))
    (root / "meta").write_bytes(pickle.dumps({b"fine_label_names": [name.encode() for name in names]}, protocol=2))
    return root.parent


@pytest.fixture
def mini_imagenet(tmp_path: Path) -> Path:
    """A folder with images/ (150 x 100) and the three lists."""
    root = tmp_path / "mini"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(2)
    for split, names in SPLITS.items():
        lines = ["filename,label"]
        for name in names:
            for i in range(6):
                Image.fromarray(rng.integers(0, 256, (100, 150, 3), dtype=np.uint8)).save(root / "images" / f"{name}{i}.jpg")
                lines.append(f"{name}{i}.jpg,{name}")
        (root / f"{split}.csv").write_text("\r\n".join(lines) + "\r\n", newline="")
    return root


@pytest.fixture
def edit() -> Callable[[Path, str, str], None]:
    """Replace a text by another, once, in a file where it occurs."""

    def replace(path: Path, old: str, new: str) -> None:
        text = path.read_bytes().decode()
        assert old in text
        path.write_bytes(text.replace(old, new, 1).encode())

    return replace
