import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fewshot_nsl.data import load_card, prepare
from fewshot_nsl.data.layouts.class_folders import CLASS_FOLDERS, SPLIT_FOLDERS, image_files, split_places, subfolders
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

PEAR, APPLE, BEAR, ROAD = "n02110341", "n01532829", "n01855672", "n01930112"


def test_what_is_no_image_or_hidden_is_left_alone(imagenet: Workspace, class_folders: Path) -> None:
    before = prepare(imagenet, "mini-imagenet", class_folders).fingerprint
    for name in ("Thumbs.db", ".DS_Store", "readme.txt", "._0.png", ".hidden.jpg", "list.csv"):
        (class_folders / PEAR / name).write_bytes(b"no image")
    (class_folders / PEAR / "more.jpg").mkdir()
    for name in (".git", "__MACOSX", "n99999999", "notes"):
        shutil.copytree(class_folders / BEAR, class_folders / name)
    (class_folders / "cover.jpg").write_bytes(b"no image")
    assert prepare(imagenet, "mini-imagenet", class_folders, force=True).fingerprint == before


def test_a_text_that_is_named_as_an_image_is_refused_by_name(imagenet: Workspace, class_folders: Path) -> None:
    (class_folders / ROAD / "5.JPEG").unlink()
    (class_folders / ROAD / "notes.jpg").write_text("see 0.png")
    with pytest.raises(DataError, match=rf"{ROAD}/notes.jpg cannot be read as an image .*put back a whole copy"):
        prepare(imagenet, "mini-imagenet", class_folders)


@pytest.mark.parametrize(("fixture", "layout"), [("class_folders", "class folders"), ("split_folders", "class folders by split")])
def test_missing_classes_are_named(imagenet: Workspace, request: pytest.FixtureRequest, fixture: str, layout: str) -> None:
    root: Path = request.getfixturevalue(fixture)
    shutil.rmtree(next(root.rglob(PEAR)))
    with pytest.raises(DataError, match=rf"split 'train' has 1 classes in the {layout} layout, expected the card's 2; missing: {PEAR};"):
        prepare(imagenet, "mini-imagenet", root)
    assert not (imagenet.data / "mini-imagenet").exists()


def test_too_few_and_too_many_images_are_named_with_their_counts(imagenet: Workspace, class_folders: Path) -> None:
    (class_folders / PEAR / "0.png").unlink()
    shutil.copy(class_folders / BEAR / "0.png", class_folders / BEAR / "7.png")
    for path in (class_folders / ROAD).iterdir():
        path.unlink()
    with pytest.raises(DataError, match=rf"class has 6 images, but the class folders layout has 0 in {ROAD}, 5 in {PEAR}, 7 in {BEAR}"):
        prepare(imagenet, "mini-imagenet", class_folders)


@pytest.mark.parametrize("move", [shutil.copytree, shutil.move])
def test_a_class_in_another_splits_folder_is_refused(
    imagenet: Workspace, split_folders: Path, move: Callable[[Path, Path], object]
) -> None:
    move(split_folders / "train" / PEAR, split_folders / "test" / PEAR)
    with pytest.raises(
        DataError, match=rf"test/{PEAR} is in 'test', but mini-imagenet has that class in 'train'; move it .*data/cards/mini-imagenet.toml"
    ):
        prepare(imagenet, "mini-imagenet", split_folders)


def test_folders_of_classes_that_the_card_lacks_are_left_alone_in_splits_too(imagenet: Workspace, split_folders: Path) -> None:
    for split in ("train", "val", "test"):
        shutil.copytree(split_folders / "val" / BEAR, split_folders / split / "n99999999")
    store = prepare(imagenet, "mini-imagenet", split_folders)
    assert store.classes == (APPLE, PEAR, BEAR, ROAD)


def test_folders_of_which_one_has_no_classes_are_no_split(tmp_path: Path) -> None:
    for name in ("train/a", "valid/.hidden", "test/b"):
        (tmp_path / name).mkdir(parents=True)
    assert split_places(tmp_path) is None
    (tmp_path / "valid" / "c").mkdir()
    assert split_places(tmp_path) == {"train": tmp_path / "train", "val": tmp_path / "valid", "test": tmp_path / "test"}


@pytest.mark.parametrize("inside", ["", "images", "CUB_200_2011", "CUB_200_2011/images"])
def test_cub_is_found_as_it_is_unpacked(tmp_path: Path, imagenet: Workspace, class_folders: Path, inside: str) -> None:
    place = tmp_path / "source" / "CUB_200_2011" / "images"
    shutil.move(class_folders, place)
    (place.parent / "attributes").mkdir()
    source = {"": place.parents[1], "images": place, "CUB_200_2011": place.parent, "CUB_200_2011/images": place}[inside]
    assert CLASS_FOLDERS.find(load_card(imagenet, "mini-imagenet"), source) == place


def test_a_folder_or_file_without_classes_is_in_no_layout_of_folders(imagenet: Workspace, tmp_path: Path) -> None:
    card = load_card(imagenet, "mini-imagenet")
    (tmp_path / "readme.txt").touch()
    for source in (tmp_path, tmp_path / "readme.txt"):
        assert SPLIT_FOLDERS.find(card, source) is None
        assert CLASS_FOLDERS.find(card, source) is None


def test_names_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b", "a", ".c"):
        (tmp_path / name).mkdir()
    for name in ("2.JPG", "10.png", "1.Tiff", ".3.png", "4.txt", "png"):
        (tmp_path / name).touch()
    (tmp_path / "5.png").symlink_to(tmp_path / "nowhere")
    assert subfolders(tmp_path) == ["a", "b"]
    assert [path.name for path in image_files(tmp_path)] == ["1.Tiff", "10.png", "2.JPG"]


def test_the_store_says_which_file_each_image_comes_from(imagenet: Workspace, split_folders: Path) -> None:
    store = prepare(imagenet, "mini-imagenet", split_folders)
    sources = pd.read_parquet(store.root / "sources.parquet")["source"]
    assert sorted(sources) == sorted(path.relative_to(split_folders).as_posix() for path in split_folders.rglob("*.jpg"))
