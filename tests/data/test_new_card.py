import hashlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewshot_nsl.data import Card, load_card, new_card, prepare, verify
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

LETTERS = "abcdefghij"


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Ten folders of two images each; a folder of notes and a hidden one beside them."""
    _make(tmp_path / "collection", LETTERS)
    (tmp_path / "collection" / "notes").mkdir()
    (tmp_path / "collection" / "notes" / "a.txt").write_text("no image")
    _make(tmp_path / "collection", [".thumbnails"])
    return tmp_path / "collection"


@pytest.fixture
def by_split(tmp_path: Path) -> Path:
    """The same in train/, validation/ and test/."""
    for folder, names in (("train", "abcdef"), ("validation", "gh"), ("test", "ij")):
        _make(tmp_path / "by_split" / folder, names)
    return tmp_path / "by_split"


def _make(root: Path, names: Sequence[str]) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full((9, 12, 3), 2 * ord(name[0]) % 256 + i, dtype=np.uint8)).save(root / name / f"{i}.png")


def _splits(card: Card) -> Mapping[str, str]:
    """The classes, which are single letters, in one word a split."""
    return {split: "".join(names) for split, names in card.splits.items()}


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, {"train": "befghij", "val": "a", "test": "cd"}),
        (1, {"train": "abcegij", "val": "f", "test": "dh"}),
    ],
)
def test_a_seeded_split_is_the_same_for_ever(workspace: Workspace, collection: Path, seed: int, expected: Mapping[str, str]) -> None:
    assert _splits(new_card(workspace, "mine", collection, image_size=8, split_seed=seed)) == expected


def test_a_seeded_split_takes_classes_in_the_order_of_their_sha256(workspace: Workspace, collection: Path) -> None:
    card = new_card(workspace, "mine", collection, image_size=8, split_seed=5)
    order = sorted(LETTERS, key=lambda name: hashlib.sha256(f"5 {name}".encode()).hexdigest())
    assert _splits(card) == {"train": "".join(sorted(order[:7])), "val": order[7], "test": "".join(sorted(order[8:]))}


@pytest.mark.parametrize(
    ("n", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (7, (5, 1, 1)), (10, (7, 1, 2)), (26, (17, 4, 5)), (100, (64, 16, 20))]
)
def test_shares_are_64_16_and_20_percent_and_a_class_at_least(workspace: Workspace, tmp_path: Path, n: int, sizes: tuple[int, ...]) -> None:
    _make(tmp_path / "many", [f"c{i}" for i in range(n)])
    card = new_card(workspace, "mine", tmp_path / "many", image_size=8)
    assert tuple(len(names) for names in card.splits.values()) == sizes


def test_a_given_split_goes_before_all_others(workspace: Workspace, by_split: Path, collection: Path, tmp_path: Path) -> None:
    rows = [f"{name},{split}" for name, split in zip("jihgf", ("val", "val", "test", "train", "train"), strict=True)]
    (tmp_path / "split.csv").write_bytes("\r\n".join(["\ufeffclass,split", *rows]).encode())
    card = new_card(workspace, "mine", collection, image_size=8, split_file=tmp_path / "split.csv")
    assert _splits(card) == {"train": "gf", "val": "ji", "test": "h"}
    assert prepare(workspace, "mine", collection).classes == tuple("fgijh")
    # Here classes lie in the folder of another split than the file says.
    with pytest.raises(DataError, match=r"validation/g is in 'val', but other has that class in 'train'"):
        new_card(workspace, "other", by_split, image_size=8, split_file=tmp_path / "split.csv")


def test_folders_of_splits_give_the_split(workspace: Workspace, by_split: Path) -> None:
    card = new_card(workspace, "mine", by_split, image_size=8)
    assert _splits(card) == {"train": "abcdef", "val": "gh", "test": "ij"}
    assert prepare(workspace, "mine", by_split).classes == tuple(LETTERS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,split\na,train\n", r"split.csv has columns \['name', 'split'\], expected \['class', 'split'\]"),
        ("class,split,more\na,train,x\n", r"split.csv has columns"),
        ("", r"split.csv has columns None"),
        ("class,split\na,train\nb,dev\n", r"split.csv, line 3: expected a class and one of train, val, test, got 'b', 'dev'"),
        ("class,split\na\n", r"split.csv, line 2: expected a class and one of"),
        ("class,split\n,train\n", r"split.csv, line 2: expected a class and one of"),
        ("class,split\na,train,x\n", r"split.csv, line 2: expected a class and one of"),
        ("class,split\n../outside,train\n", r"split.csv, line 2: '../outside' leads out of the folder"),
        ("class,split\n.,train\n", r"split.csv, line 2: '.' leads out of the folder"),
        ("class,split\n/etc,train\n", r"split.csv, line 2: '/etc' leads out of the folder"),
        ("class,split\na,train\nb,val\nc,test\na,test\n", r"a class belongs to one split, once; repeated: a"),
        ("class,split\na,train\na,train\nb,val\nc,test\n", r"a class belongs to one split, once; repeated: a"),
        ("class,split\na,train\nb,val\n", r"expected classes in each of train, val, test and in nothing else, got 1 in train, 1 in val, 0"),
        ("class,split\na,train\nb,val\nzebra,test\n", r"split 'test' has 0 classes .*missing: zebra; not in the card: none"),
        ("class,split\na,train\nb,val\nnotes,test\n", r"each class has some images, but .* 0 in notes"),
        ("class,split\n\xff,train\n", r"split.csv is no CSV in UTF-8"),
    ],
)
def test_a_wrong_split_is_refused_and_leaves_no_card(
    workspace: Workspace, collection: Path, tmp_path: Path, text: str, message: str
) -> None:
    _make(tmp_path, ["outside"])
    (tmp_path / "split.csv").write_bytes(text.encode("latin1"))
    with pytest.raises(DataError, match=message):
        new_card(workspace, "mine", collection, image_size=8, split_file=tmp_path / "split.csv")
    assert not (workspace.data / "cards" / "mine.toml").exists()


def test_the_same_call_again_changes_nothing(workspace: Workspace, collection: Path) -> None:
    card = new_card(workspace, "mine", collection, image_size=8)
    before = (workspace.data / "cards" / "mine.toml").read_bytes()
    assert new_card(workspace, "mine", collection, image_size=8) == card == load_card(workspace, "mine")
    assert (workspace.data / "cards" / "mine.toml").read_bytes() == before


def _another_seed(_: Path) -> dict[str, Any]:
    return {"split_seed": 1}


def _another_size(_: Path) -> dict[str, Any]:
    return {"image_size": 9}


def _grey(_: Path) -> dict[str, Any]:
    return {"channels": 1}


def _another_class(collection: Path) -> dict[str, Any]:
    _make(collection, ["k"])
    return {}


@pytest.mark.parametrize("change", [_another_seed, _another_size, _grey, _another_class])
def test_another_call_is_refused_and_changes_nothing(
    workspace: Workspace, collection: Path, change: Callable[[Path], dict[str, Any]]
) -> None:
    new_card(workspace, "mine", collection, image_size=8)
    before = (workspace.data / "cards" / "mine.toml").read_bytes()
    with pytest.raises(DataError, match=r"mine has another card already; take another name, or leave --image-size out"):
        new_card(workspace, "mine", collection, **({"image_size": 8} | change(collection)))
    assert (workspace.data / "cards" / "mine.toml").read_bytes() == before


@pytest.mark.parametrize("name", ["cifar-fs", "glyphs", "mini-imagenet"])
def test_the_name_of_a_dataset_that_has_a_card_is_refused(workspace: Workspace, collection: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} has another card already"):
        new_card(workspace, name, collection, image_size=8)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "my birds",
        "Birds",
        "birds_2",
        "birds.v2",
        "-birds",
        "vögel",
        " birds",
        "birds\n",
        "../birds",
        "a/b",
        "../../precious",
    ],
)
def test_a_name_that_no_dataset_may_have_leaves_no_file_behind(workspace: Workspace, collection: Path, name: str) -> None:
    (workspace.root / "precious.toml").write_text("mine")
    before = sorted(workspace.root.rglob("*"))
    with pytest.raises(DataError, match="name"):
        new_card(workspace, name, collection, image_size=8)
    assert sorted(workspace.root.rglob("*")) == before
    assert (workspace.root / "precious.toml").read_text() == "mine"


def test_an_absolute_name_touches_no_other_file(workspace: Workspace, collection: Path, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("mine")
    with pytest.raises(DataError, match="name"):
        new_card(workspace, str(tmp_path / "other"), collection, image_size=8)
    assert (tmp_path / "other.toml").read_text() == "mine"


@pytest.mark.parametrize("values", [{"image_size": 0}, {"image_size": -84}, {"image_size": 8, "channels": 2}])
def test_a_size_that_no_card_may_have_leaves_no_file_behind(workspace: Workspace, collection: Path, values: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=next(reversed(values))):
        new_card(workspace, "mine", collection, **values)
    assert not (workspace.data / "cards" / "mine.toml").exists()


def test_a_source_without_enough_classes_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent is not a folder; expected one with a folder of images for each class"):
        new_card(workspace, "mine", tmp_path / "absent", image_size=8)
    _make(tmp_path / "few", "ab")
    (tmp_path / "few" / "empty").mkdir()
    with pytest.raises(DataError, match=r"few has 2 folders of images, expected one for each class and at least 3 classes"):
        new_card(workspace, "mine", tmp_path / "few", image_size=8)


def test_folders_that_split_images_and_not_classes_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        _make(tmp_path / "plain" / split, "ab")
    with pytest.raises(DataError, match=r"a class belongs to one split, once; repeated: a, b"):
        new_card(workspace, "mine", tmp_path / "plain", image_size=8)


def test_names_of_classes_may_be_anything_that_is_text(workspace: Workspace, tmp_path: Path) -> None:
    names = ["l'été", 'a "b"', "# c = [1]", "日本", "d\\e", "f.g"]
    _make(tmp_path / "odd", names)
    card = new_card(workspace, "mine", tmp_path / "odd", image_size=8)
    assert sorted(name for split in card.splits.values() for name in split) == sorted(names)
    assert sorted(prepare(workspace, "mine", tmp_path / "odd").classes) == sorted(names)


@pytest.mark.parametrize("name", ["\udcff", "z\x7f", "z "])
def test_a_folder_whose_name_no_card_can_hold_is_refused(workspace: Workspace, collection: Path, name: str) -> None:
    _make(collection, [name])
    with pytest.raises(DataError, match="mine"):
        new_card(workspace, "mine", collection, image_size=8)
    assert not (workspace.data / "cards" / "mine.toml").exists()


@pytest.mark.parametrize(("channels", "augmentations"), [(3, ["crop", "flip"]), (1, ["crop"])])
def test_the_card_is_a_file_to_read_and_the_dataset_is_prepared_with_it(
    workspace: Workspace, collection: Path, channels: int, augmentations: list[str]
) -> None:
    new_card(workspace, "mine", collection, image_size=8, channels=channels)
    text = (workspace.data / "cards" / "mine.toml").read_text(encoding="utf-8")
    assert text.startswith("# Made from a folder of class folders; yours to edit.\n")
    values = tomllib.loads(text)
    assert (values["image_size"], values["channels"], values["augmentations"]) == (8, channels, augmentations)
    store = prepare(workspace, "mine", collection)
    assert store.images.shape == (20, 8, 8, channels)
    assert [len(store.splits[split]) for split in ("train", "val", "test")] == [14, 2, 4]
    for label, name in enumerate(store.classes):
        value = 2 * ord(name)
        assert sorted(np.unique(store.images[store.labels == label])) == [value, value + 1]
    verify(workspace, "mine")
