"""Convolution whose second derivative is made of convolutions: torch's own swaps images and channels, and is several times slower."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.kernels.last_derivative import last_derivative


class Geometry(NamedTuple):
    """`functional.conv2d`'s arguments of these names."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def convolution(
    input: Float[Tensor, "n c h w"], weight: Float[Tensor, "o i kh kw"], geometry: Geometry
) -> Float[Tensor, "n o h_out w_out"]:
    """`functional.conv2d`, channels last; twice differentiable in both tensors, and refused a third time."""
    output: Tensor = _Convolution.apply(
        input.contiguous(memory_format=torch.channels_last), weight.contiguous(memory_format=torch.channels_last), geometry
    )
    return output


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = geometry
        return functional.conv2d(input, weight, None, *geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        return *_Backward.apply(gradient, *ctx.saved_tensors, ctx.geometry, *ctx.needs_input_grad[:2]), None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, input: Tensor, weight: Tensor, geometry: Geometry, of_input: bool, of_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(gradient, input, weight)
        ctx.set_materialize_grads(False)
        ctx.geometry = geometry
        return _backward(gradient, input, weight, geometry, of_input, of_weight)

    @staticmethod
    @last_derivative
    def backward(ctx: Any, to_input: Tensor | None, to_weight: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, images, weight = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        of_gradient = of_input = of_weight = None
        if to_weight is not None:
            to_weight = to_weight.contiguous(memory_format=torch.channels_last)
            of_gradient = functional.conv2d(images, to_weight, None, *geometry)
            if ctx.needs_input_grad[1]:
                of_input, _ = _backward(gradient, images, to_weight, geometry, True, False)
        if to_input is not None:
            to_input = to_input.contiguous(memory_format=torch.channels_last)
            other = functional.conv2d(to_input, weight, None, *geometry)
            of_gradient = other if of_gradient is None else of_gradient.add_(other)
            if ctx.needs_input_grad[2]:
                _, of_weight = _backward(gradient, to_input, weight, geometry, False, True)
        return of_gradient, of_input, of_weight, None, None, None


def _backward(
    gradient: Tensor, input: Tensor, weight: Tensor, geometry: Geometry, of_input: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    stride, padding, dilation, groups = geometry
    wanted = [of_input, of_weight, False]
    of_input_, of_weight_, _ = torch.ops.aten.convolution_backward(
        gradient, input, weight, None, stride, padding, dilation, False, [0, 0], groups, wanted
    )
    return of_input_, of_weight_
