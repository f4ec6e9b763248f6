import os
import pickle
import weakref
from collections.abc import Callable
from io import BufferedIOBase, BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_nsl.data import ImageStore, load_card, prepare
from fewshot_nsl.data.fingerprint import pixel_digest
from fewshot_nsl.data.layouts.tiered_pickles import TIERED_PICKLES
from fewshot_nsl.data.pickles import load_plain_pickle
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

ENGLISH = {"n02110341": "dalmatian", "n01532829": "house finch", "n01855672": "goose", "n01930112": "nematode"}
SPLITS = {"train": ("n02110341", "n01532829"), "val": ("n01855672",), "test": ("n01930112",)}

Pixels = dict[str, np.ndarray]


@pytest.fixture
def tiered(workspace: Workspace, edit: Callable[[Path, str, str], None]) -> Workspace:
    """The workspace, with a tiny card of tiered-imagenet: 4 classes, 24 images in all."""
    cards = workspace.data / "cards"
    (cards / "mini-imagenet.toml").rename(cards / "tiered-imagenet.toml")
    for old, new in (("mini-imagenet", "tiered-imagenet"), ("images_per_class = 6", "images = 24")):
        edit(cards / "tiered-imagenet.toml", old, new)
    for old, name in zip(("pear", "apple", "bear", "road"), ENGLISH, strict=True):
        edit(cards / "tiered-imagenet.toml", f'"{old}"', f'"{name}"')
    return workspace


@pytest.fixture
def photographs() -> Pixels:
    """Classes of unequal sizes."""
    rng = np.random.default_rng(7)
    return {name: rng.integers(0, 256, (n, 84, 84, 3), dtype=np.uint8) for name, n in zip(ENGLISH, (4, 9, 6, 5), strict=True)}


@pytest.fixture
def pickles(tmp_path: Path, photographs: Pixels) -> Path:
    """The folder around `tiered-imagenet`, as Python 3 writes it; images of a split are shuffled."""
    root = tmp_path / "tiered" / "tiered-imagenet"
    root.mkdir(parents=True)
    for split, names in SPLITS.items():
        rows = [(_png(image), label) for label, name in enumerate(names) for image in photographs[name]]
        rows = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
        _write(root / f"{split}_images_png.pkl", [np.frombuffer(png, dtype=np.uint8) for png, _ in rows])
        labels = {"label_specific": np.array([label for _, label in rows]), "label_specific_str": [ENGLISH[name] for name in names]}
        _write(root / f"{split}_labels.pkl", labels | {"label_general": np.zeros(len(rows)), "label_general_str": ["thing"]})
    # Of all of ImageNet: two have one name, and one of these is not the card's.
    (root / "class_names.txt").write_text("goose\ntench\n" + "".join(f"{name}\n" for name in ENGLISH.values()))
    (root / "synsets.txt").write_text("n99999999\nn01440764\n" + "".join(f"{wordnet_id}\n" for wordnet_id in ENGLISH))
    return root.parent


def _png(image: np.ndarray) -> bytes:
    content = BytesIO()
    Image.fromarray(image).save(content, "PNG", compress_level=0)
    return content.getvalue()


def _write(path: Path, content: object, protocol: int = 4) -> None:
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def _change(path: Path, change: Callable[[object], object], protocol: int = 4) -> None:
    _write(path, change(pickle.loads(path.read_bytes())), protocol)


def _check(store: ImageStore, photographs: Pixels) -> None:
    assert store.classes == ("n01532829", "n02110341", "n01855672", "n01930112")
    for label, name in enumerate(store.classes):
        np.testing.assert_array_equal(store.images[store.labels == label], sorted(photographs[name], key=pixel_digest))


@pytest.mark.parametrize("inside", ["", "tiered-imagenet"])
def test_classes_get_their_wordnet_ids_and_their_images(tiered: Workspace, pickles: Path, photographs: Pixels, inside: str) -> None:
    announced: list[str] = []
    _check(prepare(tiered, "tiered-imagenet", pickles / inside, announce=announced.append), photographs)
    assert announced == ["tiered-imagenet pickles"]


def _in_columns(files: object) -> object:
    """As OpenCV gives them."""
    assert isinstance(files, list)
    return [file[:, None] for file in files]


def _as_bytes(files: object) -> object:
    assert isinstance(files, list)
    return [file.tobytes() for file in files]


@pytest.mark.parametrize("change", [_in_columns, _as_bytes])
@pytest.mark.parametrize("protocol", [2, 5])
def test_pngs_in_other_containers(
    tiered: Workspace, pickles: Path, photographs: Pixels, change: Callable[[object], object], protocol: int
) -> None:
    for path in pickles.rglob("*_images_png.pkl"):
        _change(path, change, protocol)
    _check(prepare(tiered, "tiered-imagenet", pickles), photographs)


def _of_python_2(labels: object) -> object:
    assert isinstance(labels, dict)
    return {
        b"label_specific": labels["label_specific"].tolist(),
        b"label_specific_str": [name.encode() for name in labels["label_specific_str"]],
    }


def test_labels_of_python_2(tiered: Workspace, pickles: Path, photographs: Pixels) -> None:
    for path in pickles.rglob("*_labels.pkl"):
        _change(path, _of_python_2, protocol=2)
    _check(prepare(tiered, "tiered-imagenet", pickles), photographs)


def test_classes_may_be_named_by_their_ids(tiered: Workspace, pickles: Path, photographs: Pixels) -> None:
    ids = {english: wordnet_id for wordnet_id, english in ENGLISH.items()}
    for path in pickles.rglob("*_labels.pkl"):
        _change(path, lambda labels: labels | {"label_specific_str": [ids[name] for name in labels["label_specific_str"]]})  # type: ignore[index, operator]
    _check(prepare(tiered, "tiered-imagenet", pickles), photographs)


class _Touch:
    """A pickle of this makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["train_labels.pkl", "test_labels.pkl", "train_images_png.pkl", "test_images_png.pkl"])
def test_a_hostile_pickle_is_refused_by_name_and_runs_nothing(tiered: Workspace, pickles: Path, name: str) -> None:
    _write(pickles / "tiered-imagenet" / name, [_Touch(pickles / "touched")])
    with pytest.raises(DataError, match=rf"{name} is a pickle that asks to run {os.system.__module__}.system"):
        prepare(tiered, "tiered-imagenet", pickles)
    assert not (pickles / "touched").exists()
    assert not (tiered.data / "tiered-imagenet").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("label_specific", None, "has no label_specific and label_specific_str"),
        ("label_specific", [[0] * 6], "has no label_specific and label_specific_str"),
        ("label_specific", [0, [0, 0]], "has no label_specific and label_specific_str"),
        ("label_specific", [0.0] * 6, "has no label_specific and label_specific_str"),
        ("label_specific", ["0"] * 6, "has no label_specific and label_specific_str"),
        ("label_specific", [0] * 5 + [-1], "val_labels.pkl gives an image a class that it does not name"),
        ("label_specific", [0] * 5 + [1], "val_labels.pkl gives an image a class that it does not name"),
        ("label_specific", [0] * 5, r"val_images_png.pkl has 6 images, but its labels are 5"),
        ("label_specific", [0] * 7, r"val_images_png.pkl has 6 images, but its labels are 7"),
        ("label_specific_str", "goose", "has no label_specific and label_specific_str"),
        ("label_specific_str", ["gander"], r"split 'val' has 1 classes .*missing: n01855672; not in the card: gander"),
        ("label_specific_str", ["goose", "tench"], r"split 'val' has 2 classes .*missing: none; not in the card: tench"),
        ("label_specific_str", [7], r"not in the card: 7"),
    ],
)
def test_other_labels_are_refused(tiered: Workspace, pickles: Path, key: str, value: object, message: str) -> None:
    card = tiered.data / "cards" / "tiered-imagenet.toml"
    card.write_text(card.read_text().replace("images = 24\n", ""))
    _change(pickles / "tiered-imagenet" / "val_labels.pkl", lambda labels: labels | {key: value})  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        prepare(tiered, "tiered-imagenet", pickles)


def test_a_class_without_images_and_too_few_in_all_are_refused(tiered: Workspace, pickles: Path) -> None:
    root = pickles / "tiered-imagenet"
    whole = (root / "train_labels.pkl").read_bytes()
    _change(root / "train_labels.pkl", lambda labels: labels | {"label_specific": np.ones(13, dtype=np.int64)})  # type: ignore[operator]
    with pytest.raises(DataError, match=r"each class has some images, but the tiered-imagenet pickles layout has 0 in n02110341"):
        prepare(tiered, "tiered-imagenet", pickles)
    (root / "train_labels.pkl").write_bytes(whole)
    _change(root / "val_images_png.pkl", lambda files: files[1:])  # type: ignore[index]
    _change(root / "val_labels.pkl", lambda labels: labels | {"label_specific": np.zeros(5, dtype=np.int64)})  # type: ignore[operator]
    with pytest.raises(
        DataError, match=r"tiered-imagenet has 24 images, but the tiered-imagenet pickles layout has 23; complete the source"
    ):
        prepare(tiered, "tiered-imagenet", pickles)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (b"text", "val_images_png.pkl#2 cannot be read as an image"),
        (np.zeros(100, dtype=np.uint8), "val_images_png.pkl#2 cannot be read as an image"),
        (b"", "val_images_png.pkl#2 cannot be read as an image .*it is empty"),
        (np.zeros(100), "val_images_png.pkl: entry 2 is no PNG"),
        (None, "val_images_png.pkl: entry 2 is no PNG"),
        ("etc/passwd", "val_images_png.pkl: entry 2 is no PNG"),
    ],
)
def test_an_entry_that_is_no_png_is_named(tiered: Workspace, pickles: Path, entry: object, message: str) -> None:
    _change(pickles / "tiered-imagenet" / "val_images_png.pkl", lambda files: [*files[:2], entry, *files[3:]])  # type: ignore[index]
    with pytest.raises(DataError, match=message):
        prepare(tiered, "tiered-imagenet", pickles)


def test_images_that_are_no_list_are_refused(tiered: Workspace, pickles: Path) -> None:
    _write(pickles / "tiered-imagenet" / "val_images_png.pkl", {"0": b"text"})
    with pytest.raises(DataError, match=r"val_images_png.pkl is no list of PNG files"):
        prepare(tiered, "tiered-imagenet", pickles)


def test_missing_files_are_named(tiered: Workspace, pickles: Path) -> None:
    for name in ("test_labels.pkl", "synsets.txt"):
        (pickles / "tiered-imagenet" / name).unlink()
    with pytest.raises(DataError, match=r"tiered-imagenet has no test_labels.pkl, synsets.txt; to get tiered-imagenet: ask a friend"):
        prepare(tiered, "tiered-imagenet", pickles)


def test_names_and_ids_that_do_not_go_line_by_line_are_refused(tiered: Workspace, pickles: Path) -> None:
    (pickles / "tiered-imagenet" / "synsets.txt").write_text("n01440764\n")
    with pytest.raises(DataError, match=r"class_names.txt has 6 lines, synsets.txt 1; expected as many"):
        prepare(tiered, "tiered-imagenet", pickles)


def test_images_of_one_split_are_in_memory_at_a_time(tiered: Workspace, pickles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[weakref.ref[np.ndarray]] = []

    def watched(file: BufferedIOBase, name: str) -> object:
        assert all(each() is None for each in kept), f"{name} is read while another is in memory"
        content = load_plain_pickle(file, name)
        if isinstance(content, list):
            kept.append(weakref.ref(content[0]))
        return content

    monkeypatch.setattr("fewshot_nsl.data.layouts.tiered_pickles.load_plain_pickle", watched)
    source = TIERED_PICKLES.read(load_card(tiered, "tiered-imagenet"), pickles / "tiered-imagenet")
    assert kept == []
    assert [len(each.load()) for each in source.classes] == [4, 9, 6, 5]
    assert len(kept) == 3
