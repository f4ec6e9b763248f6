from itertools import product
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import similarity_conv2d
from fewshot_nsl.similarity.functional import combine

SUBSETS = [some for some in product((True, False), repeat=3) if any(some)]
KINDS = ("static diagonal", "static full", "dynamic diagonal", "dynamic full")


class Geometry(NamedTuple):
    kernel: tuple[int, int] = (3, 3)
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = False


GEOMETRIES = [
    Geometry(),
    Geometry(padding=1, bias=True),
    Geometry(stride=2, padding=1),
    Geometry(dilation=2, padding=2),
    Geometry(groups=2, padding=1, bias=True),
    Geometry(kernel=(2, 2)),
    Geometry(kernel=(1, 4), padding=(0, 2)),
    Geometry(kernel=(3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2, bias=True),
    Geometry(kernel=(1, 1), stride=2, bias=True),
]


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _output_size(size: tuple[int, int], g: Geometry) -> tuple[int, int]:
    kernel, stride, padding, dilation = g.kernel, _pair(g.stride), _pair(g.padding), _pair(g.dilation)
    height, width = ((size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1))
    return height, width


def _dense(similarity: Tensor, n: int, h: int, w: int) -> Tensor:
    """M `[n, K, K, h, w]` of any of the four forms."""
    if similarity.dim() in (1, 4):
        similarity = torch.diag_embed(similarity.movedim(1, -1) if similarity.dim() == 4 else similarity)
        similarity = similarity.movedim((-2, -1), (1, 2)) if similarity.dim() == 5 else similarity
    if similarity.dim() == 2:
        similarity = similarity[None, :, :, None, None]
    return similarity.expand(n, -1, -1, h, w)


def _naive(x: Tensor, weight: Tensor, similarity: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    """The sum of the definition, term by term."""
    n, _, height, width = x.shape
    o, c, kh, kw = weight.shape
    h, w = _output_size((height, width), g)
    stride, padding, dilation = _pair(g.stride), _pair(g.padding), _pair(g.dilation)
    m = _dense(similarity, n, h, w).tolist()
    pixels, kernels = x.tolist(), weight.flatten(2).tolist()
    y = torch.zeros(n, o, h, w, dtype=x.dtype)
    for image, out, row, column in product(range(n), range(o), range(h), range(w)):
        total = 0.0 if bias is None else float(bias[out])
        for channel, i, j in product(range(c), range(kh * kw), range(kh * kw)):
            r = row * stride[0] + (j // kw) * dilation[0] - padding[0]
            s = column * stride[1] + (j % kw) * dilation[1] - padding[1]
            if 0 <= r < height and 0 <= s < width:
                seen = pixels[image][out // (o // g.groups) * c + channel][r][s]
                total += kernels[out][channel][i] * m[image][i][j][row][column] * seen
        y[image, out, row, column] = total
    return y


def _arguments(kind: str, g: Geometry, size: tuple[int, int] = (5, 6), n: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    random = torch.Generator().manual_seed(1)
    h, w = _output_size(size, g)
    taps = g.kernel[0] * g.kernel[1]
    shape = {
        "static diagonal": (taps,),
        "static full": (taps, taps),
        "dynamic diagonal": (n, taps, h, w),
        "dynamic full": (n, taps, taps, h, w),
    }[kind]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    x, weight = draw(n, 2 * g.groups, *size), draw(2 * g.groups, 2, *g.kernel)
    return x, weight, draw(*shape), draw(2 * g.groups) if g.bias else None


def _compute(x: Tensor, weight: Tensor, similarity: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    return similarity_conv2d(x, weight, similarity, bias, g.stride, g.padding, g.dilation, g.groups)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("g", GEOMETRIES, ids=str)
def test_equals_the_sum_of_the_definition(kind: str, g: Geometry) -> None:
    x, weight, similarity, bias = _arguments(kind, g)
    torch.testing.assert_close(_compute(x, weight, similarity, bias, g), _naive(x, weight, similarity, bias, g), rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    g=st.builds(
        Geometry,
        kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
        padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
        dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
        groups=st.integers(1, 2),
        bias=st.booleans(),
    ),
    size=st.tuples(st.integers(5, 7), st.integers(5, 7)),
)
def test_equals_the_sum_of_the_definition_at_any_geometry(kind: str, g: Geometry, size: tuple[int, int]) -> None:
    x, weight, similarity, bias = _arguments(kind, g, size, n=1)
    torch.testing.assert_close(_compute(x, weight, similarity, bias, g), _naive(x, weight, similarity, bias, g), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["dynamic diagonal", "dynamic full"])
@pytest.mark.parametrize("ones", SUBSETS, ids=str)
def test_images_rows_and_columns_may_share_a_similarity(kind: str, ones: tuple[bool, bool, bool]) -> None:
    g = Geometry(kernel=(2, 3), padding=1, groups=2)
    x, weight, similarity, _ = _arguments(kind, g)
    for axis in (axis for axis, one in zip((0, -2, -1), ones, strict=True) if one):
        similarity = similarity.narrow(axis, 0, 1)
    torch.testing.assert_close(_compute(x, weight, similarity, None, g), _naive(x, weight, similarity, None, g), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("g", GEOMETRIES, ids=str)
def test_the_identity_gives_the_plain_convolution(g: Geometry) -> None:
    x, weight, _, bias = _arguments("static full", g)
    taps = g.kernel[0] * g.kernel[1]
    expected = functional.conv2d(x, weight, bias, g.stride, g.padding, g.dilation, g.groups)
    eye = torch.eye(taps, dtype=torch.float64)
    for similarity in (torch.ones(taps, dtype=torch.float64), eye, eye.diagonal()[None, :, None, None], eye[None, :, :, None, None]):
        torch.testing.assert_close(_compute(x, weight, similarity, bias, g), expected, rtol=1e-12, atol=1e-12)


def test_rows_of_the_similarity_are_kernel_taps_and_columns_input_taps() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    weight = torch.tensor([2.0, 3.0, 5.0, 7.0]).view(1, 1, 2, 2)
    similarity = torch.zeros(4, 4)
    similarity[1, 2] = 1  # the kernel's upper right number meets the window's lower left pixel
    assert similarity_conv2d(x, weight, similarity).flatten().tolist() == [3 * 3, 3 * 4, 3 * 6, 3 * 7]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", SUBSETS, ids=str)
def test_derivatives_in_every_set_of_arguments(kind: str, wanted: tuple[bool, bool, bool]) -> None:
    g = Geometry(kernel=(2, 2), stride=(1, 2), padding=1, groups=2)
    *tensors, _ = _arguments(kind, g, size=(2, 3), n=1)
    x, weight, similarity = (tensor.requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True))
    assert torch.autograd.gradcheck(lambda x, w, m: _compute(x, w, m, None, g), (x, weight, similarity))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", SUBSETS, ids=str)
def test_second_derivatives_in_every_set_of_arguments(kind: str, wanted: tuple[bool, bool, bool]) -> None:
    g = Geometry(kernel=(1, 2), stride=2, padding=(0, 1))
    *tensors, _ = _arguments(kind, g, size=(3, 3), n=1)
    x, weight, similarity = (tensor.requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True))
    assert torch.autograd.gradgradcheck(lambda x, w, m: _compute(x, w, m, None, g), (x, weight, similarity))


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_a_shared_similarity_and_of_the_bias(kind: str) -> None:
    g = Geometry(kernel=(2, 1), groups=2, bias=True)
    x, weight, similarity, bias = _arguments(kind, g, size=(3, 2))
    if kind.startswith("dynamic"):
        similarity = similarity[:1, ..., :1, :1]
    inputs = tuple(tensor.requires_grad_() for tensor in (x, weight, similarity, bias) if tensor is not None)
    assert torch.autograd.gradcheck(lambda x, w, m, b: _compute(x, w, m, b, g), inputs)
    assert torch.autograd.gradgradcheck(lambda x, w, m, b: _compute(x, w, m, b, g), inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [1, 2])
def test_what_lies_channels_last_stays_so(kind: str, groups: int) -> None:
    g = Geometry(padding=1, groups=groups)
    x, weight, similarity, _ = _arguments(kind, g)
    output = _compute(x.contiguous(memory_format=torch.channels_last), weight, similarity, None, g)
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "shape",
    [
        (8,),
        (9, 8),
        (9, 9, 9),
        (2, 9, 4, 4),
        (2, 8, 3, 4),
        (3, 9, 3, 4),
        (2, 9, 8, 3, 4),
        (2, 8, 9, 3, 4),
        (2, 9, 9, 3, 5),
        (2, 9, 9, 9, 3, 4),
    ],
    ids=str,
)
def test_a_similarity_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    x, weight, _, _ = _arguments("static full", Geometry())
    expected = r"expected \[9\] or \[9, 9\] \(static\), or \[2, 9, 3, 4\] or \[2, 9, 9, 3, 4\] \(dynamic; 2, 3 and 4 may each be 1\)"
    with pytest.raises(ConfigurationError, match=rf"similarity has shape \[{', '.join(map(str, shape))}\]: {expected}"):
        similarity_conv2d(x, weight, torch.zeros(shape, dtype=torch.float64))


def test_an_input_smaller_than_the_kernel_is_refused() -> None:
    x, weight, similarity, _ = _arguments("dynamic diagonal", Geometry())
    message = r"padded input of \(4, 5\) pixels: expected at least that of a \(3, 3\) kernel at dilation \(2, 2\)"
    with pytest.raises(ConfigurationError, match=message):
        similarity_conv2d(x[:, :, :4, :5], weight, similarity, dilation=2)


@pytest.mark.parametrize("similarity", [torch.randn(6, dtype=torch.float64), torch.randn(6, 6, dtype=torch.float64)], ids=["[K]", "[K, K]"])
def test_combine_is_the_transposed_similarity_times_the_kernel(similarity: Tensor) -> None:
    weight = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    dense = torch.diag(similarity) if similarity.dim() == 1 else similarity
    expected = torch.stack([dense.T @ kernel for kernel in weight.reshape(6, 6)]).view(2, 3, 2, 3)
    torch.testing.assert_close(combine(weight, similarity), expected)
