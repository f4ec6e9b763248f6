"""The formula of neural similarity, as a function of tensors.

Shape alphabet: `n` images, `c` input channels, `o` output channels, `h w` sizes, `K` kernel taps in row-major order.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.columns import Size2, WeightedColumns, pad_channels_last, stacked_columns, taps_of

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
    a dynamic one a copy of the input for each tap.

    Args:
        input: images or feature maps.
        weight: kernels, `K = kh * kw` taps each.
        similarity: M; its rows belong to kernel taps and its columns to input taps. Static, one for all: `[K]` (the diagonal) or `[K, K]`.
            Dynamic, one per output location: `[n, K, h_out, w_out]` or `[n, K, K, h_out, w_out]`, where n, h_out and w_out may each be 1.
        bias: added to every output location.
        stride: as in `torch.nn.functional.conv2d`.
        padding: zeros added on each side.
        dilation: as in `torch.nn.functional.conv2d`.
        groups: as in `torch.nn.functional.conv2d`; all groups share M.

    Raises:
        ConfigurationError: `similarity` has none of these shapes.
    """
    taps = weight.shape[2] * weight.shape[3]
    if similarity.shape in {(taps,), (taps, taps)}:
        return functional.conv2d(input, combine(weight, similarity), bias, stride, padding, dilation, groups)
    padded = pad_channels_last(input, padding)
    columns = taps_of(padded, (weight.shape[2], weight.shape[3]), stride, dilation)
    n, h, w, _ = padded[columns[0]].shape
    _check_dynamic(similarity, taps, (n, h, w))
    if similarity.dim() == 4:
        patches = WeightedColumns.apply(padded, similarity.permute(0, 2, 3, 1).expand(n, h, w, taps), columns)
    else:
        patches = similarity.permute(0, 3, 4, 1, 2) @ stacked_columns(padded, columns)
    output = _contract(patches, weight, groups)
    return output if bias is None else output + bias[:, None, None]


def combine(weight: Float[Tensor, "o c kh kw"], similarity: Float[Tensor, "*similarity"]) -> Float[Tensor, "o c kh kw"]:
    """The one kernel `M' w` that equals kernel and static similarity together (Liu et al. 2019, section 3.2)."""
    kernel = weight.flatten(2)
    kernel = kernel * similarity if similarity.dim() == 1 else kernel @ similarity
    return kernel.view_as(weight)


def _contract(patches: Float[Tensor, "n h w K c"], weight: Tensor, groups: int) -> Float[Tensor, "n o h w"]:
    """One matrix product over taps and channels; the result lies in memory channels last."""
    n, h, w, taps, c = patches.shape
    if groups == 1:
        kernel = weight.permute(2, 3, 1, 0).reshape(taps * c, -1)
        return (patches.reshape(-1, taps * c) @ kernel).view(n, h, w, -1).permute(0, 3, 1, 2)
    grouped = patches.view(n * h * w, taps, groups, c // groups).permute(2, 0, 1, 3).flatten(2)
    kernels = weight.view(groups, -1, c // groups, taps).permute(0, 3, 2, 1).flatten(1, 2)
    return (grouped @ kernels).permute(1, 0, 2).reshape(n, h, w, -1).permute(0, 3, 1, 2)


def _check_dynamic(similarity: Tensor, taps: int, locations: tuple[int, int, int]) -> None:
    shape = tuple(similarity.shape)
    square = similarity.dim() in (4, 5) and set(shape[1:-2]) == {taps}
    if square and all(got in (1, full) for got, full in zip((shape[0], *shape[-2:]), locations, strict=True)):
        return
    n, h, w = locations
    raise ConfigurationError(
        f"similarity has shape {list(shape)}: expected [{taps}] or [{taps}, {taps}] (static), or [{n}, {taps}, {h}, {w}] or "
        f"[{n}, {taps}, {taps}, {h}, {w}] (dynamic; {n}, {h} and {w} may each be 1)"
    )
