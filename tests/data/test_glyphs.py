import math
import unicodedata
from itertools import product
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_nsl.data import ImageStore, SourceClass, load_card, open_store, prepare, verify
from fewshot_nsl.data.glyphs import _COSINES, _SINES, FACES, VARIATIONS, _placed, character_of, draw_glyphs
from fewshot_nsl.data.outlines import UNITS, Face
from fewshot_nsl.data.rasterise import PIXEL, rasterise
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace, open_workspace

GOLDEN = "e5157a61e87c2348abd024b6c72e7fb6260ae27e35d817ec2468b39ddcb25e5f"

SCRIPTS = {"train": ("LATIN", "CYRILLIC"), "val": ("GREEK",), "test": ("ARMENIAN", "GEORGIAN")}


@pytest.fixture(scope="module")
def store(glyph_workspace: Workspace) -> ImageStore:
    return open_store(glyph_workspace, "glyphs")


@pytest.fixture(scope="module")
def faces() -> list[Face]:
    return [Face(Path(mpl.get_data_path()) / "fonts" / "ttf" / name) for name in FACES]


def test_the_fingerprint_is_the_same_on_every_machine(store: ImageStore) -> None:
    assert store.fingerprint == GOLDEN


def test_sizes(store: ImageStore) -> None:
    assert store.images.shape == (158 * 60, 28, 28, 1)
    assert {split: len(rows) // 60 for split, rows in store.splits.items()} == {"train": 65, "val": 23, "test": 70}
    assert np.bincount(store.labels).tolist() == [60] * 158
    assert store.augmentations == ("crop",)


def test_the_store_is_whole(glyph_workspace: Workspace) -> None:
    assert verify(glyph_workspace, "glyphs").fingerprint == GOLDEN


def test_each_class_is_the_character_it_is_named_after_and_in_the_split_of_its_script(tmp_path: Path) -> None:
    for split, names in load_card(open_workspace(tmp_path), "glyphs").splits.items():
        for name in names:
            character = character_of(name)
            full = unicodedata.name(character)
            assert name == f"u{ord(character):04x}-{full.lower().replace('letter ', '').replace(' ', '-')}"
            assert full.startswith(SCRIPTS[split])


def test_every_image_shows_something(store: ImageStore) -> None:
    ink = (np.asarray(store.images) > 127).sum(axis=(1, 2, 3))
    assert ink.min() > 20  # of 784 pixels


@settings(max_examples=200, deadline=None)
@given(st.sampled_from("IlWЩςԹღ"), st.integers(0, 11), st.lists(st.integers(0, 2**64 - 1), min_size=5, max_size=5))
def test_all_of_a_character_is_in_the_image(faces: list[Face], character: str, face: int, words: list[int]) -> None:
    placed = _placed(faces[face].edges(character), faces[face].em, 28, words)
    assert placed.min() >= 0
    assert placed.max() <= 28 * PIXEL


def test_no_two_images_are_equal(store: ImageStore) -> None:
    assert len({image.tobytes() for image in store.images}) == len(store.labels)


def test_no_character_looks_like_another(faces: list[Face], store: ImageStore) -> None:
    # Intersection over union, mean over three faces, best over shifts by a pixel, of upright drawings of one scale and of one size.
    upright = [face for face, name in zip(faces, FACES, strict=True) if "-" not in name]
    characters = [character_of(name) for name in store.classes]
    worst = np.zeros((len(characters), len(characters)))
    for same_size in (False, True):
        total = np.zeros_like(worst)
        for face in upright:
            ink = np.stack([_upright(face, character, same_size) for character in characters]) > 127
            flat = ink.reshape(len(ink), -1).astype(np.float32)
            best = np.zeros_like(worst)
            for shift in product((-1, 0, 1), repeat=2):
                moved = np.roll(ink, shift, axis=(1, 2)).reshape(len(ink), -1).astype(np.float32)
                both = flat @ moved.T
                best = np.maximum(best, both / (flat.sum(axis=1)[:, None] + moved.sum(axis=1) - both))
            total += best
        worst = np.maximum(worst, total / len(upright))
    np.fill_diagonal(worst, 0)
    assert worst.max() < 0.78
    split = np.repeat([0, 1, 2], [65, 23, 70])
    assert worst[split[:, None] != split].max() < 0.75


def _upright(face: Face, character: str, same_size: bool) -> np.ndarray:
    points = face.edges(character).reshape(-1, 2) * np.array([1, -1])
    extent = int(np.ptp(points, axis=0).max()) * 7 // 6
    points = points * (28 * PIXEL) // (extent if same_size else max(extent, face.em * UNITS))
    middle = (points.min(axis=0) + points.max(axis=0)) // 2
    return rasterise((points - middle + 14 * PIXEL).reshape(-1, 4), 28)


def test_the_table_of_sines_is_rounded_to_the_nearest() -> None:
    assert [round(16384 * math.sin(math.radians(degree))) for degree in range(13)] == list(_SINES)
    assert [round(16384 * math.cos(math.radians(degree))) for degree in range(13)] == list(_COSINES)


def test_an_image_depends_on_nothing_but_its_character_face_and_number(tmp_path: Path, store: ImageStore) -> None:
    card = load_card(open_workspace(tmp_path), "glyphs")
    alone: SourceClass = next(each for each in draw_glyphs(card).classes if each.name == "u03b1-greek-small-alpha")
    drawn = {image.tobytes() for image in alone.load()}
    label = store.classes.index(alone.name)
    assert drawn == {image.tobytes() for image in store.images[store.labels == label]}
    assert alone.origins[::VARIATIONS] == tuple(f"{face}#0" for face in FACES)


def test_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="glyphs is embedded and read from no path"):
        prepare(open_workspace(tmp_path), "glyphs", tmp_path)


def test_missing_fonts_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpl, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(DataError, match=r"DejaVuSans.ttf is missing; .*reinstall matplotlib"):
        prepare(open_workspace(tmp_path), "glyphs")


def test_a_character_that_a_face_lacks_and_a_name_that_is_none(faces: list[Face]) -> None:
    with pytest.raises(DataError, match=r"DejaVuSans.ttf has no character U\+4E2D"):
        faces[0].edges("中")
    with pytest.raises(DataError, match="class 'alpha' names no character"):
        character_of("alpha")
