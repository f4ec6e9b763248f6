"""Memory that one tile of output locations after the other uses again."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fewshot_nsl.similarity.columns import Extent, output_size, windows

_TILE_BYTES = {"cpu": 10 << 20, "cuda": 256 << 20}
"""Of what the taps of a tile see: small enough for caches; on a GPU, enough to keep it busy."""


class Geometry(NamedTuple):
    """How a convolution moves over its input."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class Scratch:
    """Buffers for one walk over the tiles of a convolution: fresh memory costs more than what is written into it.

    A tile is some images with all their rows, or, where one image is too large, a block of rows of one image.
    """

    def __init__(self, input: Tensor, weight: Tensor, geometry: Geometry) -> None:
        self.extent = Extent((weight.shape[2], weight.shape[3]), geometry.stride, geometry.dilation)
        self.height, self.width = output_size(input.shape[2:], geometry.padding, self.extent)
        self._input, self._padding = input, geometry.padding
        row = max(1, self.width * input.shape[1] * weight[0, 0].numel() * input.element_size())
        self._rows = max(1, _TILE_BYTES.get(input.device.type, 256 << 20) // row)
        self._images = max(1, min(input.shape[0], self._rows // self.height))
        self._held: dict[str, Tensor] = {}
        self._windows: dict[tuple[str, int, int], Tensor] = {}

    def images(self) -> Iterator[slice]:
        """Blocks of images."""
        for start in range(0, len(self._input), self._images):
            yield slice(start, min(start + self._images, len(self._input)))

    def rows(self) -> Iterator[slice]:
        """Blocks of rows of the output within a block of images."""
        for start in range(0, self.height, self._rows):
            yield slice(start, min(start + self._rows, self.height))

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """Uninitialised, of this shape; what was taken under the same name before is overwritten."""
        size = torch.Size(shape).numel()
        if name not in self._held or len(self._held[name]) < size:
            self._held[name] = self._input.new_empty(size)
        return self._held[name][:size].view(shape)

    def padded(self, name: str, images: slice) -> Tensor:
        """Zeros `[n, H, W, c]` around a place for the block's images, channels last so that a location's channels lie together."""
        _, c, h, w = self._input.shape
        if name not in self._held:
            size = self._images * (h + 2 * self._padding[0]) * (w + 2 * self._padding[1]) * c
            self._held[name] = self._input.new_zeros(size)
        return self.take(name, (images.stop - images.start, h + 2 * self._padding[0], w + 2 * self._padding[1], c))

    def inside(self, padded: Tensor) -> Tensor:
        """The place in it, `[n, c, h, w]`."""
        (top, left), (_, _, h, w) = self._padding, self._input.shape
        return padded[:, top : top + h, left : left + w].permute(0, 3, 1, 2)

    def windows(self, name: str, padded: Tensor, rows: slice) -> Tensor:
        """The view `[n, h, w, kh, kw, c]` of the windows of these rows; made once for all tiles of one shape."""
        key = name, len(padded), rows.start
        if key not in self._windows:
            self._windows[key] = windows(padded, self.extent, rows, self.width)
        return self._windows[key]
