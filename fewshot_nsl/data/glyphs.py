"""The embedded dataset: characters of five scripts in the twelve DejaVu faces that come with matplotlib. Real type, no download.

One class is one character. Its 60 images are the 12 faces times 5 small turns, slants, sizes and shifts, white on black, 28 x 28.
Everything is integer arithmetic on raw random words, so that the store's fingerprint is the same on every machine.
"""

from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import Int64

from fewshot_nsl.data.card import SPLITS, Card
from fewshot_nsl.data.outlines import UNITS, Face
from fewshot_nsl.data.rasterise import PIXEL, rasterise
from fewshot_nsl.data.source import Images, Source, SourceClass
from fewshot_nsl.errors import DataError

LAYOUT = "drawn from DejaVu"

_FAMILIES = {
    "DejaVuSans": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "DejaVuSansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "DejaVuSerif": ("", "-Bold", "-Italic", "-BoldItalic"),
}
FACES = tuple(f"{family}{style}.ttf" for family, styles in _FAMILIES.items() for style in styles)
"""The font files, in the order in which they are numbered (the number is part of an image's seed)."""

VARIATIONS = 5
"""Images of a character in one face."""

_SINES = (0, 286, 572, 857, 1143, 1428, 1713, 1997, 2280, 2563, 2845, 3126, 3406)
_COSINES = (16384, 16382, 16374, 16362, 16344, 16322, 16294, 16262, 16225, 16182, 16135, 16083, 16026)
"""Of 0 to 12 degrees, in 1/16384."""


def draw_glyphs(card: Card) -> Source:
    """The classes of the card, each drawn when it is asked for.

    Raises:
        DataError: a font file is missing.
    """
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    missing = [name for name in FACES if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder / missing[0]} is missing; expected the DejaVu fonts that come with matplotlib: reinstall matplotlib")
    faces = [Face(folder / name) for name in FACES]
    origins = tuple(f"{name}#{variation}" for name in FACES for variation in range(VARIATIONS))
    return Source(
        LAYOUT,
        tuple(
            SourceClass(split, name, origins, partial(_draw_class, faces, name, card.image_size))
            for split in SPLITS
            for name in card.splits[split]
        ),
    )


def character_of(class_name: str) -> str:
    """The character that a class name such as `u0416-cyrillic-capital-zhe` stands for.

    Raises:
        DataError: the name does not begin with `u` and the code point in hexadecimal.
    """
    try:
        return chr(int(class_name.split("-", maxsplit=1)[0].removeprefix("u"), 16))
    except ValueError as error:
        raise DataError(f"class '{class_name}' names no character; expected a name such as u0416-cyrillic-capital-zhe") from error


def _draw_class(faces: list[Face], name: str, size: int) -> Images:
    character = character_of(name)
    images = np.empty((len(faces) * VARIATIONS, size, size, 1), dtype=np.uint8)
    for i, face in enumerate(faces):
        edges = face.edges(character)
        words = np.random.Philox(key=[ord(character), i]).random_raw(5 * VARIATIONS).reshape(VARIATIONS, 5)
        for j, variation in enumerate(words.tolist()):
            images[i * VARIATIONS + j, :, :, 0] = rasterise(_placed(edges, face.em, size, variation), size)
    return images


def _placed(edges: Int64[np.ndarray, "edges 4"], em: int, size: int, words: list[int]) -> Int64[np.ndarray, "edges 4"]:
    """The outline turned, slanted, sized and shifted by five random words, its box in the middle of the image, y downwards.

    An em is as large as the image, unless the character would then take more than 11/14 of it; all of it is in the image.
    """
    degrees, slant = words[0] % 25 - 12, words[1] % 33 - 16  # up to 12 degrees; up to 16/64
    percent = 86 + words[2] % 25  # 86 to 110
    shift = np.array([words[3] % 17 - 8, words[4] % 17 - 8], dtype=np.int64) * (PIXEL // 8)  # up to a pixel
    side = size * PIXEL
    points = edges.reshape(-1, 2)
    extent = int(np.ptp(points, axis=0).max())
    reference = max(em * UNITS, extent * 14 // 11)  # what is drawn as large as the image
    sine = _SINES[abs(degrees)] if degrees >= 0 else -_SINES[abs(degrees)]
    cosine = _COSINES[abs(degrees)]
    # int64 is said throughout: numpy 1 counts in 32 bits on Windows, which these products overflow.
    turned = np.array([[cosine, -sine], [sine, cosine]], dtype=np.int64)
    slanted = np.array([[64, slant], [0, 64]], dtype=np.int64)
    matrix = turned @ slanted * (percent * side) // (100 * reference)  # in 1/2^20: 16384 times 64
    placed = points @ matrix.T >> 20
    placed[:, 1] *= -1  # a font's y goes up, an image's down
    placed = placed * side // max(side, int(np.ptp(placed, axis=0).max()))  # a turn may have made it too long for the image
    low, high = placed.min(axis=0), placed.max(axis=0)
    room = (side - (high - low)) // 2
    return (placed - (low + high) // 2 + side // 2 + np.clip(shift, -room, room)).reshape(-1, 4)
