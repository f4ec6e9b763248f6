"""A picture of an episode, as a person would lay it out: class below class, the support images, and the queries beside them."""

import numpy as np
from jaxtyping import Int64
from PIL import Image, ImageDraw, ImageFont

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes.episode import Episode

SIDE = 64
"""Pixels that an image measures at least; smaller ones are enlarged by a whole number, each pixel a square."""
COLUMNS = 15
"""Images side by side in a set; more go below."""

_MARGIN, _BETWEEN, _GAP = 16, 24, 2
"""Pixels around everything, between the two sets, and between images."""
_FONT, _LINE = 16, 26
"""Pixels of a letter, and of a line of text."""


def picture_episode(store: ImageStore, episode: Episode, title: str) -> Image.Image:
    """The episode in colours: `title` above everything, its label and name above each class.

    Args:
        store: where the images are.
        episode: made from labels of `store`.
        title: one line.
    """
    pixels = store.images.shape[1]
    step = pixels * -(-SIDE // pixels) + _GAP
    font = ImageFont.load_default(_FONT)
    names = [f"{label}  {store.classes[number]}" for label, number in enumerate(episode.classes.tolist())]
    supports, queries = (
        [rows[labels == label] for label in range(len(names))]
        for rows, labels in ((episode.support_rows, episode.support_labels), (episode.query_rows, episode.query_labels))
    )
    lefts = (_MARGIN, _MARGIN + step * _columns(supports) + _BETWEEN)
    heights = [_LINE + step * max(_lines(support), _lines(query)) for support, query in zip(supports, queries, strict=True)]
    longest = max(int(font.getlength(text)) for text in (title, *names))
    width = max(lefts[1] + step * _columns(queries), _MARGIN + longest) + _MARGIN
    picture = Image.new("RGB", (width, 2 * _MARGIN + 2 * _LINE + sum(heights)), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN), title, "black", font)
    top = _MARGIN + _LINE
    for left, text in zip(lefts, ("support", "query"), strict=True):
        draw.text((left, top), text, "dimgrey", font)
    top += _LINE
    for label, (name, height) in enumerate(zip(names, heights, strict=True)):
        draw.text((_MARGIN, top), name, "black", font)
        for left, rows in zip(lefts, (supports[label], queries[label]), strict=True):
            for place, row in enumerate(rows.tolist()):
                at = left + step * (place % COLUMNS), top + _LINE + step * (place // COLUMNS)
                picture.paste(_enlarged(store, row, step - _GAP), at)
        top += height
    return picture


def _enlarged(store: ImageStore, row: int, side: int) -> Image.Image:
    image = store.images[row]
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).resize((side, side), Image.Resampling.NEAREST)


def _lines(rows: Int64[np.ndarray, " n"]) -> int:
    return -(-len(rows) // COLUMNS)


def _columns(sets: list[np.ndarray]) -> int:
    return min(COLUMNS, max(map(len, sets)))
