"""Filling an outline with integer arithmetic only, so that every machine draws the same pixels."""

import numpy as np
from jaxtyping import Int64, UInt8

_SAMPLES = 8
"""Samples per pixel in each direction."""

_FINE = 256
"""Units per sample."""

PIXEL = _SAMPLES * _FINE
"""Units of an edge's ends per pixel."""


def rasterise(edges: Int64[np.ndarray, "edges 4"], size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    """Coverage 0-255 of each of `size` x `size` pixels by the shape that `edges` enclose; what lies outside is cut off.

    `edges` are x0, y0, x1, y1 in units of 1/2048 pixel, y downwards, in closed contours; a point is inside if the contours wind
    around it other than zero times. Coverage is the share of 8 x 8 samples at their centres that are inside.
    """
    n = size * _SAMPLES
    edges = edges[edges[:, 1] != edges[:, 3]]  # no sample row crosses a horizontal edge
    direction = np.where(edges[:, 3] > edges[:, 1], 1, -1)
    top, bottom = np.minimum(edges[:, 1], edges[:, 3]), np.maximum(edges[:, 1], edges[:, 3])
    first, last = _first_centre(top, n), _first_centre(bottom, n)
    # One entry for each crossing of an edge with the line through a row of samples.
    edge = np.repeat(np.arange(len(edges)), last - first)
    row = np.arange(len(edge), dtype=np.int64) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[edge]
    x0, y0, x1, y1 = edges[edge].T
    x = x0 + (row * _FINE + _FINE // 2 - y0) * (x1 - x0) // (y1 - y0)
    column = _first_centre(x, n)
    # Every sample from the crossing rightwards is wound around once more; the column beyond the last takes crossings right of the image.
    turns = np.zeros(n * (n + 1), dtype=np.int8)
    np.add.at(turns, row * (n + 1) + column, direction[edge].astype(np.int8))
    inside = np.cumsum(turns.reshape(n, n + 1), axis=1, dtype=np.int8)[:, :n] != 0
    rows = inside.view(np.uint8).reshape(size, _SAMPLES, n).sum(axis=1, dtype=np.uint8)
    covered = rows.reshape(size, size, _SAMPLES).sum(axis=2, dtype=np.int64)
    return ((covered * 255 + _SAMPLES**2 // 2) // _SAMPLES**2).astype(np.uint8)


def _first_centre(position: Int64[np.ndarray, " n"], n: int) -> Int64[np.ndarray, " n"]:
    """Index of the first sample whose centre is at or beyond `position`, kept within 0…n."""
    return np.clip(-((_FINE // 2 - position) // _FINE), 0, n)
