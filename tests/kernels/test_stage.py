from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from fewshot_nsl.kernels import Kernels
from fewshot_nsl.kernels.stage import affine_relu, conv_pool, pool, pool_with_moments

Function = Callable[..., Tensor | tuple[Tensor, ...]]
GROUPS = 2


def _functions(kernels: Kernels) -> dict[str, tuple[Function, Function]]:
    """Ours, and the same by torch."""

    def moments(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return functional.max_pool2d(z, 2), z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)

    def line(m: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return functional.relu(m * a[:, None, None] + b[:, None, None])

    return {
        "pool": (lambda z: pool(z, kernels), lambda z: functional.max_pool2d(z, 2)),
        "pool_with_moments": (lambda z: pool_with_moments(z, kernels), moments),
        "affine_relu": (lambda m, a, b: affine_relu(m, a, b, kernels), line),
        "conv_pool": (
            lambda x, w: conv_pool(x, w, GROUPS, kernels),
            lambda x, w: functional.max_pool2d(functional.conv2d(x, w, padding=1, groups=GROUPS), 2),
        ),
    }


def _inputs(name: str) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=random, dtype=torch.float64).requires_grad_()

    if name == "conv_pool":
        return [draw(2, 4, 5, 4), draw(6, 2, 3, 3)]
    if name == "affine_relu":
        return [draw(2, 3, 3, 2), draw(3), draw(3)]
    return [draw(2, 3, 5, 4)]


NAMES = pytest.mark.parametrize("name", ["pool", "pool_with_moments", "affine_relu", "conv_pool"])


@NAMES
def test_is_torchs_own(kernels: Kernels, name: str) -> None:
    (ours, theirs), inputs = _functions(kernels)[name], _inputs(name)
    torch.testing.assert_close(ours(*inputs), theirs(*inputs), check_stride=False)


@NAMES
def test_has_the_derivatives_of_finite_differences(kernels: Kernels, name: str) -> None:
    (ours, _), inputs = _functions(kernels)[name], _inputs(name)
    assert gradcheck(ours, inputs)
    assert gradgradcheck(ours, inputs)


@pytest.mark.parametrize(("name", "moving"), [("conv_pool", (0,)), ("conv_pool", (1,)), ("affine_relu", (0,)), ("affine_relu", (1, 2))])
def test_what_stays_costs_no_derivative_and_changes_none(kernels: Kernels, name: str, moving: tuple[int, ...]) -> None:
    (ours, _), inputs = _functions(kernels)[name], _inputs(name)

    def of_moving(*values: Tensor) -> Tensor | tuple[Tensor, ...]:
        whole = [tensor.detach() for tensor in inputs]
        for place, value in zip(moving, values, strict=True):
            whole[place] = value
        return ours(*whole)

    chosen = [inputs[place] for place in moving]
    assert gradcheck(of_moving, chosen)
    assert gradgradcheck(of_moving, chosen)


@NAMES
def test_a_third_derivative_is_refused(kernels: Kernels, name: str) -> None:
    (ours, _), inputs = _functions(kernels)[name], _inputs(name)
    output = ours(*inputs)
    value = torch.stack([part.pow(3).sum() for part in (output if isinstance(output, tuple) else (output,))]).sum()
    first = torch.autograd.grad(value, inputs, create_graph=True)
    second = torch.autograd.grad(torch.stack([part.pow(3).sum() for part in first]).sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="a third derivative"):
        torch.autograd.grad(torch.stack([part.sum() for part in second]).sum(), inputs)
