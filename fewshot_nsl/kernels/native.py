"""Kernels compiled for this processor (the C++ files beside), float32 and float64."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.errors import KernelError
from fewshot_nsl.kernels.kernels import Dense

_MANY = 8
"""Input channels from which on they fill the processor's vectors; with fewer, the output channels do."""


class NativeKernels:
    """See `Kernels`. A place is one byte: 0 1 above, 2 3 below.

    Args:
        library: what `build_native` made.

    Raises:
        KernelError: it is damaged.
    """

    def __init__(self, library: Path) -> None:
        try:
            torch.ops.load_library(library)
        except OSError as error:
            raise KernelError(f"{library} cannot be loaded: {error}; delete it, or use --engine plain") from error
        self._ops = torch.ops.fewshot_nsl_kernels

    def pool(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        return self._ops.pool(z)

    def unpool(self, g: Tensor, place: Tensor, size: tuple[int, int], dense: Dense | None = None) -> Tensor:
        """See `Kernels`."""
        return self._ops.unpool(g, place, *size, *(dense or (None, None, None)))

    def pick(self, u: Tensor, place: Tensor) -> Tensor:
        """See `Kernels`."""
        return self._ops.pick(u, place)

    def moments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        return self._ops.moments(z)

    def products(self, u: Tensor, z: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        return self._ops.products(u, z, mean)

    def affine_relu(self, m: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """See `Kernels`."""
        return self._ops.affine_relu(m, a, b)

    def affine_relu_backward(
        self, g: Tensor, m: Tensor, a: Tensor, b: Tensor, *, wanted: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `Kernels`."""
        of_m, of_a, of_b = self._ops.affine_relu_backward(g, m, a, b, wanted)
        return (of_m, of_a, of_b) if wanted else (of_m, None, None)

    def affine_relu_double(
        self, incoming: tuple[Tensor, Tensor, Tensor], g: Tensor, m: Tensor, a: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernels`."""
        return self._ops.affine_relu_double(*incoming, g, m, a, b)

    def conv_pool(self, x: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        if weight.shape[1] < _MANY:
            return self._ops.first_pool(x, weight, groups)
        return self.pool(functional.conv2d(x, weight, padding=1, groups=groups))

    def conv_pick(self, x: Tensor, weight: Tensor, place: Tensor, groups: int) -> Tensor:
        """See `Kernels`."""
        pick = self._ops.first_pick if weight.shape[1] < _MANY else self._ops.output_at_places
        return pick(x, weight, place, groups)

    def conv_backward(
        self, g: Tensor, place: Tensor, x: Tensor, weight: Tensor, groups: int, *, of_input: bool, of_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Kernels`."""
        to_weight = self._ops.first_weight if weight.shape[1] < _MANY else self._ops.weight_at_places
        return (
            self._ops.input_at_places(g, place, weight, groups, *x.shape[2:]) if of_input else None,
            to_weight(g, place, x, groups) if of_weight else None,
        )
