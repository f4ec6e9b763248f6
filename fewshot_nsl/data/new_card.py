"""A card for a dataset of one's own: any folder of class folders, with a given split or a seeded one."""

import csv
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

from pydantic import ValidationError

from fewshot_nsl.config import first_wrong_field
from fewshot_nsl.data.card import SPLITS, Card, card_names
from fewshot_nsl.data.datasets import FOLDERS
from fewshot_nsl.data.layouts.class_folders import image_files, split_places, subfolders
from fewshot_nsl.data.layouts.layout import find_layout
from fewshot_nsl.data.source import check_source
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
        "how_to_get": "PATH is the folder that holds its class folders",
        "augmentations": ["crop", "flip"] if channels == 3 else ["crop"],
        "splits": splits,
    }
    text = "# Made from a folder of class folders; yours to edit.\n" + to_toml(values)
    card = _checked(name, text)  # before there is a path of that name
    path = workspace.data / "cards" / f"{name}.toml"
    if name in card_names(workspace):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise DataError(f"{name} has another card already; take another name, or leave --image-size out to use that card as it is")
        return card
    layout, root = find_layout(card, source, FOLDERS)
    check_source(card, layout.read(card, root))  # a card that was written could not be made again with another split
    with moved_into_place(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return card


def _checked(name: str, text: str) -> Card:
    try:
        card = Card.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{name} cannot have a card with these names of classes: {error}; rename their folders") from error
    except ValidationError as error:
        raise DataError(f"{name!r} cannot have a card: field {first_wrong_field(error)}") from error
    if card.name != name:  # spaces around it
        raise DataError(f"{name!r} is no name of a dataset, try '{card.name}'")
    return card


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
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest())
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
                if row["split"] not in splits or not row["class"] or len(row) > len(reader.fieldnames):
                    expected = f"a class and one of {', '.join(SPLITS)}"
                    raise DataError(f"{path}, line {reader.line_num}: expected {expected}, got {', '.join(map(repr, row.values()))}")
                place = PureWindowsPath(row["class"])  # which knows the separators of all systems
                if place.anchor or ".." in place.parts or not place.parts:
                    raise DataError(
                        f"{path}, line {reader.line_num}: '{row['class']}' leads out of the folder; expected the name of a class's folder"
                    )
                splits[row["split"]].append(row["class"])
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no CSV in UTF-8: {error}") from error
    return splits
