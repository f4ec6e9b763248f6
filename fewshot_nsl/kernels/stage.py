"""What follows a convolution in a stage, twice differentiable: 2x2 max-pooling, the moments for BN, its straight line and ReLU."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_nsl.kernels.kernels import Dense, Kernels
from fewshot_nsl.kernels.last_derivative import last_derivative


def pool(z: Float[Tensor, "n c h w"], kernels: Kernels) -> Float[Tensor, "n c h//2 w//2"]:
    """2x2 max-pooling."""
    return _Pool.apply(z, kernels)[0]


def pool_with_moments(
    z: Float[Tensor, "n c h w"], kernels: Kernels
) -> tuple[Float[Tensor, "n c h//2 w//2"], Float[Tensor, " c"], Float[Tensor, " c"]]:
    """2x2 max-pooling, and mean and biased variance of each channel of what is pooled: one gradient for all three."""
    pooled, mean, variance, _ = _PoolWithMoments.apply(z, kernels)
    return pooled, mean, variance


def affine_relu(m: Float[Tensor, "n c h w"], a: Float[Tensor, " c"], b: Float[Tensor, " c"], kernels: Kernels) -> Float[Tensor, "n c h w"]:
    """`relu(m * a + b)`."""
    output: Tensor = _AffineRelu.apply(m, a, b, kernels)
    return output


def conv_pool(
    images: Float[Tensor, "n c h w"], weight: Float[Tensor, "o i 3 3"], groups: int, kernels: Kernels
) -> Float[Tensor, "n o h//2 w//2"]:
    """Convolution (3x3, padding 1) and 2x2 max-pooling: derivatives are taken at the places of the largest alone."""
    formats = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (images, weight))
    return _ConvPool.apply(*formats, groups, kernels)[0]


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, kernels: Kernels) -> tuple[Tensor, Tensor]:
        pooled, place = kernels.pool(z)
        ctx.save_for_backward(place)
        ctx.mark_non_differentiable(place)
        ctx.kernels, ctx.size = kernels, tuple(z.shape[2:])
        return pooled, place

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Any) -> tuple[Tensor, None]:
        return _Unpool.apply(g, *ctx.saved_tensors, ctx.size, ctx.kernels), None


class _Unpool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, place: Tensor, size: tuple[int, int], kernels: Kernels) -> Tensor:
        ctx.save_for_backward(place)
        ctx.kernels = kernels
        return kernels.unpool(g, place, size)

    @staticmethod
    @last_derivative
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.kernels.pick(u, *ctx.saved_tensors), None, None, None


class _PoolWithMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, kernels: Kernels) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (pooled, place), (mean, variance) = kernels.pool(z), kernels.moments(z)
        ctx.save_for_backward(z, place, mean)
        ctx.mark_non_differentiable(place)
        ctx.kernels = kernels
        return pooled, mean, variance, place

    @staticmethod
    def backward(ctx: Any, g: Tensor, of_mean: Tensor, of_variance: Tensor, _: Any) -> tuple[Tensor, None]:
        z, place, mean = ctx.saved_tensors
        return _UnpoolWithMoments.apply(g, of_mean, of_variance, z, place, mean.detach(), ctx.kernels), None


class _UnpoolWithMoments(torch.autograd.Function):
    """`unpool(g) + of_mean / N + of_variance * 2 (z - mean) / N`, the mean being that of z."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, of_mean: Tensor, of_variance: Tensor, z: Tensor, place: Tensor, mean: Tensor, kernels: Kernels
    ) -> Tensor:
        ctx.save_for_backward(of_variance, z, place, mean)
        ctx.kernels = kernels
        count = z.numel() // z.shape[1]
        scale = 2 * of_variance / count
        return kernels.unpool(g, place, (z.shape[2], z.shape[3]), Dense(z, scale, of_mean / count - scale * mean))

    @staticmethod
    @last_derivative
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        of_variance, z, place, mean = ctx.saved_tensors
        count = z.numel() // z.shape[1]
        total, product = ctx.kernels.products(u, z, mean)
        scale = 2 * of_variance / count
        of_z = torch.addcmul((-scale * total / count)[:, None, None], u, scale[:, None, None])
        return ctx.kernels.pick(u, place), total / count, 2 * product / count, of_z, None, None, None


class _AffineRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, m: Tensor, a: Tensor, b: Tensor, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(m, a, b)
        ctx.kernels = kernels
        return kernels.affine_relu(m, a, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        # Where the line is fixed, its gradient is not asked for.
        wanted = any(ctx.needs_input_grad[1:3])
        return *_AffineReluBackward.apply(g, *ctx.saved_tensors, wanted, ctx.kernels), None


class _AffineReluBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, g: Tensor, m: Tensor, a: Tensor, b: Tensor, wanted: bool, kernels: Kernels
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        ctx.save_for_backward(g, m, a, b)
        ctx.kernels, ctx.wanted = kernels, wanted
        return kernels.affine_relu_backward(g, m, a, b, wanted=wanted)

    @staticmethod
    @last_derivative
    def backward(ctx: Any, u: Tensor, of_a: Tensor | None, of_b: Tensor | None) -> tuple[Tensor | None, ...]:
        g, m, a, b = ctx.saved_tensors
        if not ctx.wanted or of_a is None or of_b is None:
            return ctx.kernels.affine_relu_backward(u, m, a, b, wanted=False)[0], None, None, None, None, None
        return *ctx.kernels.affine_relu_double((u, of_a, of_b), g, m, a, b), None, None, None


class _ConvPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, groups: int, kernels: Kernels) -> tuple[Tensor, Tensor]:
        pooled, place = kernels.conv_pool(images, weight, groups)
        ctx.save_for_backward(images, weight, place)
        ctx.mark_non_differentiable(place)
        ctx.groups, ctx.kernels = groups, kernels
        return pooled, place

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        return *_ConvPoolBackward.apply(g, *ctx.saved_tensors, ctx.groups, ctx.kernels, *ctx.needs_input_grad[:2]), None, None


class _ConvPoolBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, g: Tensor, images: Tensor, weight: Tensor, place: Tensor, groups: int, kernels: Kernels, of_images: bool, of_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.save_for_backward(g, images, weight, place)
        ctx.set_materialize_grads(False)
        ctx.groups, ctx.kernels = groups, kernels
        return kernels.conv_backward(g, place, images, weight, groups, of_input=of_images, of_weight=of_weight)

    @staticmethod
    @last_derivative
    def backward(ctx: Any, to_images: Tensor | None, to_weight: Tensor | None) -> tuple[Tensor | None, ...]:
        g, images, weight, place = ctx.saved_tensors
        groups, kernels = ctx.groups, ctx.kernels
        of_g = of_images = of_weight = None
        if to_weight is not None:
            to_weight = to_weight.contiguous(memory_format=torch.channels_last)
            of_g = kernels.conv_pick(images, to_weight, place, groups)
            if ctx.needs_input_grad[1]:
                of_images, _ = kernels.conv_backward(g, place, images, to_weight, groups, of_input=True, of_weight=False)
        if to_images is not None:
            other = kernels.conv_pick(to_images, weight, place, groups)
            of_g = other if of_g is None else of_g.add_(other)
            if ctx.needs_input_grad[2]:
                _, of_weight = kernels.conv_backward(g, place, to_images, weight, groups, of_input=False, of_weight=True)
        return of_g, of_images, of_weight, None, None, None, None, None
