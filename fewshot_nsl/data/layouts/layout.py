"""A form in which a dataset lies on somebody's disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot_nsl.data.card import Card
from fewshot_nsl.data.source import Source
from fewshot_nsl.errors import DataError


@dataclass(frozen=True)
class Layout:
    """How a layout is recognised and read. Neither decodes an image."""

    name: str
    """Written into the store's own card."""
    holds: str
    """What PATH holds, for a person who gave another one."""
    find: Callable[[Card, Path], Path | None]
    """Where it begins (PATH itself, or a folder in it), or None if PATH is not in this layout."""
    read: Callable[[Card, Path], Source]
    """Its classes, from what `find` gave."""


def find_layout(card: Card, source: Path, layouts: Sequence[Layout]) -> tuple[Layout, Path]:
    """The first of `layouts` that `source` is in, and where it begins.

    Raises:
        DataError: `source` does not exist, or is in none of them.
    """
    if not source.exists():
        raise DataError(f"{source} does not exist; to get {card.name}: {card.how_to_get}")
    for layout in layouts:
        if (root := layout.find(card, source)) is not None:
            return layout, root
    known = "; or ".join(layout.holds for layout in layouts)
    raise DataError(f"{source} is in no layout known for {card.name}: expected {known}; to get it: {card.how_to_get}")
