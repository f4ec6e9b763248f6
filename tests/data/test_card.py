import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from fewshot_nsl.data.card import card_names, load_card
from fewshot_nsl.data.datasets import DATASETS, EMBEDDED
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace, open_workspace


@pytest.mark.parametrize(
    ("name", "sizes", "images"),
    [
        ("cifar-fs", (64, 16, 20), 60_000),
        ("cub", (100, 50, 50), 11_788),
        ("fc100", (60, 20, 20), 60_000),
        ("glyphs", (65, 23, 70), 9480),
        ("mini-imagenet", (64, 16, 20), 60_000),
        ("omniglot", (1028, 172, 423), 32_460),
        ("omniglot-rotated", (4112, 688, 1692), 129_840),
        ("tiered-imagenet", (351, 97, 160), 779_165),
    ],
)
def test_shipped_cards(tmp_path: Path, name: str, sizes: tuple[int, ...], images: int) -> None:
    card = load_card(open_workspace(tmp_path), name)
    assert tuple(len(card.splits[split]) for split in ("train", "val", "test")) == sizes
    assert card.n_images == images


def test_every_dataset_with_layouts_or_embedded_has_a_card(tmp_path: Path) -> None:
    assert card_names(open_workspace(tmp_path)) == sorted([*DATASETS, *EMBEDDED])


def test_a_workspaces_own_card_goes_first(workspace: Workspace) -> None:
    assert load_card(workspace, "cifar-fs").title == "Tiny"


@pytest.mark.parametrize("name", ["omniglott", "../cards/glyphs", "", "GLYPHS"])
def test_an_unknown_name_lists_the_valid_ones(workspace: Workspace, name: str) -> None:
    with pytest.raises(DataError, match=rf"no dataset is called '{re.escape(name)}'.*cifar-fs, cub, fc100, glyphs, mini-imagenet"):
        load_card(workspace, name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_size = 32", "image_size = 0", r"cifar-fs.toml: field 'image_size': .*greater than 0"),
        ("image_size = 32", "image_sise = 32", r"cifar-fs.toml: field 'image_size': Field required"),
        ('title = "Tiny"', 'title = "Tiny"\ncolour = 1', r"cifar-fs.toml: field 'colour': Extra inputs"),
        ('"crop", "flip"', '"crop", "blur"', r"cifar-fs.toml: field 'augmentations.1': .*'crop', 'flip' or 'colour'"),
        ('val = ["bear"]', 'val = ["apple"]', r"cifar-fs.toml: field 'splits': .*repeated: apple"),
        ('val = ["bear"]', "val = []", r"cifar-fs.toml: field 'splits': .*train, val, test.* 0 in val"),
        ('val = ["bear"]', 'dev = ["bear"]', r"cifar-fs.toml: field 'splits': .*1 in dev"),
        ('name = "cifar-fs"', 'name = "other"', r"cifar-fs.toml: field 'name' is 'other', expected 'cifar-fs'"),
        ('val = ["bear"]', 'val = ["../bear"]', r"cifar-fs.toml: field 'splits': .*named as a folder may be, and not '../bear'"),
        ('val = ["bear"]', 'val = ["/bear"]', r"named as a folder may be, and not '/bear'"),
        ('val = ["bear"]', 'val = [""]', r"named as a folder may be, and not ''"),
        ("[splits]", 'turns_of = "cifar-fs"\n[splits]', r"field 'turns_of': a dataset is not the turns of itself"),
        ("channels = 3", "channels", r"cifar-fs.toml is not a TOML file"),
    ],
)
def test_a_wrong_card_names_file_and_field(
    workspace: Workspace, edit: Callable[[Path, str, str], None], old: str, new: str, message: str
) -> None:
    edit(workspace.data / "cards" / "cifar-fs.toml", old, new)
    with pytest.raises(DataError, match=message):
        load_card(workspace, "cifar-fs")


def test_a_card_is_frozen(workspace: Workspace) -> None:
    card = load_card(workspace, "cifar-fs")
    with pytest.raises(ValidationError, match="frozen"):
        card.title = "other"


def _rotated(workspace: Workspace) -> Path:
    """A card `turned` of the quarter turns of the tiny cifar-fs."""
    text = (workspace.data / "cards" / "cifar-fs.toml").read_text().partition("[splits]")[0]
    path = workspace.data / "cards" / "turned.toml"
    path.write_text(text.replace('"cifar-fs"', '"turned"') + 'turns_of = "cifar-fs"\n')
    return path


def test_turns_of_another_card_are_classes_in_its_splits(workspace: Workspace) -> None:
    _rotated(workspace)
    card = load_card(workspace, "turned")
    assert card.splits["val"] == ("bear/rot000", "bear/rot090", "bear/rot180", "bear/rot270")
    assert card.splits["train"][:5] == ("pear/rot000", "pear/rot090", "pear/rot180", "pear/rot270", "apple/rot000")
    assert (card.n_classes, card.n_images) == (16, 96)


@pytest.mark.parametrize("of", ["nothing", "../cards/cifar-fs"])
def test_turns_of_no_dataset_are_refused(workspace: Workspace, edit: Callable[[Path, str, str], None], of: str) -> None:
    edit(_rotated(workspace), 'turns_of = "cifar-fs"', f'turns_of = "{of}"')
    with pytest.raises(DataError, match=f"no dataset is called '{of}'"):
        load_card(workspace, "turned")


@pytest.mark.parametrize(
    ("line", "n_images"), [("images_per_class = 6", 24), ("images = 31", 31), ("", None), ("images_per_class = 6\nimages = 24", 24)]
)
def test_how_many_images_may_be_known_by_class_in_all_or_not(
    workspace: Workspace, edit: Callable[[Path, str, str], None], line: str, n_images: int | None
) -> None:
    edit(workspace.data / "cards" / "cifar-fs.toml", "images_per_class = 6", line)
    assert load_card(workspace, "cifar-fs").n_images == n_images


def test_folders_of_data_that_hold_no_store_are_no_datasets(workspace: Workspace) -> None:
    text = (workspace.data / "cards" / "cifar-fs.toml").read_text()
    (workspace.data / "cards" / "downloads.toml").write_text(text.replace('"cifar-fs"', '"downloads"'))
    with pytest.raises(DataError, match=r"field 'name': .*data/downloads is something else; take another name"):
        load_card(workspace, "downloads")
