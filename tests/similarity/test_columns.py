import pytest
import torch

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.columns import Extent, output_size, pad_channels_last, pair, taps_of, windows

EXTENTS = [
    (Extent((3, 3), (1, 1), (1, 1)), (0, 0)),
    (Extent((3, 3), (2, 2), (1, 1)), (1, 1)),
    (Extent((2, 3), (1, 2), (2, 1)), (1, 0)),
    (Extent((1, 1), (3, 3), (1, 1)), (0, 2)),
]


@pytest.mark.parametrize(("extent", "padding"), EXTENTS, ids=str)
def test_windows_and_taps_are_those_of_torch(extent: Extent, padding: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 6, 7)
    padded = pad_channels_last(x, padding)
    height, width = output_size(x.shape[2:], padding, extent)
    unfolded = torch.nn.functional.unfold(x, extent.kernel, extent.dilation, padding, extent.stride)
    expected = unfolded.view(2, 3, *extent.kernel, height, width).permute(0, 4, 5, 2, 3, 1)
    assert torch.equal(windows(padded, extent, slice(0, height), width), expected)
    taps = [padded[tap] for tap in taps_of(extent, height, width)]
    assert torch.equal(torch.stack(taps, 3), expected.flatten(3, 4))


def test_windows_of_some_rows() -> None:
    extent = Extent((3, 2), (2, 1), (1, 2))
    padded = torch.randn(2, 9, 8, 3)
    every = windows(padded, extent, slice(0, 4), 6)
    assert torch.equal(windows(padded, extent, slice(1, 3), 6), every[:, 1:3])
    assert every.data_ptr() == padded.data_ptr()


def test_padding_puts_zeros_around() -> None:
    padded = pad_channels_last(torch.ones(1, 2, 3, 4), (1, 2))
    assert padded.shape == (1, 5, 8, 2)
    assert padded.sum() == 24
    assert padded.is_contiguous()


def test_an_input_smaller_than_the_kernel_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"padded input of \(4, 5\) pixels: expected at least that of a \(3, 3\) kernel at dilation"
    ):
        output_size((2, 3), (1, 1), Extent((3, 3), (1, 1), (2, 2)))


def test_pair() -> None:
    assert pair(2) == (2, 2)
    assert pair((1, 2)) == (1, 2)
