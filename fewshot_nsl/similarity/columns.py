"""What each kernel tap sees at every output location: the columns that a convolution contracts with its kernel."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError

Size2 = int | tuple[int, int]
Tap = tuple[slice, slice, slice]
"""Selects, from a padded input `[n, H, W, c]`, what one tap sees: `[n, h_out, w_out, c]`."""


class Extent(NamedTuple):
    """What a window covers, and how far apart two windows are."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]


def output_size(input: Sequence[int], padding: Sequence[int], extent: Extent) -> tuple[int, int]:
    """Rows and columns of windows in an input of this height and width.

    Raises:
        ConfigurationError: the padded input is smaller than the dilated kernel.
    """
    padded = [size + 2 * more for size, more in zip(input, padding, strict=True)]
    rows, columns = (
        (size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(padded, extent.kernel, extent.stride, extent.dilation, strict=True)
    )
    if rows < 1 or columns < 1:
        raise ConfigurationError(
            f"padded input of {tuple(padded)} pixels: expected at least that of a {extent.kernel} kernel at dilation {extent.dilation}"
        )
    return rows, columns


def pad_channels_last(input: Float[Tensor, "n c h w"], padding: Sequence[int]) -> Float[Tensor, "n H W c"]:
    """The input with zeros around it, channels last so that a location's channels lie together."""
    rows, columns = padding
    return functional.pad(input.permute(0, 2, 3, 1), (0, 0, columns, columns, rows, rows)).contiguous()


def windows(padded: Float[Tensor, "n H W c"], extent: Extent, rows: slice, width: int) -> Float[Tensor, "n h w kh kw c"]:
    """A view of the windows in these rows of the output, `width` in each."""
    n, _, _, c = padded.shape
    (kh, kw), (stride_h, stride_w), (dilation_h, dilation_w) = extent
    image, row, column, channel = padded.stride()
    return padded.as_strided(
        (n, rows.stop - rows.start, width, kh, kw, c),
        (image, row * stride_h, column * stride_w, row * dilation_h, column * dilation_w, channel),
        padded.storage_offset() + rows.start * stride_h * row,
    )


def taps_of(extent: Extent, height: int, width: int) -> list[Tap]:
    """Where each tap looks for an output of this size, in row-major order."""
    (kh, kw), (stride_h, stride_w), (dilation_h, dilation_w) = extent
    starts = [(i * dilation_h, j * dilation_w) for i in range(kh) for j in range(kw)]
    down, across = stride_h * (height - 1) + 1, stride_w * (width - 1) + 1
    return [(slice(None), slice(i, i + down, stride_h), slice(j, j + across, stride_w)) for i, j in starts]


def pair(value: Size2) -> tuple[int, int]:
    """One number for both directions, or a pair as it is."""
    return value if isinstance(value, tuple) else (value, value)
