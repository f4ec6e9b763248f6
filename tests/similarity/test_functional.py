import re
from itertools import product
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import scratch, similarity_conv2d
from fewshot_nsl.similarity.functional import combine
from fewshot_nsl.similarity.operator import dynamic_conv2d, dynamic_conv2d_backward

SUBSETS = [some for some in product((True, False), repeat=3) if any(some)]
KINDS = ("static diagonal", "static full", "static blocks", "dynamic diagonal", "dynamic full")
DYNAMIC = ("dynamic diagonal", "dynamic full")


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
    """M `[n, K, K, h, w]` of any form that all channels share."""
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
    blocks = similarity if similarity.dim() == 3 else [similarity]
    m = [_dense(block, n, h, w).tolist() for block in blocks]
    pixels, kernels = x.tolist(), weight.flatten(2).tolist()
    y = torch.zeros(n, o, h, w, dtype=x.dtype)
    for image, out, row, column in product(range(n), range(o), range(h), range(w)):
        total = 0.0 if bias is None else float(bias[out])
        for channel, i, j in product(range(c), range(kh * kw), range(kh * kw)):
            r = row * stride[0] + (j // kw) * dilation[0] - padding[0]
            s = column * stride[1] + (j % kw) * dilation[1] - padding[1]
            if 0 <= r < height and 0 <= s < width:
                source = out // (o // g.groups) * c + channel
                block = m[source if len(m) > 1 else 0]
                total += kernels[out][channel][i] * block[image][i][j][row][column] * pixels[image][source][r][s]
        y[image, out, row, column] = total
    return y


def _arguments(kind: str, g: Geometry, size: tuple[int, int] = (5, 6), n: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    random = torch.Generator().manual_seed(1)
    h, w = _output_size(size, g)
    taps = g.kernel[0] * g.kernel[1]
    shape = {
        "static diagonal": (taps,),
        "static full": (taps, taps),
        "static blocks": (2 * g.groups, taps, taps),
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


@pytest.mark.parametrize("kind", DYNAMIC)
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
    *tensors, _ = _arguments(kind, g, size=(1, 3), n=1)
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
    assert torch.autograd.gradgradcheck(lambda x, w, m, b: _compute(x, w, m, b, g), inputs, fast_mode=True)


def test_a_block_is_that_of_its_channel() -> None:
    g = Geometry(groups=2, padding=1)
    x, weight, similarity, _ = _arguments("static blocks", g)
    whole = _compute(x, weight, similarity, None, g)
    for group, output, source in product(range(2), range(2), range(2)):
        channel = 2 * group + source
        alone = torch.zeros_like(weight)
        alone[2 * group + output, source] = weight[2 * group + output, source]
        shared = _compute(x, alone, similarity[channel], None, g)
        whole = whole - shared
    assert whole.abs().max() < 1e-12


@pytest.mark.parametrize("groups", [1, 2])
def test_equal_blocks_are_one_shared_by_all_channels(groups: int) -> None:
    g = Geometry(kernel=(2, 3), groups=groups)
    x, weight, similarity, _ = _arguments("static full", g)
    blocks = similarity.expand(2 * groups, 6, 6)
    torch.testing.assert_close(_compute(x, weight, blocks, None, g), _compute(x, weight, similarity, None, g), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [1, 2])
def test_what_is_no_number_stays_where_a_plain_convolution_puts_it(kind: str, groups: int) -> None:
    g = Geometry(kernel=(2, 3), padding=1, stride=(1, 2), groups=groups)
    x, weight, similarity, _ = _arguments(kind, g)
    x[0, 1, 2, 3], x[1, 0, 4, 0] = torch.nan, torch.nan
    expected = functional.conv2d(x, weight, None, g.stride, g.padding, g.dilation, g.groups).isnan()
    assert expected.any()
    assert not expected.all()
    assert torch.equal(_compute(x, weight, similarity, None, g).isnan(), expected)


@pytest.mark.parametrize("kind", DYNAMIC)
def test_a_window_without_it_is_finite_where_the_similarity_has_zeros(kind: str) -> None:
    g = Geometry(padding=1)
    x, weight, similarity, _ = _arguments(kind, g)
    similarity[:, ::2] = 0
    x[0, 1, 2, 3] = torch.inf
    unseen = functional.conv2d(x, weight, None, padding=1).isfinite()
    assert _compute(x, weight, similarity, None, g)[unseen].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_images_give_no_outputs_and_no_gradient(kind: str) -> None:
    g = Geometry(kernel=(2, 3), padding=1, groups=2)
    *tensors, _ = _arguments(kind, g)
    x, weight, similarity = tensors
    for m in (similarity[:0], similarity[:1]) if kind in DYNAMIC else (similarity,):
        inputs = x[:0].detach().requires_grad_(), weight.detach().requires_grad_(), m.detach().requires_grad_()
        y = _compute(*inputs, None, g)
        assert y.shape == (0, 4, 6, 6)
        gradients = torch.autograd.grad(y.sum(), inputs)
        assert [gradient.shape for gradient in gradients] == [tensor.shape for tensor in inputs]
        assert not any(gradient.any() for gradient in gradients)


def _tile_bytes(tile: str, x: Tensor, g: Geometry) -> int:
    height, width = _output_size((x.shape[2], x.shape[3]), g)
    row = width * x.shape[1] * g.kernel[0] * g.kernel[1] * x.element_size()
    return {"two images": 2 * height * row, "one image": height * row, "three rows": 3 * row, "one row": row, "nothing": 0}[tile]


TILES = {"two images": (3, 1), "one image": (5, 1), "three rows": (5, 2), "one row": (5, 4), "nothing": (5, 4)}
"""Blocks of images, and of rows, in 5 images of 4 rows of output."""


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("kind", DYNAMIC)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_results_and_gradients_do_not_depend_on_the_tiles(
    tile: str, kind: str, groups: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = Geometry(kernel=(3, 2), stride=stride, padding=(1, 2), groups=groups)
    x, weight, similarity, _ = _arguments(kind, g, size=(4, 5) if stride == 1 else (7, 5), n=5)
    inputs = x.requires_grad_(), weight.requires_grad_(), similarity.requires_grad_()

    def results() -> tuple[Tensor, ...]:
        y = _compute(*inputs, None, g)
        first = torch.autograd.grad((y * y.detach().cos()).sum(), inputs, create_graph=True)
        second = torch.autograd.grad([(one * one.detach().sin()).sum() for one in first], inputs)
        return y, *first, *second

    def blocks() -> tuple[int, int]:
        walk = scratch.Scratch(x, weight, scratch.Geometry(_pair(stride), (1, 2), (1, 1), groups))
        return len(list(walk.images())), len(list(walk.rows()))

    assert blocks() == (1, 1)
    expected = results()
    monkeypatch.setitem(scratch._TILE_BYTES, "cpu", _tile_bytes(tile, x, g))
    assert blocks() == TILES[tile]
    for found, one in zip(results(), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("kind", DYNAMIC)
@pytest.mark.parametrize("ones", SUBSETS, ids=str)
def test_tiles_share_a_similarity_too(kind: str, ones: tuple[bool, bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    g = Geometry(kernel=(2, 2), groups=2)
    x, weight, similarity, _ = _arguments(kind, g, size=(4, 5), n=3)
    for axis in (axis for axis, one in zip((0, -2, -1), ones, strict=True) if one):
        similarity = similarity.narrow(axis, 0, 1)
    inputs = x.requires_grad_(), weight.requires_grad_(), similarity.detach().requires_grad_()

    def results() -> tuple[Tensor, ...]:
        y = _compute(*inputs, None, g)
        return y, *torch.autograd.grad(y.square().sum(), inputs)

    expected = results()
    monkeypatch.setitem(scratch._TILE_BYTES, "cpu", _tile_bytes("one row", x, g))
    for found, one in zip(results(), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-12, atol=1e-11)


def test_a_walk_holds_no_more_images_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scratch._TILE_BYTES, "cpu", 1 << 14)
    x, weight = torch.randn(1, 1, 64, 64), torch.randn(1, 1, 2, 2)
    walk = scratch.Scratch(x, weight, scratch.Geometry((32, 32), (0, 0), (1, 1), 1))  # few of the pixels are seen
    held: int = walk.padded("padded", slice(0, 1)).untyped_storage().nbytes()
    assert held == x.nbytes


@pytest.mark.parametrize("kind", DYNAMIC)
@pytest.mark.parametrize("groups", [1, 2])
def test_torch_finds_the_operator_in_order(kind: str, groups: int) -> None:
    g = Geometry(kernel=(1, 2), padding=1, groups=groups)
    x, weight, similarity, _ = _arguments(kind, g, size=(3, 3))
    inputs = x.requires_grad_(), weight.requires_grad_(), similarity.requires_grad_()
    gradient = torch.randn(_compute(*inputs, None, g).shape, dtype=torch.float64, requires_grad=True)
    geometry = [1, 1], [1, 1], [1, 1], groups
    # not "test_aot_dispatch_dynamic": its sizes are no numbers, which the checks of types in tests refuse
    checks = "test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static"
    torch.library.opcheck(dynamic_conv2d, (*inputs, *geometry), test_utils=checks)
    torch.library.opcheck(dynamic_conv2d_backward, (gradient, *inputs, *geometry, [True, True, True]), test_utils=checks)


@pytest.mark.parametrize("kind", DYNAMIC)
@pytest.mark.parametrize("mapped", SUBSETS, ids=str)
def test_torch_func_maps_over_every_set_of_arguments(kind: str, mapped: tuple[bool, bool, bool]) -> None:
    g = Geometry(kernel=(2, 2))
    *tensors, _ = _arguments(kind, g)
    several = [torch.stack([tensor, 2 - tensor, tensor.cos()]) if many else tensor for tensor, many in zip(tensors, mapped, strict=True)]

    def compute(x: Tensor, weight: Tensor, similarity: Tensor) -> Tensor:
        return _compute(x, weight, similarity, None, g)

    found = torch.func.vmap(compute, in_dims=tuple(0 if many else None for many in mapped))(*several)
    for index in range(3):
        one = [tensor[index] if many else tensor for tensor, many in zip(several, mapped, strict=True)]
        torch.testing.assert_close(found[index], compute(*one), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_torch_func_takes_the_gradient_and_maps_over_it(kind: str) -> None:
    g = Geometry(kernel=(2, 2), groups=2)
    *tensors, _ = _arguments(kind, g)
    inputs = tuple(tensor.requires_grad_() for tensor in tensors)

    def loss(x: Tensor, weight: Tensor, similarity: Tensor) -> Tensor:
        return _compute(x, weight, similarity, None, g).pow(2).sum()

    expected = torch.autograd.grad(loss(*inputs), inputs)
    detached = tuple(tensor.detach() for tensor in inputs)
    for found, one in zip(torch.func.grad(loss, argnums=(0, 1, 2))(*detached), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-12, atol=1e-12)
    several = tuple(torch.stack([tensor, tensor]) for tensor in detached)
    for found, one in zip(torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))(*several), expected, strict=True):
        torch.testing.assert_close(found, torch.stack([one, one]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_is_that_of_a_plain_convolution(kind: str, dtype: torch.dtype) -> None:
    g = Geometry(bias=True)
    x, weight, similarity, bias = (tensor.to(dtype) for tensor in _arguments(kind, g) if tensor is not None)
    with torch.autocast("cpu", torch.bfloat16):
        found, plain = _compute(x, weight, similarity, bias, g), functional.conv2d(x, weight, bias)
    assert found.dtype == plain.dtype
    torch.testing.assert_close(found.to(dtype), _compute(x, weight, similarity, bias, g), rtol=0.1, atol=0.3)


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
        (1, 9, 9),
        (2, 9, 8),
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
    expected = (
        f"similarity has shape {list(shape)}: expected [9], [9, 9] or [c, 9, 9] (static), "
        "or [2, 9, 3, 4] or [2, 9, 9, 3, 4] (dynamic; 2, 3 and 4 may each be 1)"
    )
    with pytest.raises(ConfigurationError, match=f"^{re.escape(expected)}$"):
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
