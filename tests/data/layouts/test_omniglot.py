import shutil
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_nsl.data import ImageStore, load_card, prepare
from fewshot_nsl.data.fingerprint import pixel_digest
from fewshot_nsl.data.images import decode_image
from fewshot_nsl.data.layouts.omniglot import OMNIGLOT
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace, open_workspace

CARD = """
name = "omniglot"
title = "Tiny"
image_size = 28
channels = 1
images_per_class = 3
augmentations = []
licence = "none"
citation = "nobody"
homepage = "https://example.org"
how_to_get = "ask a friend"
"""

SPLITS = """
[splits]
train = ["Greek/character01", "Greek/character02"]
val = ["Latin/character01"]
test = ["Old_Church_Slavonic_(Cyrillic)/character01"]
"""

PARTS = {
    "images_background": ("Greek/character01", "Greek/character02", "Greek/character03"),
    "images_evaluation": ("Latin/character01", "Old_Church_Slavonic_(Cyrillic)/character01"),
}

Drawings = Mapping[str, bytes]
"""Path -> PNG."""


@pytest.fixture
def omniglot(tmp_path: Path) -> Workspace:
    """A workspace whose own cards make omniglot and omniglot-rotated tiny: 4 characters of 3 drawings."""
    cards = tmp_path / "workspace" / "data" / "cards"
    cards.mkdir(parents=True)
    (cards / "omniglot.toml").write_text(CARD + SPLITS)
    (cards / "omniglot-rotated.toml").write_text(CARD.replace('"omniglot"', '"omniglot-rotated"') + 'turns_of = "omniglot"\n')
    return open_workspace(tmp_path / "workspace")


@pytest.fixture
def drawings() -> Drawings:
    """Of 105 x 105, 1 bit, as in the official zips."""
    rng = np.random.default_rng(5)
    paths = [f"{part}/{name}/000{i}_01.png" for part, names in PARTS.items() for name in names for i in range(3)]
    return {path: _png(rng.random((105, 105)) < 0.8) for path in paths}


@pytest.fixture
def zips(tmp_path: Path, drawings: Drawings) -> Path:
    """The folder of the two zips."""
    (tmp_path / "zips").mkdir()
    for part in PARTS:
        _zip(tmp_path / "zips" / f"{part}.zip", {path: content for path, content in drawings.items() if path.startswith(part)})
    return tmp_path / "zips"


@pytest.fixture
def folders(tmp_path: Path, drawings: Drawings) -> Path:
    """The two zips, unpacked."""
    for path, content in drawings.items():
        (tmp_path / "folders" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders" / path).write_bytes(content)
    return tmp_path / "folders"


def _png(ink: np.ndarray) -> bytes:
    content = BytesIO()
    Image.fromarray(ink).save(content, "PNG")
    return content.getvalue()


def _zip(path: Path, members: Drawings) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _contents(store: ImageStore) -> list[bytes]:
    return [(store.root / name).read_bytes() for name in ("images.npy", "index.parquet", "sources.parquet")]


def _images(store: ImageStore, name: str) -> np.ndarray:
    return store.images[store.labels == store.classes.index(name)]


@pytest.mark.parametrize("name", ["omniglot", "omniglot-rotated"])
def test_zips_and_folders_give_the_same_store(omniglot: Workspace, zips: Path, folders: Path, name: str) -> None:
    announced: list[str] = []
    before = _contents(prepare(omniglot, name, zips, announce=announced.append))
    assert announced == ["Omniglot's own"]
    assert _contents(prepare(omniglot, name, folders, force=True)) == before
    shutil.rmtree(folders / "images_evaluation")
    shutil.copy(zips / "images_evaluation.zip", folders)
    assert _contents(prepare(omniglot, name, folders, force=True)) == before


def test_drawings_become_28_x_28_greys(omniglot: Workspace, zips: Path, drawings: Drawings) -> None:
    store = prepare(omniglot, "omniglot", zips)
    assert store.images.shape == (12, 28, 28, 1)
    assert store.splits == {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    originals = [decode_image(content, 28, 1) for path, content in drawings.items() if "Latin" in path]
    np.testing.assert_array_equal(_images(store, "Latin/character01"), sorted(originals, key=pixel_digest))


def test_turned_classes_are_the_unturned_ones_turned_counterclockwise(omniglot: Workspace, zips: Path) -> None:
    plain, turned = prepare(omniglot, "omniglot", zips), prepare(omniglot, "omniglot-rotated", zips)
    assert len(turned.classes) == 16
    for name in plain.classes:
        for turns, ending in enumerate(("rot000", "rot090", "rot180", "rot270")):
            expected = sorted((np.rot90(image, turns) for image in _images(plain, name)), key=pixel_digest)
            np.testing.assert_array_equal(_images(turned, f"{name}/{ending}"), expected)


@pytest.mark.parametrize("part", ["images_background.zip", "images_background"])
def test_one_part_alone_is_found_by_its_own_path(omniglot: Workspace, zips: Path, folders: Path, part: str) -> None:
    source = (zips if part.endswith(".zip") else folders) / part
    assert OMNIGLOT.find(load_card(omniglot, "omniglot"), source) == source
    with pytest.raises(DataError, match=r"split 'val' has 0 classes in the Omniglot's own layout, .*missing: Latin/character01"):
        prepare(omniglot, "omniglot", source)


@pytest.mark.parametrize(
    "stray",
    [
        "__MACOSX/images_background/Greek/character01/._0000_01.png",
        "images_background/Greek/character01/._0000_01.png",
        "images_background/Greek/character01/notes.txt",
        "images_background/Greek/character01/",
        "images_background/Greek/character01/old/0000_01.png",
        "images_background/Greek/cover.png",
        "images_background/Klingon/character01/0000_01.png",
        "../outside/Klingon/0000_01.png",
        "/0000_01.png",
    ],
)
def test_what_is_no_drawing_of_the_card_is_left_alone(omniglot: Workspace, zips: Path, folders: Path, stray: str) -> None:
    before = _contents(prepare(omniglot, "omniglot", zips))
    with zipfile.ZipFile(zips / "images_background.zip", "a") as archive:
        archive.writestr(stray, b"no image")
    assert _contents(prepare(omniglot, "omniglot", zips, force=True)) == before
    if not stray.startswith(("..", "/")) and not stray.endswith("/"):
        (folders / stray).parent.mkdir(parents=True, exist_ok=True)
        (folders / stray).write_bytes(b"no image")
    assert _contents(prepare(omniglot, "omniglot", folders, force=True)) == before


def test_a_character_in_two_zips_is_read_from_the_first(omniglot: Workspace, zips: Path, drawings: Drawings) -> None:
    greek = {path: content for path, content in drawings.items() if "Greek/character01" in path}
    others = {path.replace("background", "background_small1"): _png(np.zeros((105, 105), dtype=bool)) for path in greek}
    _zip(zips / "images_background_small1.zip", others)
    store = prepare(omniglot, "omniglot", zips)
    expected = sorted((decode_image(content, 28, 1) for content in greek.values()), key=pixel_digest)
    np.testing.assert_array_equal(_images(store, "Greek/character01"), expected)


def test_the_small_zips_together_do_for_the_large_one(omniglot: Workspace, zips: Path, drawings: Drawings) -> None:
    before = _contents(prepare(omniglot, "omniglot", zips))[:2]
    (zips / "images_background.zip").unlink()
    for part, name in (("images_background_small1", "Greek/character01"), ("images_background_small2", "Greek/character02")):
        members = {path: content for path, content in drawings.items() if name in path}
        _zip(zips / f"{part}.zip", {path.replace("images_background", part): content for path, content in members.items()})
    assert _contents(prepare(omniglot, "omniglot", zips, force=True))[:2] == before


@pytest.mark.parametrize("fixture", ["zips", "folders"])
def test_missing_characters_and_drawings_are_named(omniglot: Workspace, request: pytest.FixtureRequest, fixture: str) -> None:
    root: Path = request.getfixturevalue(fixture)
    card = omniglot.data / "cards" / "omniglot.toml"
    card.write_text(card.read_text().replace("Greek/character02", "Greek/character09"))
    with pytest.raises(DataError, match=r"split 'train' has 1 classes .*missing: Greek/character09; not in the card: none"):
        prepare(omniglot, "omniglot", root)
    card.write_text(CARD.replace("= 3", "= 4") + SPLITS)
    with pytest.raises(DataError, match=r"each class has 4 images, but the Omniglot's own layout has 3 in Greek/character01, 3 in Greek"):
        prepare(omniglot, "omniglot", root)


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _of_another_sum(content: bytes) -> bytes:
    place = content.index(b"PK\x01\x02") + 16
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _of_no_deflate(content: bytes) -> bytes:
    place = content.index(b".png") + 4
    return content[:place] + b"\xff" + content[place + 1 :]


def _encrypted(content: bytes) -> bytes:
    place = content.index(b"PK\x01\x02") + 8
    return content[:place] + b"\x01" + content[place + 1 :]


def _of_unknown_compression(content: bytes) -> bytes:
    for mark, offset in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        place = content.index(mark) + offset
        content = content[:place] + b"\x63" + content[place + 1 :]
    return content


def _no_zip(_: bytes) -> bytes:
    return b"no zip"


def _of_no_text(content: bytes) -> bytes:
    """The first name in the table is said to be UTF-8 and is not."""
    place = content.index(b"PK\x01\x02")
    return content[: place + 9] + b"\x08" + content[place + 10 : place + 46] + b"\xff" + content[place + 47 :]


def _without_its_beginning(content: bytes) -> bytes:
    """The table is said to begin later than it does, so that the drawings would begin before the file."""
    place = content.index(b"PK\x05\x06") + 17
    return content[:place] + bytes([content[place] + 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage", [_no_zip, _of_no_text, _without_its_beginning, _cut, _of_another_sum, _of_no_deflate, _encrypted, _of_unknown_compression]
)
def test_a_damaged_zip_is_refused(omniglot: Workspace, zips: Path, damage: Callable[[bytes], bytes]) -> None:
    path = zips / "images_background.zip"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"images_background.zip is no whole zip \(.*download it again"):
        prepare(omniglot, "omniglot", zips)
    assert not (omniglot.data / "omniglot").exists()


def test_a_member_that_says_it_is_large_is_not_read(omniglot: Workspace, zips: Path) -> None:
    with zipfile.ZipFile(zips / "images_background.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images_background/Greek/character01/0009_01.png", bytes(2**20 + 1))
    with pytest.raises(
        DataError, match=r"images_background.zip: .*0009_01.png has 1048577 bytes, no drawing of Omniglot; get a fresh copy"
    ):
        prepare(omniglot, "omniglot", zips)


def test_a_drawing_that_is_no_image_is_refused_by_name(omniglot: Workspace, zips: Path, drawings: Drawings) -> None:
    path = "images_evaluation/Latin/character01/0001_01.png"
    _zip(zips / "images_evaluation.zip", {each: content for each, content in drawings.items() if "evaluation" in each} | {path: b"text"})
    with pytest.raises(DataError, match=rf"^{path} cannot be read as an image"):
        prepare(omniglot, "omniglot", zips)
