"""The layout in which Bertinetto et al. share CIFAR-FS: a folder of PNGs per class, and the names of the classes of each split.

    cifar100/data/<class>/*.png
    cifar100/splits/bertinetto/{train,val,test}.txt

Shared with https://github.com/bertinetto/r2d2.
"""

from functools import partial
from pathlib import Path

from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.data.images import decode_images
from fewshot_nsl.data.layouts.layout import Layout
from fewshot_nsl.data.source import Source, SourceClass
from fewshot_nsl.errors import DataError


def _find(_: Card, source: Path) -> Path | None:
    """The folder `cifar100` in this layout, where `source` is that folder or the one around it."""
    candidates = (source, source / "cifar100")
    return next((root for root in candidates if (root / "data").is_dir() and (root / "splits" / "bertinetto").is_dir()), None)


def _read(card: Card, root: Path) -> Source:
    """The classes that the split files name, each with its PNGs.

    Raises:
        DataError: a split file is missing or names a class that has no folder or is not the card's.
    """
    return Source(
        CIFAR_FOLDERS.name, tuple(_read_class(card, root, split, name) for split in SPLITS for name in _class_names(card, root, split))
    )


def _class_names(card: Card, root: Path, split: str) -> list[str]:
    path = root / "splits" / "bertinetto" / f"{split}.txt"
    if not path.is_file():
        raise DataError(f"{path} is missing; to get {card.name}: {card.how_to_get}")
    names = path.read_text(encoding="utf-8", errors="replace").split()
    for name in names:
        # Also keeps a name such as ../.. from leading out of the folder.
        if name not in card.splits[split]:
            raise DataError(f"{path} names the class '{name}', which the card of {card.name} does not have in '{split}'")
    return names


def _read_class(card: Card, root: Path, split: str, name: str) -> SourceClass:
    folder = root / "data" / name
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: class '{name}' of split '{split}' has no images; to get {card.name}: {card.how_to_get}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png" and not path.name.startswith("."))
    origins = tuple(path.relative_to(root).as_posix() for path in paths)
    return SourceClass(split, name, origins, partial(decode_images, paths, card.image_size, card.channels))


CIFAR_FOLDERS = Layout("cifar100 folders", "cifar100/ with data/ and splits/bertinetto/", _find, _read)
