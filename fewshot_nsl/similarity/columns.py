"""What each kernel tap sees at every output location: the columns that a convolution contracts with its kernel."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError

Size2 = int | tuple[int, int]
Tap = tuple[slice, slice, slice]
"""Selects, from a padded input `[n, H, W, c]`, what one tap sees: `[n, h_out, w_out, c]`."""


def pad_channels_last(input: Float[Tensor, "n c h w"], padding: Size2) -> Float[Tensor, "n H W c"]:
    """The input with zeros around it, channels last so that a location's channels lie together."""
    rows, columns = pair(padding)
    return functional.pad(input.permute(0, 2, 3, 1), (0, 0, columns, columns, rows, rows))


def taps_of(padded: Float[Tensor, "n H W c"], kernel: tuple[int, int], stride: Size2, dilation: Size2) -> list[Tap]:
    """Where each tap looks, in row-major order.

    Raises:
        ConfigurationError: the padded input is smaller than the dilated kernel.
    """
    stride, dilation = pair(stride), pair(dilation)
    extent = [(size - d * (k - 1) - 1) // s + 1 for size, d, k, s in zip(padded.shape[1:3], dilation, kernel, stride, strict=True)]
    if min(extent) < 1:
        size = tuple(padded.shape[1:3])
        raise ConfigurationError(f"padded input of {size} pixels: expected at least that of a {kernel} kernel at dilation {dilation}")
    starts = [(i * dilation[0], j * dilation[1]) for i in range(kernel[0]) for j in range(kernel[1])]
    rows, columns = (s * (e - 1) + 1 for s, e in zip(stride, extent, strict=True))
    return [(slice(None), slice(i, i + rows, stride[0]), slice(j, j + columns, stride[1])) for i, j in starts]


def stacked_columns(padded: Float[Tensor, "n H W c"], taps: list[Tap]) -> Float[Tensor, "n h w K c"]:
    """All columns, one behind the other."""
    return torch.stack([padded[tap] for tap in taps], dim=3)


class WeightedColumns(torch.autograd.Function):
    """`stacked_columns(padded, taps) * weights[..., None]`, without the memory of intermediate products.

    Written by hand since this is where dynamic similarity spends its time: the tensors are K times the input's size.
    """

    @staticmethod
    def forward(padded: Tensor, weights: Tensor, taps: list[Tap]) -> Tensor:
        """Weights are `[n, h, w, K]`."""
        weighted = padded.new_empty(*weights.shape, padded.shape[3])
        for k, tap in enumerate(taps):
            torch.mul(padded[tap], weights[..., k, None], out=weighted[..., k, :])
        return weighted

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, list[Tap]], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        """Remember the factors; the products can be had again."""
        padded, weights, ctx.taps = inputs
        ctx.save_for_backward(padded, weights)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of both factors; differentiable again where the caller asked for a graph."""
        padded, weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            weighted = stacked_columns(padded, ctx.taps) * weights[..., None]
            wanted = [factor for factor, needed in zip((padded, weights), ctx.needs_input_grad, strict=False) if needed]
            gradients = iter(torch.autograd.grad(weighted, wanted, gradient, create_graph=True))
            first, second = (next(gradients) if needed else None for needed in ctx.needs_input_grad[:2])
            return first, second, None
        wanted_padded, wanted_weights, _ = ctx.needs_input_grad
        of_padded = torch.zeros_like(padded) if wanted_padded else None
        of_weights = torch.empty_like(weights) if wanted_weights else None
        for k, tap in enumerate(ctx.taps):
            if of_padded is not None:
                of_padded[tap].addcmul_(gradient[..., k, :], weights[..., k, None])
            if of_weights is not None:
                torch.sum(gradient[..., k, :] * padded[tap], dim=-1, out=of_weights[..., k])
        return of_padded, of_weights, None


def pair(value: Size2) -> tuple[int, int]:
    """One number for both directions, or a pair as it is."""
    return value if isinstance(value, tuple) else (value, value)
