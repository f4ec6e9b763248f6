"""Static neural similarity: one learned M for the layer (Liu et al. 2019, section 3.2)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.similarity.columns import Size2
from fewshot_nsl.similarity.functional import PaddingMode, combine
from fewshot_nsl.similarity.kernel_shape import KernelShape, ShapeThreshold
from fewshot_nsl.similarity.structure import Structure, get_structure


class StaticSimilarityConv2d(nn.Conv2d):
    """A convolution with a learned similarity M, the identity at the start: `y = (M' w) * x`.

    The parameter `M` holds the structure's free numbers: `[K]` for "diagonal", `[K * K]` for "unconstrained", `[K (K + 1) / 2]` for
    "symmetric" and "psd", with K = kh * kw. With a `shape_threshold` they are those of R, and the similarity is `D R` (see `KernelShape`).
    A forward pass costs what the plain convolution costs plus one product of M with the kernel; `fold()` removes that too.

    Raises:
        ConfigurationError: unknown `structure`, or a `shape_threshold` that cannot be.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2,
        stride: Size2 = 1,
        padding: Size2 | str = 0,
        dilation: Size2 = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        structure: str | Structure = "unconstrained",
        shape_threshold: ShapeThreshold = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype)
        self.structure = structure
        taps = self.weight[0, 0].numel()
        self.M = nn.Parameter(get_structure(structure).identity(taps).to(self.weight))
        self.kernel_shape = None if shape_threshold is None else KernelShape(taps, shape_threshold).to(self.weight)

    def similarity(self) -> Float[Tensor, "K K"]:
        """M written out, D included; rows belong to kernel taps, columns to input taps."""
        matrix = get_structure(self.structure).dense(self.M)
        return matrix if self.kernel_shape is None else self.kernel_shape()[:, None] * matrix

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h_out w_out"]:
        """Convolve `input` with `M' w`."""
        return self._conv_forward(input, self._kernel(), self.bias)

    def fold(self) -> nn.Conv2d:
        """The plain convolution of the same output, with weights of its own."""
        plain = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            self.groups,
            self.bias is not None,
            self.padding_mode,
            self.weight.device,
            self.weight.dtype,
        )
        with torch.no_grad():
            plain.weight.copy_(self._kernel())
            if self.bias is not None and plain.bias is not None:
                plain.bias.copy_(self.bias)
        return plain.train(self.training)

    def extra_repr(self) -> str:
        """`nn.Conv2d`'s, and the structure."""
        return f"{super().extra_repr()}, structure={self.structure}"

    def _kernel(self) -> Float[Tensor, "o c kh kw"]:
        weight = self.weight if self.kernel_shape is None else combine(self.weight, self.kernel_shape())
        return combine(weight, get_structure(self.structure).matrix(self.M))
