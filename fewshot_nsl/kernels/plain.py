"""Kernels made of torch's operators: on any device, in any dtype."""

import torch
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.kernels.kernels import Dense

_POOLING: tuple[list[int], ...] = ([2, 2], [2, 2], [0, 0], [1, 1])
"""Window, stride, padding, dilation."""


class PlainKernels:
    """See `Kernels`. A place is the index in the image, as `max_pool2d` returns it."""

    def pool(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        pooled, place = functional.max_pool2d(z, 2, return_indices=True)
        return pooled, place

    def unpool(self, g: Tensor, place: Tensor, size: tuple[int, int], dense: Dense | None = None) -> Tensor:
        """See `Kernels`."""
        g = g.contiguous(memory_format=torch.channels_last)
        # Of z its size alone is used.
        z = g.new_empty(*g.shape[:2], *size).contiguous(memory_format=torch.channels_last) if dense is None else dense.z
        scattered = torch.ops.aten.max_pool2d_with_indices_backward(g, z, *_POOLING, False, place)
        if dense is None:
            return scattered
        return scattered.add_(torch.addcmul(_column(dense.shift), z, _column(dense.scale)))

    def pick(self, u: Tensor, place: Tensor) -> Tensor:
        """See `Kernels`."""
        # Locations first, so that neighbouring numbers are neighbours in memory.
        table, rows = (tensor.permute(0, 2, 3, 1).flatten(1, 2) for tensor in (u, place))
        n, c, h, w = place.shape
        return table.gather(1, rows).view(n, h, w, c).permute(0, 3, 1, 2)

    def moments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        rows = _rows(z)
        mean = rows.mean(0)
        return mean, (rows - mean).square().mean(0)

    def products(self, u: Tensor, z: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        rows = _rows(u)
        return rows.sum(0), (rows * (_rows(z) - mean)).sum(0)

    def affine_relu(self, m: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """See `Kernels`."""
        return torch.addcmul(_column(b), m, _column(a)).relu_()

    def affine_relu_backward(
        self, g: Tensor, m: Tensor, a: Tensor, b: Tensor, *, wanted: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `Kernels`."""
        passed = _passed(g, m, a, b)
        sums = ((passed * m).sum((0, 2, 3)), passed.sum((0, 2, 3))) if wanted else (None, None)
        return passed * _column(a), *sums

    def affine_relu_double(
        self, incoming: tuple[Tensor, Tensor, Tensor], g: Tensor, m: Tensor, a: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernels`."""
        u, of_a, of_b = incoming
        passed = _passed(g, m, a, b)
        moved = torch.addcmul(_column(of_b), u, _column(a)).addcmul_(m, _column(of_a))
        return _passed(moved, m, a, b), passed * _column(of_a), (passed * u).sum((0, 2, 3))

    def conv_pool(self, x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        return self.pool(functional.conv2d(x, weight, padding=1, groups=groups))

    def conv_pick(self, x: Tensor, weight: Tensor, place: Tensor, groups: int) -> Tensor:
        """See `Kernels`."""
        return self.pick(functional.conv2d(x, weight, padding=1, groups=groups), place)

    def conv_backward(
        self, g: Tensor, place: Tensor, x: Tensor, weight: Tensor, groups: int, *, of_input: bool, of_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Kernels`."""
        of_output, ones = self.unpool(g, place, (x.shape[2], x.shape[3])), [1, 1]
        wanted = [of_input, of_weight, False]
        to_input, to_weight, _ = torch.ops.aten.convolution_backward(
            of_output, x, weight, None, ones, ones, ones, False, [0, 0], groups, wanted
        )
        return to_input, to_weight


def _column(vector: Tensor) -> Tensor:
    return vector[:, None, None]


def _rows(images: Tensor) -> Tensor:
    """`[n * h * w, c]`."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)


def _passed(g: Tensor, m: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """What ReLU lets pass of g."""
    return torch.ops.aten.threshold_backward(g, torch.addcmul(_column(b), m, _column(a)), 0)
