import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.kernels import Dense, Kernels, PlainKernels

SIZES = [(1, 1, 2, 2), (2, 3, 7, 4), (3, 17, 9, 6), (2, 32, 8, 8), (1, 33, 5, 11), (2, 4, 3, 2)]
"""Images, channels, height and width: odd sides, one window, and channels that do not fill a vector."""
CONVOLUTIONS = [
    (1, 1, 1, 1, 2, 2),
    (2, 3, 3, 5, 7, 4),
    (3, 2, 3, 40, 6, 8),
    (9, 2, 8, 3, 9, 6),
    (3, 2, 17, 33, 9, 7),
    (2, 1, 32, 16, 5, 5),
    (2, 2, 70, 4, 4, 4),
    (2, 2, 32, 4, 3, 2),
    (2, 2, 3, 4, 2, 5),
]
"""Images, tasks, channels in and out of a task, height and width."""
EVERY_SIZE = pytest.mark.parametrize(("n", "c", "h", "w"), SIZES)
EVERY_CONVOLUTION = pytest.mark.parametrize(("n", "tasks", "c", "o", "h", "w"), CONVOLUTIONS)
BOTH_TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _images(random: torch.Generator, *sizes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*sizes, generator=random, dtype=dtype).contiguous(memory_format=torch.channels_last)


def _windows(z: Tensor) -> Tensor:
    """`[n, c, h // 2, w // 2, 4]`."""
    return z.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)


def _close(got: Tensor, expected: Tensor) -> None:
    tolerance = 1e-11 if got.dtype == torch.float64 else 2e-4
    torch.testing.assert_close(got, expected.to(got.dtype), rtol=tolerance, atol=tolerance, check_stride=False)


@EVERY_SIZE
@BOTH_TYPES
def test_pooling_takes_the_largest_and_the_places_lead_back(
    kernels: Kernels, random: torch.Generator, n: int, c: int, h: int, w: int, dtype: torch.dtype
) -> None:
    z, other, g = _images(random, n, c, h, w, dtype=dtype), _images(random, n, c, h, w, dtype=dtype), _images(random, n, c, h // 2, w // 2)
    pooled, place = kernels.pool(z)
    best = _windows(z).argmax(-1, keepdim=True)
    assert torch.equal(pooled, _windows(z).gather(-1, best)[..., 0])
    assert torch.equal(kernels.pick(other, place), _windows(other).gather(-1, best)[..., 0])
    spread = kernels.unpool(g.to(dtype), place, (h, w))
    expected = torch.zeros(n, c, h, w, dtype=dtype)
    for image, channel, i, j in itertools.product(*map(range, pooled.shape)):
        at = int(best[image, channel, i, j])
        expected[image, channel, 2 * i + at // 2, 2 * j + at % 2] = g[image, channel, i, j]
    assert torch.equal(spread, expected)


@EVERY_SIZE
def test_a_straight_line_is_added_everywhere(kernels: Kernels, random: torch.Generator, n: int, c: int, h: int, w: int) -> None:
    z, g = _images(random, n, c, h, w), _images(random, n, c, h // 2, w // 2)
    scale, shift = torch.randn(2, c, generator=random, dtype=torch.float64)
    _, place = kernels.pool(z)
    dense = kernels.unpool(g, place, (h, w), Dense(z, scale, shift))
    _close(dense, kernels.unpool(g, place, (h, w)) + z * scale[:, None, None] + shift[:, None, None])


def test_of_equals_the_first_is_taken(kernels: Kernels) -> None:
    z = torch.tensor([[1.0, 1, 0, 2], [1, 1, 2, 2]]).expand(1, 40, 2, 4).contiguous(memory_format=torch.channels_last)
    pooled, place = kernels.pool(z)
    assert torch.equal(pooled, torch.tensor([1.0, 2]).expand(1, 40, 1, 2))
    order = torch.arange(8.0).view(2, 4).expand(1, 40, 2, 4).contiguous(memory_format=torch.channels_last)
    assert torch.equal(kernels.pick(order, place), torch.tensor([0.0, 3]).expand(1, 40, 1, 2))


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("channels", [3, 40])
def test_not_a_number_is_not_lost(kernels: Kernels, at: int, channels: int) -> None:
    z = torch.arange(4.0).repeat(channels, 1)
    z[:, at] = float("nan")
    pooled, _ = kernels.pool(z.view(1, channels, 2, 2).contiguous(memory_format=torch.channels_last))
    assert pooled.isnan().all()
    line = kernels.affine_relu(pooled, torch.ones(channels), torch.ones(channels))
    assert line.isnan().all()


def test_what_is_not_contiguous_is_read_all_the_same(kernels: Kernels, random: torch.Generator) -> None:
    whole = torch.randn(3, 9, 10, 12, generator=random, dtype=torch.float64)
    for part in (whole, whole[:, ::2], whole[1:, :, 1:, ::2], whole.transpose(2, 3)):
        pooled, place = kernels.pool(part)
        assert torch.equal(pooled, functional.max_pool2d(part, 2))
        dense = part.contiguous(memory_format=torch.channels_last)
        assert torch.equal(kernels.pick(part, place), kernels.pick(dense, place))
        mean, variance = kernels.moments(part)
        _close(mean, part.mean((0, 2, 3)))
        _close(variance, part.var((0, 2, 3), correction=0))


@EVERY_SIZE
@BOTH_TYPES
def test_moments_and_products_are_sums_over_a_channel(
    kernels: Kernels, random: torch.Generator, n: int, c: int, h: int, w: int, dtype: torch.dtype
) -> None:
    u, z = _images(random, n, c, h, w, dtype=dtype), _images(random, n, c, h, w, dtype=dtype) + 3
    mean, variance = kernels.moments(z)
    _close(mean, z.double().mean((0, 2, 3)))
    _close(variance, z.double().var((0, 2, 3), correction=0))
    total, product = kernels.products(u, z, mean)
    _close(total, u.double().sum((0, 2, 3)))
    _close(product, (u * (z - mean[:, None, None])).double().sum((0, 2, 3)))


@EVERY_SIZE
@BOTH_TYPES
def test_line_and_relu_have_autograds_two_derivatives(
    kernels: Kernels, random: torch.Generator, n: int, c: int, h: int, w: int, dtype: torch.dtype
) -> None:
    m, g, u = (_images(random, n, c, h, w, dtype=dtype) for _ in range(3))
    a, b, of_a, of_b = torch.randn(4, c, generator=random, dtype=dtype)
    inputs = [tensor.clone().requires_grad_() for tensor in (m, a, b)]
    gradient = g.clone().requires_grad_()
    output = functional.relu(inputs[0] * inputs[1][:, None, None] + inputs[2][:, None, None])
    _close(kernels.affine_relu(m, a, b), output.detach())
    first = torch.autograd.grad(output, inputs, gradient, create_graph=True)
    got = kernels.affine_relu_backward(g, m, a, b, wanted=True)
    for mine, theirs in zip(got, first, strict=True):
        assert mine is not None
        _close(mine, theirs.detach())
    alone, *none = kernels.affine_relu_backward(g, m, a, b, wanted=False)
    assert none == [None, None]
    _close(alone, first[0].detach())
    second = torch.autograd.grad(first, [gradient, *inputs], [u, of_a, of_b], materialize_grads=True)
    assert not second[3].any()
    for mine, theirs in zip(kernels.affine_relu_double((u, of_a, of_b), g, m, a, b), second[:3], strict=True):
        _close(mine, theirs)


@EVERY_CONVOLUTION
@BOTH_TYPES
def test_a_pooled_convolution_and_its_derivatives(
    kernels: Kernels, random: torch.Generator, n: int, tasks: int, c: int, o: int, h: int, w: int, dtype: torch.dtype
) -> None:
    x, other = _images(random, n, tasks * c, h, w, dtype=dtype), _images(random, n, tasks * c, h, w, dtype=dtype)
    weight, another = _images(random, tasks * o, c, 3, 3, dtype=dtype), _images(random, tasks * o, c, 3, 3, dtype=dtype)
    images, filters = (tensor.double().requires_grad_() for tensor in (x, weight))
    z = functional.conv2d(images, filters, padding=1, groups=tasks)
    windows = _windows(z)
    best = windows.argmax(-1, keepdim=True)
    expected = windows.gather(-1, best)[..., 0]
    pooled, place = kernels.conv_pool(x, weight, tasks)
    _close(pooled, expected.detach())
    # Near ties float32 may choose another place; what follows is about the places that were chosen.
    g = torch.where(pooled.sub(expected).abs() < 1e-5, 1.0, 0.0) * _images(random, *pooled.shape) * (_images(random, *pooled.shape) > 0)
    picked = _windows(functional.conv2d(other.double(), another.double(), padding=1, groups=tasks)).gather(-1, best)[..., 0]
    _close(kernels.conv_pick(other, another, place, tasks), picked)
    of_images, of_filters = torch.autograd.grad(expected, [images, filters], g)
    g = g.to(dtype).contiguous(memory_format=torch.channels_last)
    for of_input, of_weight in itertools.product([True, False], repeat=2):
        if not of_input and not of_weight:
            continue
        got = kernels.conv_backward(g, place, x, weight, tasks, of_input=of_input, of_weight=of_weight)
        for mine, theirs, wanted in zip(got, (of_images, of_filters), (of_input, of_weight), strict=True):
            assert (mine is not None) is wanted
            if mine is not None:
                _close(mine, theirs)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_sums_do_not_depend_on_the_number_of_threads(kernels: Kernels, random: torch.Generator, threads: int) -> None:
    x, weight = _images(random, 11, 64, 16, 16, dtype=torch.float32), _images(random, 64, 32, 3, 3, dtype=torch.float32)

    def results() -> list[Tensor]:
        pooled, place = kernels.conv_pool(x, weight, 2)
        gradients = kernels.conv_backward(pooled, place, x, weight, 2, of_input=True, of_weight=True)
        sums = kernels.affine_relu_backward(pooled, pooled, pooled[0, :, 0, 0], pooled[0, :, 1, 1], wanted=True)
        return [tensor for tensor in (pooled, *gradients, *sums, *kernels.moments(x)) if tensor is not None]

    before = torch.get_num_threads()
    if isinstance(kernels, PlainKernels):
        pytest.skip("torch's own operators promise nothing")
    try:
        torch.set_num_threads(1)
        expected = results()
        torch.set_num_threads(threads)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(results(), expected, strict=True))
    finally:
        torch.set_num_threads(before)
