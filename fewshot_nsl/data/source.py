"""What a reader hands to the store's writer: the classes it found, each with a way to get its images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.errors import DataError

Images = UInt8[np.ndarray, "n h w c"]
"""Images of one class, 0-255, grey (c = 1) or RGB (c = 3)."""


@dataclass(frozen=True)
class SourceClass:
    """One class of a source. Nothing is decoded before `load` is called, so that one class is in memory at a time."""

    split: str
    name: str
    origins: tuple[str, ...]
    """Where each image comes from, for instance a file's path inside the source."""
    load: Callable[[], Images]
    """The images, in the order of `origins`."""


@dataclass(frozen=True)
class Source:
    """A dataset as it lies on somebody's disk, or as it is made: the name of the layout, and the classes in any order."""

    layout: str
    classes: Sequence[SourceClass]

    @property
    def n_images(self) -> int:
        """Images of all classes together."""
        return sum(len(each.origins) for each in self.classes)


def check_source(card: Card, source: Source) -> None:
    """Refuse a source whose classes, splits or numbers of images are not the card's.

    Raises:
        DataError: naming the first few classes that differ.
    """
    for split in SPLITS:
        expected, found = set(card.splits[split]), {each.name for each in source.classes if each.split == split}
        if expected != found:
            raise DataError(
                f"{card.name}: split '{split}' has {len(found)} classes in the {source.layout} layout, expected the card's "
                f"{len(expected)}; missing: {_few(expected - found)}; not in the card: {_few(found - expected)}"
            )
    allowed = card.images_per_class
    wrong = {each.name: len(each.origins) for each in source.classes if len(each.origins) != allowed and (allowed or not each.origins)}
    if wrong:
        raise DataError(
            f"{card.name}: each class has {allowed or 'some'} images, but the {source.layout} layout has {_few_counts(wrong)}; "
            "complete the source, then prepare again"
        )
    if card.n_images not in (None, source.n_images):
        raise DataError(
            f"{card.name} has {card.n_images} images, but the {source.layout} layout has {source.n_images}; complete the source, then "
            "prepare again"
        )


def _few(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return (f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown) or "none"


def _few_counts(counts: Mapping[str, int]) -> str:
    return _few({f"{count} in {name}" for name, count in counts.items()})
