import pytest
import torch

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import scratch as module
from fewshot_nsl.similarity.columns import windows
from fewshot_nsl.similarity.scratch import Geometry, Scratch

PLAIN = Geometry((1, 1), (1, 1), (1, 1), 1)


def _scratch(tile_bytes: int, monkeypatch: pytest.MonkeyPatch, *, n: int = 5, geometry: Geometry = PLAIN) -> Scratch:
    """5 images of 2 channels and 6x7 pixels, a 3x3 kernel: a row of what the taps see is of 7 * 2 * 9 * 4 = 504 bytes at stride 1."""
    monkeypatch.setitem(module._TILE_BYTES, "cpu", tile_bytes)
    return Scratch(torch.arange(n * 84.0).view(n, 2, 6, 7), torch.zeros(3, 2, 3, 3), geometry)


@pytest.mark.parametrize(
    ("tile_bytes", "images", "rows"),
    [
        (1, [1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]),
        (504, [1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]),
        (4 * 504, [1, 1, 1, 1, 1], [4, 2]),
        (6 * 504, [1, 1, 1, 1, 1], [6]),
        (11 * 504, [1, 1, 1, 1, 1], [6]),
        (12 * 504, [2, 2, 1], [6]),
        (10**9, [5], [6]),
    ],
)
def test_a_tile_is_some_images_or_some_rows_of_one(
    tile_bytes: int, images: list[int], rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = _scratch(tile_bytes, monkeypatch)
    for blocks, expected, total in ((list(scratch.images()), images, 5), (list(scratch.rows()), rows, 6)):
        assert [block.stop - block.start for block in blocks] == expected
        assert [i for block in blocks for i in range(block.start, block.stop)] == list(range(total))


@pytest.mark.parametrize("tile_bytes", [600, 5000, 20_000])
def test_what_the_taps_of_a_tile_see_fits(tile_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = _scratch(tile_bytes, monkeypatch)
    for images in scratch.images():
        padded = scratch.padded("padded", images)
        for rows in scratch.rows():
            assert scratch.windows("padded", padded, rows).numel() * 4 <= tile_bytes


@pytest.mark.parametrize("per_group", [1, 2])
def test_all_channels_of_all_groups_count(per_group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._TILE_BYTES, "cpu", 2 * 504)
    scratch = Scratch(torch.zeros(1, 2, 6, 7), torch.zeros(2, per_group, 3, 3), PLAIN._replace(groups=2 // per_group))
    assert len(list(scratch.rows())) == 3


def test_no_images_have_no_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(_scratch(1000, monkeypatch, n=0).images()) == []


def test_what_is_taken_twice_is_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = _scratch(1000, monkeypatch)
    large = scratch.take("a", (3, 4))
    assert scratch.take("a", (2, 3)).data_ptr() == large.data_ptr()
    assert scratch.take("b", (2, 3)).data_ptr() != large.data_ptr()
    assert scratch.take("a", (5, 4)).shape == (5, 4)


def test_what_is_taken_has_the_inputs_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _scratch(1000, monkeypatch).take("a", (1,)).dtype == torch.float32
    double = Scratch(torch.zeros(1, 2, 6, 7, dtype=torch.float64), torch.zeros(3, 2, 3, 3, dtype=torch.float64), PLAIN)
    assert double.take("a", (1,)).dtype == torch.float64


def test_a_place_for_images_has_zeros_around(monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = _scratch(12 * 504, monkeypatch, geometry=PLAIN._replace(padding=(2, 1)))
    for images in scratch.images():
        padded = scratch.padded("padded", images)
        scratch.inside(padded).copy_(scratch._input[images])
        expected = torch.nn.functional.pad(scratch._input[images], (1, 1, 2, 2)).permute(0, 2, 3, 1)
        assert torch.equal(padded, expected)
        assert padded.is_contiguous()


@pytest.mark.parametrize("geometry", [PLAIN, Geometry((2, 1), (1, 0), (1, 2), 1)], ids=str)
@pytest.mark.parametrize("tile_bytes", [1, 1100, 12 * 504, 10**6])
def test_windows_are_those_of_the_rows_in_every_tile(tile_bytes: int, geometry: Geometry, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = _scratch(tile_bytes, monkeypatch, geometry=geometry)
    for images in scratch.images():
        padded = scratch.padded("padded", images)
        scratch.inside(padded).copy_(scratch._input[images])
        for rows in scratch.rows():
            expected = windows(padded, scratch.extent, rows, scratch.width)
            assert torch.equal(scratch.windows("padded", padded, rows), expected)


def test_an_input_smaller_than_the_kernel_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"padded input of \(4, 9\) pixels: expected at least that of a \(5, 3\) kernel"):
        Scratch(torch.zeros(1, 2, 2, 7), torch.zeros(3, 2, 5, 3), PLAIN)
