"""Outlines of characters, read unhinted from a TrueType font as straight edges with integer ends."""

from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from jaxtyping import Int64

from fewshot_nsl.errors import DataError

_STEPS = 8
"""Straight edges that stand for one curve; at 28 pixels the difference is below a tenth of a pixel."""

UNITS = 2 * _STEPS**2
"""Units of an edge's ends per unit of the font: at this scale midpoints and the points on a curve are whole numbers."""

Point = tuple[int, int]


class Face:
    """One font file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        font = TTFont(path)
        self._glyphs, self._names = font["glyf"], font.getBestCmap()
        self.em: int = font["head"].unitsPerEm
        """Font units per em."""

    def edges(self, character: str) -> Int64[np.ndarray, "edges 4"]:
        """The outline of `character`: x0, y0, x1, y1 of each edge in 1/128 of a font unit, y upwards, contours closed.

        Raises:
            DataError: the face does not have the character.
        """
        name = self._names.get(ord(character))
        if name is None:
            raise DataError(f"{self._path} has no character U+{ord(character):04X}; expected the DejaVu fonts that come with matplotlib")
        coordinates, ends, on_curve = self._glyphs[name].getCoordinates(self._glyphs)
        lines: list[tuple[Point, Point]] = []
        curves: list[tuple[Point, Point, Point]] = []
        start = 0
        for end in ends:
            # Doubled, so that the points that TrueType implies half-way between two control points are whole.
            contour = [(2 * int(x), 2 * int(y)) for x, y in coordinates[start : end + 1]]
            _split_contour(contour, [bool(flag & 1) for flag in on_curve[start : end + 1]], lines, curves)
            start = end + 1
        straight = np.array(lines, dtype=np.int64).reshape(-1, 4) * _STEPS**2
        return np.concatenate([straight, _flatten(np.array(curves, dtype=np.int64).reshape(-1, 3, 2))])


def _split_contour(
    points: list[Point], on_curve: list[bool], lines: list[tuple[Point, Point]], curves: list[tuple[Point, Point, Point]]
) -> None:
    """Append a contour's straight parts to `lines`, and its quadratic curves (start, control, end) to `curves`."""
    whole: list[tuple[Point, bool]] = []
    for i, (point, on) in enumerate(zip(points, on_curve, strict=True)):
        if not on and not on_curve[i - 1]:
            whole.append((_middle(points[i - 1], point), True))
        whole.append((point, on))
    first = next(i for i, (_, on) in enumerate(whole) if on)
    whole = [*whole[first:], *whole[: first + 1]]
    for i in range(1, len(whole)):
        (before, before_on), (point, on) = whole[i - 1], whole[i]
        if before_on and on:
            lines.append((before, point))
        elif not on:
            curves.append((before, point, whole[i + 1][0]))


def _middle(a: Point, b: Point) -> Point:
    return (a[0] + b[0]) // 2, (a[1] + b[1]) // 2


def _flatten(curves: Int64[np.ndarray, "curves 3 2"]) -> Int64[np.ndarray, "edges 4"]:
    """Each curve as `_STEPS` edges: s² B(t) = (s - i)² p0 + 2 i (s - i) p1 + i² p2 at t = i / s, which is exact in integers."""
    step = np.arange(_STEPS + 1, dtype=np.int64)
    weights = np.stack([(_STEPS - step) ** 2, 2 * step * (_STEPS - step), step**2], axis=1)
    points = np.einsum("sk,nkd->nsd", weights, curves)
    return np.concatenate([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 4)
