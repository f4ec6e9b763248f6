from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import hyperspherical_conv2d
from fewshot_nsl.similarity.attention import GlobalSimilarity, orthogonality

X = torch.randn(2, 16, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _module(channels: int = 16, *, gamma: float = 0) -> GlobalSimilarity:
    torch.manual_seed(1)
    module = GlobalSimilarity(channels).double()
    nn.init.constant_(module.gamma, gamma)
    return module


def _naive(module: GlobalSimilarity, x: Tensor) -> Tensor:
    """Location by location."""
    f, g, h = (hyperspherical_conv2d(x, layer.weight).flatten(2) for layer in (module.f, module.g, module.h))
    y = x.flatten(2).clone()
    for n, p in product(range(len(x)), range(y.shape[2])):
        scores = torch.stack([f[n, :, p].relu() @ g[n, :, q] for q in range(y.shape[2])]).exp()
        for q, score in enumerate(scores / scores.sum()):
            y[n, :, p] += module.gamma * score * h[n, :, q]
    return y.view_as(x)


def test_equals_the_sum_of_the_definition() -> None:
    module = _module(gamma=0.7)
    torch.testing.assert_close(module(X), _naive(module, X), rtol=1e-12, atol=1e-12)
    assert (module(X) - X).abs().max() > 0.01


def test_a_new_module_is_the_identity_and_its_gamma_has_a_gradient() -> None:
    module = _module()
    assert torch.equal(module(X), X)
    module(X).sum().backward()
    assert module.gamma.grad is not None
    assert module.gamma.grad != 0


def test_every_location_sees_every_other_and_no_other_image() -> None:
    module, changed = _module(gamma=1), X.clone()
    changed[0, :, 2, 3] += 1
    moved = (module(changed) - module(X)).abs().amax(1)
    assert moved[0].gt(0).all()
    assert not moved[1].any()


def test_moving_locations_moves_the_output_alike() -> None:
    module, order = _module(gamma=1), torch.randperm(12)
    moved = X.flatten(2)[..., order].view_as(X)
    torch.testing.assert_close(module(moved).flatten(2), module(X).flatten(2)[..., order], rtol=1e-12, atol=1e-12)


def test_derivatives() -> None:
    module = _module(8, gamma=0.5)
    values = {name: value.detach().requires_grad_() for name, value in module.named_parameters()}

    def compute(x: Tensor, *parameters: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return torch.func.functional_call(module, dict(zip(values, parameters, strict=True)), (x,))

    inputs = (X[:1, :8, :1, :3].clone().requires_grad_(), *values.values())
    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_the_layout_in_memory_stays(form: torch.memory_format) -> None:
    assert _module(gamma=1)(X.contiguous(memory_format=form)).is_contiguous(memory_format=form)


def test_orthogonality_is_half_the_squared_distance_from_orthonormal_kernels() -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 1, 1, 2)
    gram = [[5, 11], [11, 25]]
    assert orthogonality(weight) == ((gram[0][0] - 1) ** 2 + 2 * gram[0][1] ** 2 + (gram[1][1] - 1) ** 2) / 2


def test_orthonormal_kernels_have_no_penalty() -> None:
    module = _module(gamma=1)
    for layer in (module.f, module.g, module.h):
        nn.init.orthogonal_(layer.weight)
    assert module.penalty().item() == pytest.approx(0, abs=1e-12)


def test_the_penalty_is_that_of_all_three_maps_and_pulls_kernels_apart() -> None:
    module = _module()
    expected = 2e-4 * sum(orthogonality(layer.weight) for layer in (module.f, module.g, module.h))
    torch.testing.assert_close(module.penalty(), torch.as_tensor(expected))
    torch.testing.assert_close(module.penalty(1.0), 5000 * module.penalty())
    first = module.penalty(1.0).item()
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    for _ in range(50):
        optimizer.zero_grad()
        module.penalty(1.0).backward()
        optimizer.step()
    assert module.penalty(1.0).item() < 0.1 * first


@pytest.mark.parametrize("channels", [0, 4, 12, -8])
def test_channels_that_are_no_multiple_of_eight_are_refused(channels: int) -> None:
    with pytest.raises(ConfigurationError, match=f"global similarity of {channels} channels: expected a multiple of 8"):
        GlobalSimilarity(channels)
