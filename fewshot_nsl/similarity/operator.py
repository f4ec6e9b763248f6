"""Dynamic similarity as a torch operator, so that autograd, `torch.func`, `torch.compile` and `torch.export` take it as one piece.

It is trilinear in input, weight and similarity: all of its derivatives, of any order, are itself and its gradient with some argument
replaced.
"""
# ruff: noqa: ARG001, ARG004 - torch says what these functions are given

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fewshot_nsl.similarity import tiled
from fewshot_nsl.similarity.columns import Extent, output_size
from fewshot_nsl.similarity.scratch import Geometry


@torch.library.custom_op("fewshot_nsl::dynamic_conv2d", mutates_args=())
def dynamic_conv2d(
    input: Tensor, weight: Tensor, similarity: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> Tensor:
    """`[n, o, h_out, w_out]`, channels last in memory.

    From input `[n, c, h, w]`, weight `[o, c / groups, kh, kw]` and similarity `[n, K, h_out, w_out]` or `[n, K, K, h_out, w_out]`.
    """
    return tiled.forward(input, weight, similarity, _geometry(stride, padding, dilation, groups)).permute(0, 3, 1, 2)


@torch.library.custom_op("fewshot_nsl::dynamic_conv2d_backward", mutates_args=())
def dynamic_conv2d_backward(
    gradient: Tensor,
    input: Tensor,
    weight: Tensor,
    similarity: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients in input, weight and similarity, from that in the output; one that is not `wanted` comes back empty."""
    return tiled.backward(gradient, input, weight, similarity, _geometry(stride, padding, dilation, groups), wanted)


def _geometry(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> Geometry:
    return Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)


@dynamic_conv2d.register_fake
def _(
    input: Tensor, weight: Tensor, similarity: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> Tensor:
    geometry = _geometry(stride, padding, dilation, groups)
    extent = Extent((weight.shape[2], weight.shape[3]), geometry.stride, geometry.dilation)
    height, width = output_size(input.shape[2:], geometry.padding, extent)
    return input.new_empty(input.shape[0], height, width, weight.shape[0]).permute(0, 3, 1, 2)


@dynamic_conv2d_backward.register_fake
def _(
    gradient: Tensor,
    input: Tensor,
    weight: Tensor,
    similarity: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    return tiled.empty_gradients(input, weight, similarity, wanted)


class DynamicConv2d(torch.autograd.Function):
    """`dynamic_conv2d`, differentiable in its three tensors any number of times, also by `torch.func`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor,
        similarity: Tensor,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> Tensor:
        """Compute."""
        output: Tensor = dynamic_conv2d(input, weight, similarity, stride, padding, dilation, groups)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Remember the factors; what the taps see can be had again."""
        ctx.save_for_backward(*inputs[:3])
        ctx.geometry = inputs[3:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of those that are needed."""
        needed = list(ctx.needs_input_grad[:3])
        gradients = _DynamicConv2dBackward.apply(gradient, *ctx.saved_tensors, *ctx.geometry, needed)
        return *(value if need else None for value, need in zip(gradients, needed, strict=True)), None, None, None, None


class _DynamicConv2dBackward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        gradient: Tensor,
        input: Tensor,
        weight: Tensor,
        similarity: Tensor,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradients: tuple[Tensor, Tensor, Tensor] = dynamic_conv2d_backward(
            gradient, input, weight, similarity, stride, padding, dilation, groups, wanted
        )
        return gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.geometry, ctx.wanted = inputs[4:8], inputs[8]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        """Of the gradient of `<gradient, f(input, weight, similarity)>`, which is linear in each: a direction takes its factor's place."""
        gradient, *factors = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * 4

        def add(place: int, value: Tensor) -> None:
            total = totals[place]
            totals[place] = value if total is None else total + value

        for place, direction in enumerate(directions):
            if direction is None or not ctx.wanted[place]:
                continue
            replaced = [*factors[:place], direction, *factors[place + 1 :]]
            if ctx.needs_input_grad[0]:
                add(0, DynamicConv2d.apply(*replaced, *ctx.geometry))
            others = [ctx.needs_input_grad[1 + other] and other != place for other in range(3)]
            if any(others):
                gradients = _DynamicConv2dBackward.apply(gradient, *replaced, *ctx.geometry, others)
                for other in (other for other in range(3) if others[other]):
                    add(1 + other, gradients[other])
        return *totals, None, None, None, None, None


# A compiled or exported graph holds the operators themselves.
dynamic_conv2d.register_autograd(DynamicConv2d.backward, setup_context=DynamicConv2d.setup_context)
dynamic_conv2d_backward.register_autograd(_DynamicConv2dBackward.backward, setup_context=_DynamicConv2dBackward.setup_context)


@dynamic_conv2d.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
    return torch.stack([dynamic_conv2d(*one) for one in _each(info, in_dims, arguments)]), 0


@dynamic_conv2d_backward.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    results = [dynamic_conv2d_backward(*one) for one in _each(info, in_dims, arguments)]
    return tuple(torch.stack(values) for values in zip(*results, strict=True)), (0, 0, 0)


def _each(info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]) -> Iterator[list[Any]]:
    """The arguments of one entry of the mapped axis after the other."""
    for index in range(info.batch_size):
        yield [value.select(dim, index) if isinstance(dim, int) else value for value, dim in zip(arguments, in_dims, strict=True)]
