"""A card for a dataset of one's own: any folder of class folders, with a given split or a seeded one."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewshot_nsl.data.card import SPLITS, Card, card_names, load_card
from fewshot_nsl.data.layouts.class_folders import image_files, split_places, subfolders
from fewshot_nsl.data.toml import to_toml
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace, moved_into_place

SHARES = (64, 16, 20)
"""Of a hundred classes, those of train, val and test, as in Mini-ImageNet and CIFAR-FS."""

_OWN = "not said: a dataset of your own"


def new_card(
    workspace: Workspace,
    name: str,
    source: Path,
    *,
    image_size: int,
    channels: int = 3,
    split_file: Path | None = None,
    split_seed: int = 0,
) -> Card:
    """Write `data/cards/<name>.toml` for the class folders in `source`; the same call again changes nothing.

    The split is that of `split_file` (a CSV of the columns class, split) where it is given, else that of the folders train/, val/ and test/
    where `source` has them, else a seeded one: classes in the order of the SHA-256 of `<seed> <class>`, 64 % to train, 16 % to val.

    Args:
        workspace: the card goes into its `data/cards`.
        name: small letters, digits and hyphens.
        source: a folder with a folder of images for each class.
        image_size: height and width of the stored images, in pixels.
        channels: 1 (grey) or 3 (RGB).
        split_file: the split.
        split_seed: of a seeded split.

    Raises:
        DataError: a dataset of that name has another card, or the folders or the split are not what is expected.
    """
    splits = _splits(source, split_file, split_seed)
    values = {
        "name": name,
        "title": name,
        "image_size": image_size,
        "channels": channels,
        "licence": _OWN,
        "citation": _OWN,
        "homepage": _OWN,
        "how_to_get": _OWN,
        "augmentations": ["crop", "flip"] if channels == 3 else ["crop"],
        "splits": splits,
    }
    path = workspace.data / "cards" / f"{name}.toml"
    text = "# Made from a folder of class folders; yours to edit.\n" + to_toml(values)
    if name in card_names(workspace) and not (path.is_file() and path.read_text(encoding="utf-8") == text):
        raise DataError(f"{name} has another card already; take another name, or leave --image-size out to use that card as it is")
    path.parent.mkdir(parents=True, exist_ok=True)
    with moved_into_place(path) as aside:
        aside.write_text(text, encoding="utf-8")
    try:
        return load_card(workspace, name)
    except DataError:
        path.unlink()  # a name or a size that no card may have
        raise


def _splits(source: Path, split_file: Path | None, seed: int) -> dict[str, list[str]]:
    if not source.is_dir():
        raise DataError(f"{source} is not a folder; expected one with a folder of images for each class")
    if split_file is not None:
        return _given(split_file)
    if places := split_places(source):
        return {split: subfolders(places[split]) for split in SPLITS}
    names = [name for name in subfolders(source) if image_files(source / name)]
    return _seeded(source, names, seed)


def _seeded(source: Path, names: Sequence[str], seed: int) -> dict[str, list[str]]:
    if len(names) < len(SPLITS):
        raise DataError(f"{source} has {len(names)} folders of images, expected one for each class and at least {len(SPLITS)} classes")
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    # At least one class each; what rounding leaves over goes to train.
    n_val, n_test = (max(1, len(names) * share // 100) for share in SHARES[1:])
    n_train = len(names) - n_val - n_test
    parts: Mapping[str, Sequence[str]] = {
        "train": order[:n_train],
        "val": order[n_train : n_train + n_val],
        "test": order[n_train + n_val :],
    }
    return {split: sorted(part) for split, part in parts.items()}


def _given(path: Path) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != ["class", "split"]:
                raise DataError(f"{path} has columns {reader.fieldnames}, expected ['class', 'split']")
            for row in reader:
                if row["split"] not in splits or not row["class"]:
                    expected = f"a class and one of {', '.join(SPLITS)}"
                    raise DataError(f"{path}, line {reader.line_num}: expected {expected}, got {row['class']!r}, {row['split']!r}")
                splits[row["split"]].append(row["class"])
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no CSV in UTF-8: {error}") from error
    return splits
