"""Section 5 of the paper, by numbers: the two gradient flows, and what is a special case of neural similarity. See docs/theory.md."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.similarity import DynamicSimilarityConv2d, hyperspherical_conv2d, similarity_conv2d
from fewshot_nsl.similarity.hyperspherical import EPSILON

TAPS, KERNELS = 9, 4
CENTRE = 4
"""Of the nine taps of a 3x3 kernel."""
Velocity = Callable[..., tuple[Tensor, ...]]


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape) + seed), dtype=torch.float64)


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


def _eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


# In the paper's shapes: x [taps, windows], y [kernels, windows], w and v [taps, kernels], m [taps, taps].


def _loss(w: Tensor, m: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`sum |y - W' M x|^2 / 2`, by the convolution: a window is an image of one channel, just as large as the kernel."""
    output = similarity_conv2d(x.T.reshape(-1, 1, 3, 3), w.T.reshape(-1, 1, 3, 3), m)
    return (y.T - output.flatten(1)).square().sum() / 2


def _plain_velocity(x: Tensor, y: Tensor) -> Velocity:
    def velocity(v: Tensor) -> tuple[Tensor, ...]:
        v = v.detach().requires_grad_()
        return (-torch.autograd.grad(_loss(v, _eye(TAPS), x, y), v)[0],)

    return velocity


def _factorised_velocity(x: Tensor, y: Tensor) -> Velocity:
    def velocity(w: Tensor, m: Tensor) -> tuple[Tensor, ...]:
        w, m = w.detach().requires_grad_(), m.detach().requires_grad_()
        dw, dm = torch.autograd.grad(_loss(w, m, x, y), (w, m))
        return -dw, -dm

    return velocity


def _downhill(v: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """G, the paper's `sum x r'` with the residuals `r = y - V' x`."""
    return x @ (y - v.T @ x).T


def _flow(velocity: Velocity, state: tuple[Tensor, ...], time: float) -> list[Tensor]:
    """Where the flow is after `time`."""
    sizes = [tensor.numel() for tensor in state]

    def tensors(numbers: np.ndarray) -> list[Tensor]:
        parts = torch.as_tensor(numbers.copy()).split(sizes)
        return [part.view_as(tensor) for part, tensor in zip(parts, state, strict=True)]

    def flat(parts: tuple[Tensor, ...] | list[Tensor]) -> np.ndarray:
        return torch.cat([part.flatten() for part in parts]).numpy()

    solution = solve_ivp(lambda _, numbers: flat(velocity(*tensors(numbers))), (0, time), flat(state), rtol=1e-8, atol=1e-10)
    assert solution.success
    return tensors(solution.y[:, -1])


def test_gradients_of_the_factorised_least_squares() -> None:
    w, m, x, y = _draw(TAPS, KERNELS), _draw(TAPS, TAPS), _draw(TAPS, 6), _draw(KERNELS, 6)
    g = _downhill(m.T @ w, x, y)
    dw, dm = _factorised_velocity(x, y)(w, m)
    torch.testing.assert_close(dw, m @ g, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dm, w @ g.T, rtol=1e-12, atol=1e-12)
    (dv,) = _plain_velocity(x, y)(w)
    torch.testing.assert_close(dv, _downhill(w, x, y), rtol=1e-12, atol=1e-12)


def test_velocity_of_the_product_is_equation_6() -> None:
    w, m, x, y = _draw(TAPS, KERNELS), _draw(TAPS, TAPS), _draw(TAPS, 6), _draw(KERNELS, 6)
    dw, dm = _factorised_velocity(x, y)(w, m)
    ahead, behind = ((m + t * dm).T @ (w + t * dw) for t in (1, -1))
    g = _downhill(m.T @ w, x, y)
    # The product of two straight lines is quadratic in time: its central difference is its derivative, however long the step.
    torch.testing.assert_close((ahead - behind) / 2, m.T @ m @ g + g @ w.T @ w, rtol=1e-10, atol=1e-10)


def test_both_flows_set_out_alike_from_the_identity_and_zero() -> None:
    x, y = _draw(TAPS, 6), _draw(KERNELS, 6)
    w, m = _zeros(TAPS, KERNELS), _eye(TAPS)
    dw, dm = _factorised_velocity(x, y)(w, m)
    (dv,) = _plain_velocity(x, y)(_zeros(TAPS, KERNELS))
    torch.testing.assert_close(m.T @ dw + dm.T @ w, dv)


def test_the_factorised_flow_conserves_the_difference_of_the_squares() -> None:
    x, y = _draw(TAPS, 6) / 6**0.5, _draw(KERNELS, 6) / 6**0.5
    w, m = _draw(TAPS, KERNELS), _draw(TAPS, TAPS) / 3
    last_w, last_m = _flow(_factorised_velocity(x, y), (w, m), 2)
    assert not torch.allclose(last_m, m, atol=0.1)
    torch.testing.assert_close(last_m @ last_m.T - last_w @ last_w.T, m @ m.T - w @ w.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("windows", [5, 40], ids=["fewer windows than taps", "more windows than taps"])
def test_from_zero_and_the_identity_both_flows_end_at_the_least_squares_solution_of_least_norm(windows: int) -> None:
    x, y = _draw(TAPS, windows) / windows**0.5, _draw(KERNELS, windows) / windows**0.5
    expected = (y @ torch.linalg.pinv(x)).T
    (v,) = _flow(_plain_velocity(x, y), (_zeros(TAPS, KERNELS),), 150)
    w, m = _flow(_factorised_velocity(x, y), (_zeros(TAPS, KERNELS), _eye(TAPS)), 150)
    torch.testing.assert_close(v, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(m.T @ w, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(m, _eye(TAPS), atol=0.01)


def test_a_flow_on_the_similarity_alone_ends_where_it_has_changed_least() -> None:
    """With W fixed the kernel is linear in M: nothing is factorised, and the identity plus a least-norm solution is where it ends."""
    w, x, y = _draw(TAPS, 2) / 3, _draw(TAPS, 3) / 3, _draw(2, 3)

    def velocity(m: Tensor) -> tuple[Tensor, ...]:
        return _factorised_velocity(x, y)(w, m)[1:]

    (m,) = _flow(velocity, (_eye(TAPS),), 150)
    residual = y - w.T @ x
    change = torch.linalg.pinv(w.T) @ residual @ torch.linalg.pinv(x)
    torch.testing.assert_close(m, _eye(TAPS) + change, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_no_kernel_that_fits_has_a_smaller_singular_value_than_that_of_least_norm(seed: int) -> None:
    x, y, drawn = _draw(TAPS, 6, seed=seed), _draw(KERNELS, 6, seed=seed), _draw(TAPS, KERNELS, seed=seed)
    least = (y @ torch.linalg.pinv(x)).T
    other = least + drawn - x @ torch.linalg.pinv(x) @ drawn
    torch.testing.assert_close(other.T @ x, y)
    assert (torch.linalg.svdvals(other) > torch.linalg.svdvals(least) - 1e-12).all()


def test_one_kernel_over_several_channels_senses_the_matrix_of_taps_and_channels() -> None:
    window, kernel, m = _draw(1, 5, 3, 3), _draw(1, 5, 3, 3), _draw(TAPS, TAPS)
    a, w = window[0].flatten(1).T, kernel[0].flatten(1).T
    torch.testing.assert_close(similarity_conv2d(window, kernel, m).squeeze(), (a * (m.T @ w)).sum(), rtol=1e-12, atol=1e-12)


def _dynamic(structure: str) -> Callable[[Tensor], Tensor]:
    """One dynamic layer with M = I + a linear function of the input, on 2 channels."""
    kernels, free = _draw(3, 2, 3, 3), TAPS if structure == "diagonal" else TAPS**2
    predictor = _draw(free, 2, 3, 3)
    identity = torch.ones(TAPS, dtype=torch.float64) if structure == "diagonal" else _eye(TAPS)

    def layer(x: Tensor) -> Tensor:
        offset = functional.conv2d(x, predictor, padding=1).unflatten(1, identity.shape)
        return similarity_conv2d(x, kernels, identity[..., None, None] + offset, padding=1)

    return layer


@pytest.mark.parametrize("structure", ["diagonal", "unconstrained"])
def test_a_dynamic_layer_with_a_linear_predictor_is_quadratic_along_any_line(structure: str) -> None:
    layer = _dynamic(structure)
    x, direction = _draw(1, 2, 5, 6), _draw(1, 2, 5, 6, seed=1)
    values = torch.stack([layer(x + t * direction) for t in range(5)])
    second, third = values.diff(2, dim=0), values.diff(3, dim=0)
    assert (second.abs().amax((1, 2, 3, 4)) > 1).all()
    torch.testing.assert_close(third, torch.zeros_like(third), rtol=0, atol=1e-10)


@pytest.mark.parametrize("structure", ["diagonal", "unconstrained"])
def test_the_identity_gives_its_linear_part(structure: str) -> None:
    layer, x = _dynamic(structure), _draw(1, 2, 5, 6)
    linear = functional.conv2d(x, _draw(3, 2, 3, 3), padding=1)
    quadratic = layer(x) - linear
    for t in (-2.0, 0.0, 0.5, 10.0):
        torch.testing.assert_close(layer(t * x), t * linear + t**2 * quadratic, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("structure", ["diagonal", "unconstrained"])
def test_its_second_derivative_is_the_same_everywhere(structure: str) -> None:
    layer, weights = _dynamic(structure), _draw(1, 3, 3, 3)

    def number(x: Tensor) -> Tensor:
        return (weights * layer(x)).sum()

    here, there = (torch.autograd.functional.hessian(number, _draw(1, 2, 3, 3, seed=seed)) for seed in (0, 1))
    torch.testing.assert_close(here, there, rtol=1e-10, atol=1e-10)


def test_a_diagonal_similarity_reaches_every_quadratic_form_of_a_window() -> None:
    q, x, kernel = _draw(TAPS, TAPS), _draw(2, 1, 5, 6), _draw(1, 1, 3, 3)
    predictor = (q / kernel.view(TAPS, 1)).view(TAPS, 1, 3, 3)  # Q = diag(w) L
    window = functional.unfold(x, 3)
    expected = (window * (q @ window)).sum(1).view(2, 1, 3, 4)
    output = similarity_conv2d(x, kernel, functional.conv2d(x, predictor))
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)


def test_with_the_predictor_of_cosines_the_output_grows_in_proportion() -> None:
    layer = DynamicSimilarityConv2d(2, 3, 3, padding=1, bias=False).double().eval()
    nn.init.ones_(layer.predictor.gain)  # type: ignore[arg-type]
    x = _draw(1, 2, 6, 6)
    torch.testing.assert_close(layer(100 * x), 100 * layer(x), rtol=1e-3, atol=1e-2)


def test_hyperspherical_convolution_of_several_kernels() -> None:
    """The kernels' norms belong to the kernels, since M is one for all; that of the window is M's diagonal."""
    x, kernels = _draw(2, 3, 6, 5), _draw(4, 3, 3, 3)
    squares = functional.unfold(x, 3, padding=1).square().sum(1).view(2, 1, 6, 5)
    similarity = (squares + EPSILON).rsqrt().expand(-1, TAPS, -1, -1)
    directions = kernels / (kernels.square().sum((1, 2, 3), keepdim=True) + EPSILON).sqrt()
    output = similarity_conv2d(x, directions, similarity, padding=1)
    torch.testing.assert_close(hyperspherical_conv2d(x, kernels, padding=1), output, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_dilated_convolution_is_a_pattern_of_zeros_in_a_larger_window(stride: int, padding: int) -> None:
    x, kernel = _draw(2, 3, 9, 8), _draw(4, 3, 5, 5)
    kept = _zeros(5, 5)
    kept[::2, ::2] = 1
    expected = functional.conv2d(x, kernel[:, :, ::2, ::2], None, stride, padding, dilation=2)
    for similarity in (kept.flatten(), torch.diag(kept.flatten())):
        output = similarity_conv2d(x, kernel, similarity, None, stride, padding)
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)


def test_a_similarity_of_zeros_and_ones_spreads_a_compact_kernel() -> None:
    """The nine numbers in the middle of a 5x5 kernel, each led to the tap where dilation looks."""
    x, kernel = _draw(2, 3, 9, 8), _draw(4, 3, 3, 3)
    similarity = _zeros(5, 5, 5, 5)
    for i in range(3):
        for j in range(3):
            similarity[i + 1, j + 1, 2 * i, 2 * j] = 1
    output = similarity_conv2d(x, functional.pad(kernel, (1, 1, 1, 1)), similarity.view(25, 25))
    torch.testing.assert_close(output, functional.conv2d(x, kernel, dilation=2), rtol=1e-12, atol=1e-12)


def _residual_kernels() -> Tensor:
    """W `[9, 9]` with `W' W = diag(0, ..., 1, ..., 0)`: only the kernel of the centre is not zero, and has norm 1."""
    w = _zeros(TAPS, TAPS)
    w[:, CENTRE] = functional.normalize(_draw(TAPS), dim=0)
    return w


def test_adding_the_kernels_to_the_similarity_adds_the_input() -> None:
    w, m, x = _residual_kernels(), _draw(TAPS, TAPS), _draw(2, 1, 6, 7)
    expected = _zeros(TAPS, TAPS)
    expected[CENTRE, CENTRE] = 1
    torch.testing.assert_close(w.T @ w, expected)
    kernels = w.T.reshape(TAPS, 1, 3, 3)
    output, step = (similarity_conv2d(x, kernels, similarity, padding=1) for similarity in (w + m, m))
    torch.testing.assert_close(output[:, [CENTRE]], x + step[:, [CENTRE]], rtol=1e-12, atol=1e-12)
    others = [kernel for kernel in range(TAPS) if kernel != CENTRE]
    assert not output[:, others].any()


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_with_several_channels_a_centre_tap_that_is_the_identity_adds_the_input(dynamic: bool) -> None:
    x, kernels = _draw(2, 3, 6, 7), _draw(3, 3, 3, 3)
    kernels[:, :, 1, 1] = _eye(3)
    m = _draw(2, TAPS, TAPS, 6, 7) if dynamic else _draw(TAPS, TAPS)
    residual = m.clone()
    residual[(slice(None),) * dynamic + (CENTRE, CENTRE)] += 1
    step = similarity_conv2d(x, kernels, m, padding=1)
    torch.testing.assert_close(similarity_conv2d(x, kernels, residual, padding=1), x + step, rtol=1e-12, atol=1e-12)


def test_a_stack_of_them_solves_the_differential_equation_to_first_order() -> None:
    w, m, x = _residual_kernels(), _draw(TAPS, TAPS) / 9, _draw(1, 1, 4, 4)
    kernel = w[:, CENTRE].view(1, 1, 3, 3)

    def layers(count: int) -> Tensor:
        state = x
        for _ in range(count):
            state = similarity_conv2d(state, kernel, w + m / count, padding=1)
        return state

    # The right-hand side as a matrix: its columns are what it makes of each pixel alone.
    operator = similarity_conv2d(_eye(16).view(16, 1, 4, 4), kernel, m, padding=1).view(16, 16).T
    exact = (torch.linalg.matrix_exp(operator) @ x.flatten()).view_as(x)
    errors = [(layers(count) - exact).norm().item() for count in (64, 128, 256)]
    assert errors[-1] < 0.01 * exact.norm().item()
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2, rel=0.05)
