from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.similarity import HypersphericalConv2d, hyperspherical_conv2d, similarity_conv2d
from fewshot_nsl.similarity.hyperspherical import EPSILON


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _naive(x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """Window by window."""
    padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    kh, kw = weight.shape[2:]
    h, w = ((padded.shape[2 + d] - dilation[d] * (weight.shape[2 + d] - 1) - 1) // stride[d] + 1 for d in (0, 1))
    y = torch.zeros(len(x), len(weight), h, w, dtype=x.dtype)
    for n, o, row, column in product(range(len(x)), range(len(weight)), range(h), range(w)):
        top, left = row * stride[0], column * stride[1]
        window = padded[n, :, top : top + dilation[0] * kh : dilation[0], left : left + dilation[1] * kw : dilation[1]][:, :kh, :kw]
        norms = (window.square().sum() + EPSILON).sqrt() * (weight[o].square().sum() + EPSILON).sqrt()
        y[n, o, row, column] = (window * weight[o]).sum() / norms
    return y


@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (1, 1)])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [((1, 1), (0, 0), (1, 1)), ((2, 1), (1, 2), (1, 1)), ((1, 2), (2, 0), (2, 2))], ids=str
)
def test_equals_the_cosine_of_each_window(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    x, weight = _draw(2, 3, 6, 7), _draw(4, 3, *kernel)
    expected = _naive(x, weight, stride, padding, dilation)
    torch.testing.assert_close(hyperspherical_conv2d(x, weight, stride, padding, dilation), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1)),
        ((2, 3), (2, 1), (1, 2), (1, 1)),
        ((3, 2), (1, 2), (2, 0), (2, 2)),
        ((1, 1), (3, 3), (0, 0), (1, 1)),
    ],
    ids=str,
)
def test_without_the_kernels_norm_it_is_the_cosine_times_that_norm(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    x, weight = _draw(2, 3, 6, 7), _draw(4, 3, *kernel)
    norms = (weight.square().sum((1, 2, 3)) + EPSILON).sqrt()
    expected = _naive(x, weight, stride, padding, dilation) * norms[:, None, None]
    got = hyperspherical_conv2d(x, weight, stride, padding, dilation, kernel_norm=False)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_only_without_the_kernels_norm_the_output_grows_with_the_kernels() -> None:
    x, weight = _draw(2, 3, 6, 7), 10 * _draw(4, 3, 3, 3)
    raw = hyperspherical_conv2d(x, weight, kernel_norm=False)
    torch.testing.assert_close(hyperspherical_conv2d(x, 7 * weight, kernel_norm=False), 7 * raw, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(hyperspherical_conv2d(x, 7 * weight), hyperspherical_conv2d(x, weight), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kernel_norm", [True, False])
def test_a_larger_input_changes_no_cosine(*, kernel_norm: bool) -> None:
    x, weight = 100 * _draw(2, 3, 6, 7), _draw(4, 3, 3, 3)
    expected = hyperspherical_conv2d(x, weight, padding=1, kernel_norm=kernel_norm)
    torch.testing.assert_close(hyperspherical_conv2d(5 * x, weight, padding=1, kernel_norm=kernel_norm), expected, rtol=1e-6, atol=1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(scale=st.sampled_from([1e-6, 1e-2, 1.0, 1e3]), seed=st.integers(0, 1000))
def test_lies_between_minus_one_and_one(scale: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x, weight = scale * torch.randn(1, 2, 5, 5, generator=random), torch.randn(3, 2, 3, 3, generator=random)
    assert hyperspherical_conv2d(x, weight, padding=1).abs().max() <= 1 + 1e-6


def test_reaches_one_where_the_window_is_the_kernel() -> None:
    weight = _draw(1, 2, 3, 3)
    assert hyperspherical_conv2d(50 * weight, weight).item() == pytest.approx(1, abs=1e-4)
    assert hyperspherical_conv2d(-50 * weight, weight).item() == pytest.approx(-1, abs=1e-4)


def test_is_neural_similarity_with_one_over_the_norms_on_the_diagonal() -> None:
    x, weight = _draw(2, 3, 5, 5), _draw(1, 3, 3, 3)
    windows = functional.unfold(x, 3, padding=1).view(2, 27, 1, 5, 5)
    norms = ((windows.square().sum(1) + EPSILON) * (weight.square().sum() + EPSILON)).sqrt()
    similarity = norms.reciprocal().expand(2, 9, 5, 5)
    expected = similarity_conv2d(x, weight, similarity, padding=1)
    torch.testing.assert_close(hyperspherical_conv2d(x, weight, padding=1), expected, rtol=1e-12, atol=1e-12)


def test_a_window_of_zeros_gives_zero_and_finite_gradients() -> None:
    x, weight = torch.zeros(1, 2, 4, 4, requires_grad=True), torch.zeros(3, 2, 3, 3, requires_grad=True)
    output = hyperspherical_conv2d(x, weight)
    output.sum().backward()
    assert not output.any()
    assert x.grad is not None
    assert weight.grad is not None
    assert x.grad.isfinite().all()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("kernel_norm", [True, False])
def test_derivatives(*, kernel_norm: bool) -> None:
    inputs = _draw(1, 2, 3, 4).requires_grad_(), _draw(2, 2, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, weight: hyperspherical_conv2d(x, weight, 2, 1, kernel_norm=kernel_norm), inputs)
    assert torch.autograd.gradgradcheck(lambda x, weight: hyperspherical_conv2d(x, weight, 2, 1, kernel_norm=kernel_norm), inputs)


def test_the_layer_applies_its_own_weight_and_geometry() -> None:
    layer = HypersphericalConv2d(2, 5, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2)).double()
    x = _draw(2, 2, 6, 6)
    assert layer.weight.shape == (5, 2, 3, 2)
    assert torch.equal(layer(x), hyperspherical_conv2d(x, layer.weight, 2, (1, 0), (1, 2)))
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_a_layer_without_the_kernels_norm() -> None:
    layer = HypersphericalConv2d(2, 5, (3, 2), padding=(1, 0), kernel_norm=False).double()
    x = _draw(2, 2, 6, 6)
    assert torch.equal(layer(x), hyperspherical_conv2d(x, layer.weight, 1, (1, 0), kernel_norm=False))


def test_energies_are_summed_in_float32_under_autocast() -> None:
    # 1 + 2^-7 is a number of bfloat16; its square is not, nor are the sums of it from 16 on.
    x, weight = torch.full((1, 1, 5, 5), 1.0 + 2**-7), torch.ones(1, 1, 5, 5)
    energy = 25 * (1 + 2**-7) ** 2
    with torch.autocast("cpu", torch.bfloat16):
        y = hyperspherical_conv2d(x.bfloat16(), weight, kernel_norm=False)
        product = functional.conv2d(x.bfloat16(), weight)
    assert torch.equal(y, product / torch.tensor(energy + EPSILON).sqrt().bfloat16())
