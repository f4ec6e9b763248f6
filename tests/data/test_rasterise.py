import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fewshot_nsl.data.rasterise import PIXEL, rasterise

SIZE = 6
SAMPLES = 8


def _closed(*points: tuple[float, float]) -> np.ndarray:
    """The edges of a polygon with corners in pixels."""
    corners = (np.array(points) * PIXEL).astype(np.int64)
    return np.concatenate([corners, np.roll(corners, -1, axis=0)], axis=1)


def _oracle(edges: np.ndarray, size: int) -> np.ndarray:
    """Slow and obvious: for each sample, the turns of the edges that a ray to the left crosses."""
    n, step = size * SAMPLES, PIXEL // SAMPLES
    inside = np.zeros((n, n), dtype=bool)
    for row in range(n):
        for column in range(n):
            px, py = column * step + step // 2, row * step + step // 2
            turns = 0
            for x0, y0, x1, y1 in edges.tolist():
                if min(y0, y1) <= py < max(y0, y1) and x0 + (py - y0) * (x1 - x0) // (y1 - y0) <= px:
                    turns += 1 if y1 > y0 else -1
            inside[row, column] = turns != 0
    covered = inside.reshape(size, SAMPLES, size, SAMPLES).sum(axis=(1, 3))
    return (covered * 255 + 32) // 64


def test_a_square_fills_its_pixels() -> None:
    image = rasterise(_closed((1, 1), (3, 1), (3, 4), (1, 4)), SIZE)
    expected = np.zeros((SIZE, SIZE), dtype=np.uint8)
    expected[1:4, 1:3] = 255
    np.testing.assert_array_equal(image, expected)


def test_half_a_pixel_is_half_covered() -> None:
    assert rasterise(_closed((0, 0), (0.5, 0), (0.5, 1), (0, 1)), 1).tolist() == [[128]]


def test_a_contour_the_other_way_round_is_a_hole() -> None:
    outer, inner = _closed((0, 0), (6, 0), (6, 6), (0, 6)), _closed((2, 2), (4, 2), (4, 4), (2, 4))
    assert rasterise(np.concatenate([outer, inner]), SIZE)[2:4, 2:4].tolist() == [[255, 255], [255, 255]]  # wound around twice
    hole = inner[:, [2, 3, 0, 1]]
    assert rasterise(np.concatenate([outer, hole]), SIZE)[2:4, 2:4].tolist() == [[0, 0], [0, 0]]


def test_what_lies_outside_is_cut_off() -> None:
    assert (rasterise(_closed((-9, -9), (20, -9), (20, 20), (-9, 20)), SIZE) == 255).all()
    assert (rasterise(_closed((7, 0), (9, 0), (9, 6), (7, 6)), SIZE) == 0).all()
    assert (rasterise(_closed((-3, 0), (-1, 0), (-1, 6), (-3, 6)), SIZE) == 0).all()


def test_nothing_to_draw() -> None:
    assert (rasterise(np.empty((0, 4), dtype=np.int64), SIZE) == 0).all()


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.int64, st.tuples(st.integers(3, 7), st.just(2)), elements=st.integers(-PIXEL, 4 * PIXEL)))
def test_any_polygon_is_as_the_oracle_draws_it(corners: np.ndarray) -> None:
    edges = np.concatenate([corners, np.roll(corners, -1, axis=0)], axis=1)
    np.testing.assert_array_equal(rasterise(edges, 3), _oracle(edges, 3))


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (2, 3)])
def test_a_shift_by_whole_pixels_moves_the_image(shift: tuple[int, int]) -> None:
    edges = _closed((0.3, 0.2), (2.7, 0.9), (1.1, 2.6))
    moved = rasterise(edges + np.tile(np.array(shift) * PIXEL, 2), SIZE)
    np.testing.assert_array_equal(moved, np.roll(rasterise(edges, SIZE), shift[::-1], axis=(0, 1)))
