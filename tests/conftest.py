"""What more than one room's tests use."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fewshot_nsl.data import SPLITS, Card, ImageStore, Source, SourceClass, open_store, prepare
from fewshot_nsl.data.write import write_store
from fewshot_nsl.workspace import Workspace, open_workspace

TINY_CLASSES = {"train": ("ash", "elm", "fig", "oak"), "val": ("bat", "cat", "dog"), "test": ("ant", "bee", "fly")}
"""Split -> classes, in canonical order."""
TINY_IMAGES = 20
"""Of each class."""


@pytest.fixture(scope="session")
def glyph_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the embedded dataset is prepared; made once, to be read only."""
    workspace = open_workspace(tmp_path_factory.mktemp("glyphs"))
    prepare(workspace, "glyphs")
    return workspace


@pytest.fixture(scope="session")
def glyph_store(glyph_workspace: Workspace) -> ImageStore:
    """The embedded dataset."""
    return open_store(glyph_workspace, "glyphs")


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """The dataset `tiny`: 10 classes of 20 images of 16 x 16 pixels, each class a colour of its own in strong noise; to be read only."""
    root = tmp_path_factory.mktemp("tiny")
    card = Card(
        name="tiny",
        title="Tiny",
        image_size=16,
        channels=3,
        images_per_class=TINY_IMAGES,
        licence="none",
        citation="nobody",
        homepage="https://example.org",
        how_to_get="ask a friend",
        augmentations=("crop", "flip"),
        splits=TINY_CLASSES,
    )
    names = [(split, name) for split in SPLITS for name in TINY_CLASSES[split]]
    origins = tuple(str(i) for i in range(TINY_IMAGES))
    classes = [SourceClass(split, name, origins, partial(_coloured_noise, number)) for number, (split, name) in enumerate(names)]
    folder = root / "data" / "tiny"
    folder.mkdir(parents=True)
    write_store(card, Source("made for tests", classes), folder)
    return open_store(open_workspace(root), "tiny")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return open_workspace(tmp_path)


def _coloured_noise(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    colour = rng.uniform(40, 216, 3)
    return rng.normal(colour, 40, (TINY_IMAGES, 16, 16, 3)).clip(0, 255).astype(np.uint8)
