"""Sparsity one: a single entry of M for each input channel, which makes a convolution a shift and a 1x1 convolution.

Liu et al. 2019, section 3.4: M is block-diagonal with blocks `[c, K, K]` of their own for each channel, one entry of each not zero. The
layer then equals that of Wu et al. 2018 (Shift), which has no weights and next to no arithmetic for the spatial part.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.columns import Size2
from fewshot_nsl.similarity.functional import PaddingMode, similarity_conv2d


class ShiftSimilarityConv2d(nn.Conv2d):
    """A convolution in which each input channel is seen by one tap: the entry of its block of `M`, `[c, K, K]`, of largest magnitude.

    All entries of `M` receive the gradient of the loss in their place (straight through), so that another one can become the largest.
    At the start channel c has the entry of the identity of tap c mod K.

    Raises:
        ConfigurationError: groups, or a padding other than a number of zeros.
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
    ) -> None:
        if groups != 1 or padding_mode != "zeros" or isinstance(padding, str):
            raise ConfigurationError(
                f"groups {groups}, padding {padding!r} with mode '{padding_mode}': a shift takes one group and a number of zeros"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype)
        taps = self.weight[0, 0].numel()
        channels = torch.arange(in_channels)
        start = torch.zeros(in_channels, taps, taps)
        start[channels, channels % taps, channels % taps] = 1
        self.M = nn.Parameter(start.to(self.weight))

    def similarity(self) -> Float[Tensor, "c K K"]:
        """One entry in each block."""
        chosen = self._chosen()
        kept = torch.zeros_like(self.M).flatten(1).scatter(1, chosen[:, None], 1.0).view_as(self.M)
        return kept * self.M.detach() + (self.M - self.M.detach())

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h_out w_out"]:
        """Convolve with the kernels that are left."""
        return similarity_conv2d(
            input,
            self.weight,
            self.similarity(),
            self.bias,
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
        )

    def fold(self) -> nn.Sequential:
        """The same output from `Shift` and a 1x1 `nn.Conv2d`: K times fewer operations and weights."""
        taps = self.weight[0, 0].numel()
        chosen = self._chosen()
        row, column = chosen.div(taps, rounding_mode="floor"), chosen % taps
        pointwise = nn.Conv2d(
            self.in_channels, self.out_channels, 1, bias=self.bias is not None, device=self.weight.device, dtype=self.weight.dtype
        )
        channels = torch.arange(self.in_channels, device=row.device)
        with torch.no_grad():
            kept = self.weight.flatten(2)[:, channels, row] * self.M[channels, row, column]
            pointwise.weight.copy_(kept[..., None, None])
            if self.bias is not None and pointwise.bias is not None:
                pointwise.bias.copy_(self.bias)
        shift = Shift(column, self.kernel_size, self.stride, self.padding, self.dilation)  # type: ignore[arg-type]
        return nn.Sequential(shift.to(self.weight), pointwise).train(self.training)

    def _chosen(self) -> Int64[Tensor, " c"]:
        """The place of the largest magnitude in each channel's block, flattened."""
        return self.M.detach().abs().flatten(1).argmax(1)


class Shift(nn.Module):
    """Move each channel of `[n, c, h, w]` to where one tap of a kernel would see it; nothing is learned (Wu et al. 2018).

    Computed as a depthwise convolution with a single one in each kernel, which torch does in the time of a copy or two.
    """

    kernels: Tensor

    def __init__(
        self, taps: Int64[Tensor, " c"], kernel_size: tuple[int, int], stride: Size2 = 1, padding: Size2 = 0, dilation: Size2 = 1
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = stride, padding, dilation
        kernels = functional.one_hot(taps, kernel_size[0] * kernel_size[1]).to(torch.get_default_dtype())
        self.register_buffer("kernels", kernels.view(-1, 1, *kernel_size))

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h_out w_out"]:
        """Zeros come in from outside."""
        return functional.conv2d(input, self.kernels, None, self.stride, self.padding, self.dilation, groups=len(self.kernels))
