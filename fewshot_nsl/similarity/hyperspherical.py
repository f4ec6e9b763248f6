"""Hyperspherical convolution: the cosine between a kernel and each window (Liu et al. 2017; Liu et al. 2019, section 3.3)."""

from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.similarity.columns import Extent, Size2, output_size, pad_channels_last, pair, taps_of

EPSILON = 1e-4
"""Added under both square roots, as in the authors' code: a window of zeros gives 0, and gradients stay finite."""


def hyperspherical_conv2d(
    input: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "o c kh kw"],
    stride: Size2 = 1,
    padding: Size2 = 0,
    dilation: Size2 = 1,
    *,
    kernel_norm: bool = True,
) -> Float[Tensor, "n o h_out w_out"]:
    """`<w, x> / (|w| |x|)` for every kernel w and window x of all channels: each output lies in [-1, 1].

    Without `kernel_norm` it is `<w, x> / |x|`, the authors' first form. The special case M = diag(1 / |w||x|) of neural similarity (Liu et
    al. 2019, section 3.1).
    """
    if kernel_norm:
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + EPSILON).sqrt()
    # The energy has one channel: summing shifted views of it is much cheaper than a convolution with ones. Half precision would lose much
    # of such a sum.
    extent = Extent((weight.shape[2], weight.shape[3]), pair(stride), pair(dilation))
    height, width = output_size(input.shape[2:], pair(padding), extent)
    padded = pad_channels_last(input.to(torch.promote_types(input.dtype, torch.float32)).square().sum(1, keepdim=True), pair(padding))
    views = (padded[tap] for tap in taps_of(extent, height, width))
    energy = reduce(torch.add, views).permute(0, 3, 1, 2)
    product = functional.conv2d(input, weight, None, stride, padding, dilation)
    return product / (energy + EPSILON).sqrt().to(product.dtype)


class HypersphericalConv2d(nn.Module):
    """`hyperspherical_conv2d` as a layer with `nn.Conv2d`'s initial weights; a cosine over the window has no bias and no groups."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: Size2 = 1,
        padding: Size2 = 0,
        dilation: Size2 = 1,
        *,
        kernel_norm: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation, self.kernel_norm = stride, padding, dilation, kernel_norm
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h_out w_out"]:
        """Cosines in [-1, 1]; times each kernel's norm without `kernel_norm`."""
        return hyperspherical_conv2d(input, self.weight, self.stride, self.padding, self.dilation, kernel_norm=self.kernel_norm)
