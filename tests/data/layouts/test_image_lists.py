import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from fewshot_nsl.data import load_card, prepare
from fewshot_nsl.data.images import decode_image
from fewshot_nsl.data.layouts.image_lists import ILSVRC_LISTS
from fewshot_nsl.data.record import read_record
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

Edit = Callable[[Path, str, str], None]
Pixels = Mapping[str, np.ndarray]


def test_images_are_resized_and_kept_by_split(workspace: Workspace, mini_imagenet: Path) -> None:
    store = prepare(workspace, "mini-imagenet", mini_imagenet)
    assert store.images.shape == (24, 84, 84, 3)
    assert store.splits == {"train": range(12), "val": range(12, 18), "test": range(18, 24)}
    roads = {image.tobytes() for image in store.images[18:]}
    assert roads == {decode_image(mini_imagenet / "images" / f"road{i}.jpg", 84, 3).tobytes() for i in range(6)}


def test_the_order_of_the_lists_and_their_line_ends_mean_nothing(workspace: Workspace, mini_imagenet: Path) -> None:
    before = prepare(workspace, "mini-imagenet", mini_imagenet).fingerprint
    for path in mini_imagenet.glob("*.csv"):
        header, *rows = path.read_text().splitlines()
        path.write_text("\ufeff" + "\n".join([header, *np.random.default_rng(0).permutation(rows)]))
    assert prepare(workspace, "mini-imagenet", mini_imagenet, force=True).fingerprint == before


def test_a_row_without_image_is_named(workspace: Workspace, mini_imagenet: Path) -> None:
    (mini_imagenet / "images" / "pear2.jpg").unlink()
    with pytest.raises(DataError, match=r"train.csv, line 4: images/pear2.jpg is missing; put it there"):
        prepare(workspace, "mini-imagenet", mini_imagenet)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/b.jpg", "..\\secret.jpg", "C:secret.jpg", "..", "."])
def test_no_row_leads_out_of_the_folder(workspace: Workspace, mini_imagenet: Path, edit: Edit, name: str) -> None:
    (mini_imagenet / "secret.jpg").write_bytes((mini_imagenet / "images" / "pear0.jpg").read_bytes())
    edit(mini_imagenet / "train.csv", "pear0.jpg", name)
    with pytest.raises(DataError, match=r"train.csv, line 2: .*(leads out of the folder|is missing)"):
        prepare(workspace, "mini-imagenet", mini_imagenet)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("train.csv", "pear1.jpg", "pear0.jpg", r"train.csv, line 3: 'pear0.jpg' was listed already, in .*train.csv, line 2"),
        ("val.csv", "bear1.jpg", "pear0.jpg", r"val.csv, line 3: 'pear0.jpg' was listed already, in .*train.csv, line 2"),
        ("val.csv", "bear0.jpg,bear", "bear0.jpg,pear", r"val.csv has the class pear, which is in train.csv too"),
        ("val.csv", "bear0.jpg,bear", "bear0.jpg,goat", r"split 'val' has 2 classes .*missing: none; not in the card: goat"),
        ("test.csv", "road3.jpg,road\r\n", "", r"has 5 in road"),
        ("test.csv", "filename,label", "file,label", r"test.csv has columns \['file', 'label'\], expected \['filename', 'label'\]"),
        ("test.csv", "road3.jpg,road", "road3.jpg", r"test.csv, line 5: .*is not a file name and a label"),
        ("test.csv", "road3.jpg,road", "road3.jpg,road,x", r"test.csv, line 5: .*is not a file name and a label"),
    ],
)
def test_a_wrong_list_is_refused(
    workspace: Workspace, mini_imagenet: Path, edit: Edit, file: str, old: str, new: str, message: str
) -> None:
    edit(mini_imagenet / file, old, new)
    with pytest.raises(DataError, match=message):
        prepare(workspace, "mini-imagenet", mini_imagenet)


def test_a_list_that_is_no_text_is_refused(workspace: Workspace, mini_imagenet: Path) -> None:
    (mini_imagenet / "val.csv").write_bytes(b"filename,label\n\xff\xfe,bear\n")
    with pytest.raises(DataError, match=r"val.csv, line .*no text in UTF-8"):
        prepare(workspace, "mini-imagenet", mini_imagenet)


def test_a_missing_list_and_no_source(workspace: Workspace, mini_imagenet: Path) -> None:
    (mini_imagenet / "val.csv").unlink()
    with pytest.raises(DataError, match=r"mini has no val.csv; to get mini-imagenet: ask a friend"):
        prepare(workspace, "mini-imagenet", mini_imagenet)
    with pytest.raises(DataError, match=r"give its images with --from PATH"):
        prepare(workspace, "mini-imagenet")


def test_a_truncated_image_leaves_no_store(workspace: Workspace, mini_imagenet: Path) -> None:
    path = mini_imagenet / "images" / "road5.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"road5.jpg cannot be read as an image"):
        prepare(workspace, "mini-imagenet", mini_imagenet)
    assert sorted(path.name for path in workspace.data.iterdir()) == [".mini-imagenet.lock", "cards"]


def test_a_listed_name_is_the_place_in_the_order_of_ilsvrcs_numbers(imagenet: Workspace, ilsvrc: Path, photographs: Pixels) -> None:
    # Of 2, 3, 9, 10, 31, 100, 1000, 20000, the fifth; in the order of names it would be n01532829_20000.JPEG.
    (ilsvrc / "train.csv").write_text("filename,label\nn0153282900000005.jpg,n01532829\n")
    source = ILSVRC_LISTS.read(load_card(imagenet, "mini-imagenet"), ilsvrc)
    only = next(each for each in source.classes if each.name == "n01532829")
    assert only.origins == ("n01532829/n01532829_31.JPEG",)
    np.testing.assert_array_equal(only.load(), photographs["n01532829"][3:4])


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("n0211034100000000.jpg", r"'n0211034100000000.jpg' is image 0 of its class, but .*n02110341 has 8; complete it"),
        ("n0211034100000009.jpg", r"is image 9 of its class, but .*n02110341 has 8; complete it"),
        ("n0153282900000001.jpg", r"does not name an image of n02110341 by its place; expected, for instance, n0211034100000001.jpg"),
        ("n02110341_1000.JPEG", r"does not name an image of n02110341 by its place"),
        ("n02110341-0000001.jpg", r"does not name an image of n02110341 by its place"),
        ("n0211034100000003.jpg", r"was listed already, in .*train.csv, line 3"),
        ("n0211034100000003.JPEG", r"was listed already, in .*train.csv, line 3"),
        ("../n0211034100000001.jpg", r"leads out of the folder; expected a plain file name"),
    ],
)
def test_a_row_that_names_no_image_of_ilsvrc_is_refused_by_file_and_line(
    imagenet: Workspace, ilsvrc: Path, edit: Edit, listed: str, message: str
) -> None:
    edit(ilsvrc / "train.csv", "n0211034100000004.jpg", listed)
    with pytest.raises(DataError, match=rf"train.csv, line 4: .*{message}"):
        prepare(imagenet, "mini-imagenet", ilsvrc)
    assert not (imagenet.data / "mini-imagenet").exists()


def test_a_listed_class_without_folder_is_refused_by_file_and_line(imagenet: Workspace, ilsvrc: Path) -> None:
    shutil.rmtree(ilsvrc / "n01855672")
    with pytest.raises(DataError, match=r"val.csv, line 2: .*is image 1 of its class, but .*ilsvrc/n01855672 has 0; complete it"):
        prepare(imagenet, "mini-imagenet", ilsvrc)


@pytest.mark.parametrize("stray", ["Thumbs.db", "n01532829_1.txt", "._n01532829_1.JPEG", "n01532829_1 (1).JPEG", "n01855672_1.JPEG"])
def test_no_other_file_moves_the_places(imagenet: Workspace, ilsvrc: Path, stray: str) -> None:
    before = prepare(imagenet, "mini-imagenet", ilsvrc).fingerprint
    (ilsvrc / "n01532829" / stray).write_bytes(b"no image")
    assert prepare(imagenet, "mini-imagenet", ilsvrc, force=True).fingerprint == before


@pytest.mark.parametrize("fixture", ["class_folders", "split_folders"])
def test_lists_beside_folders_whose_files_have_other_names_are_not_needed(
    imagenet: Workspace, ilsvrc: Path, request: pytest.FixtureRequest, fixture: str
) -> None:
    before = prepare(imagenet, "mini-imagenet", ilsvrc).fingerprint
    folders = request.getfixturevalue(fixture)
    for path in ilsvrc.glob("*.csv"):
        shutil.copy(path, folders)
    store = prepare(imagenet, "mini-imagenet", folders, force=True)
    assert store.fingerprint == before
    assert read_record(store.root).layout.startswith("class folders")
