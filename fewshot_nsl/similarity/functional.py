"""The formula of neural similarity, as a function of tensors.

Shape alphabet: `n` images, `c` input channels, `o` output channels, `h w` sizes, `K` kernel taps in row-major order.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.columns import Extent, Size2, output_size, pair
from fewshot_nsl.similarity.operator import DynamicConv2d, dynamic_conv2d

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def similarity_conv2d(
    input: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "o c_per_group kh kw"],
    similarity: Float[Tensor, "*similarity"],
    bias: Float[Tensor, " o"] | None = None,
    stride: Size2 = 1,
    padding: Size2 = 0,
    dilation: Size2 = 1,
    groups: int = 1,
) -> Float[Tensor, "n o h_out w_out"]:
    """Convolve with the similarity `w' M x` in place of the inner product `w' x` (Liu et al. 2019, eq. 2).

        y[n, o, p] = sum_c sum_i sum_j  weight[o, c, i] M[i, j] input[n, c, p * stride + j * dilation - padding]

    The input counts as zero outside its borders. Twice differentiable in every argument. Memory: a static similarity costs a second weight;
    a dynamic one a few megabytes.

    Args:
        input: images or feature maps.
        weight: kernels, `K = kh * kw` taps each.
        similarity: M; its rows belong to kernel taps and its columns to input taps. Static, one for all: `[K]` (the diagonal) or `[K, K]`,
            or with a block for each input channel `[c, K, K]`.
            Dynamic, one per output location: `[n, K, h_out, w_out]` or `[n, K, K, h_out, w_out]`, where n, h_out and w_out may each be 1.
        bias: added to every output location.
        stride: as in `torch.nn.functional.conv2d`.
        padding: zeros added on each side.
        dilation: as in `torch.nn.functional.conv2d`.
        groups: as in `torch.nn.functional.conv2d`; all groups share M.

    Raises:
        ConfigurationError: `similarity` has none of these shapes; or, if dynamic, input, weight and similarity do not fit.
    """
    taps = weight.shape[2] * weight.shape[3]
    static = {1: (taps,), 2: (taps, taps), 3: (input.shape[1], taps, taps)}
    if similarity.shape == static.get(similarity.dim()):
        return functional.conv2d(input, combine(weight, similarity, groups), bias, stride, padding, dilation, groups)
    geometry = pair(stride), pair(padding), pair(dilation)
    height, width = output_size(input.shape[2:], geometry[1], Extent((weight.shape[2], weight.shape[3]), geometry[0], geometry[2]))
    _check_dynamic(similarity, taps, (input.shape[0], height, width))
    similarity = similarity.expand(input.shape[0], *similarity.shape[1:-2], height, width)
    factors = [_autocast(factor) for factor in (input, weight, similarity)]
    if len({factor.dtype for factor in factors}) > 1 or input.shape[1] != groups * weight.shape[1]:
        got = ", ".join(f"{factor.dtype} {list(factor.shape)}" for factor in factors)
        raise ConfigurationError(f"input, weight and similarity are {got}: expected one dtype, and input channels = {groups} x weight's")
    # To a compiler the operator is one node; only the Function has the derivatives that torch.func asks for.
    compute = dynamic_conv2d if torch.compiler.is_compiling() else DynamicConv2d.apply
    output: Tensor = compute(*factors, *geometry, groups)
    return output if bias is None else output + bias.to(output.dtype)[:, None, None]


def combine(
    weight: Float[Tensor, "o c_per_group kh kw"], similarity: Float[Tensor, "*similarity"], groups: int = 1
) -> Float[Tensor, "o c_per_group kh kw"]:
    """The one kernel `M' w` that equals kernel and static similarity together (Liu et al. 2019, section 3.2)."""
    kernel = weight.flatten(2)
    if similarity.dim() == 1:
        kernel = kernel * similarity
    elif similarity.dim() == 2:
        kernel = kernel @ similarity
    else:
        blocks = similarity.unflatten(0, (groups, -1))  # a group's kernels meet the group's channels
        kernel = torch.einsum("goci,gcij->gocj", kernel.unflatten(0, (groups, -1)), blocks)
    return kernel.reshape(weight.shape)


def _autocast(factor: Tensor) -> Tensor:
    """In the precision that torch's own convolutions would compute in."""
    kind = factor.device.type
    takes_part = torch.is_autocast_enabled(kind) and factor.dtype != torch.float64
    return factor.to(torch.get_autocast_dtype(kind)) if takes_part else factor


def _check_dynamic(similarity: Tensor, taps: int, locations: tuple[int, int, int]) -> None:
    shape = tuple(similarity.shape)
    square = similarity.dim() in (4, 5) and set(shape[1:-2]) == {taps}
    if square and all(got in (1, full) for got, full in zip((shape[0], *shape[-2:]), locations, strict=True)):
        return
    n, h, w = locations
    raise ConfigurationError(
        f"similarity has shape {list(shape)}: expected [{taps}], [{taps}, {taps}] or [c, {taps}, {taps}] (static), "
        f"or [{n}, {taps}, {h}, {w}] or [{n}, {taps}, {taps}, {h}, {w}] (dynamic; {n}, {h} and {w} may each be 1)"
    )
