import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import (
    DynamicSimilarityConv2d,
    KernelShape,
    SpherePredictor,
    StaticSimilarityConv2d,
    boolean_shape,
    sgd_groups,
    shape_parameters,
)

X = torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
REAL = torch.tensor([0.9, 0.2, 0.51, 0.5], dtype=torch.float64)
SHAPE = torch.tensor([1.0, 0, 1, 0], dtype=torch.float64)  # of REAL at a threshold of 0.5
KINDS: list[type[StaticSimilarityConv2d | DynamicSimilarityConv2d]] = [StaticSimilarityConv2d, DynamicSimilarityConv2d]


def _layer(
    kind: type[StaticSimilarityConv2d | DynamicSimilarityConv2d], threshold: Any, structure: str = "unconstrained"
) -> StaticSimilarityConv2d | DynamicSimilarityConv2d:
    torch.manual_seed(1)
    layer = kind(2, 3, 2, dtype=torch.float64, structure=structure, shape_threshold=threshold).eval()
    if isinstance(layer, StaticSimilarityConv2d):
        nn.init.normal_(layer.M)
    else:
        assert isinstance(layer.predictor, SpherePredictor)
        nn.init.constant_(layer.predictor.gain, 0.5)
    _set(layer, REAL)
    return layer


def _shape(layer: nn.Module) -> KernelShape:
    shape = layer.kernel_shape
    assert isinstance(shape, KernelShape)
    return shape


def _set(layer: nn.Module, real: Tensor) -> None:
    with torch.no_grad():
        _shape(layer).D_r.copy_(real)


def _gradient(layer: nn.Module) -> Tensor:
    """dL/dD_r of a fixed loss."""
    y = layer(X)
    towards = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return torch.autograd.grad((y.pow(2) * towards).sum(), _shape(layer).D_r)[0]


@pytest.mark.parametrize("threshold", [0.5, 0.0, -0.5, 0.999, "continuous"])
def test_at_the_start_every_tap_is_there(threshold: Any) -> None:
    assert KernelShape(9, threshold)().tolist() == [1] * 9


def test_a_tap_is_there_where_its_number_is_above_the_threshold() -> None:
    assert torch.equal(boolean_shape(REAL, 0.5), SHAPE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("structure", ["diagonal", "unconstrained", "psd"])
def test_the_gradient_is_that_of_the_loss_in_the_shape(
    kind: type[StaticSimilarityConv2d | DynamicSimilarityConv2d], structure: str
) -> None:
    layer, mask = _layer(kind, 0.5, structure), _layer(kind, "continuous", structure)
    _set(mask, SHAPE)  # D itself is the leaf
    gradient = _gradient(layer)
    assert torch.equal(gradient, _gradient(mask))
    assert gradient.count_nonzero() == 4  # of taps that are not there too


def test_the_gradient_is_the_sum_over_the_row_of_the_similarity() -> None:
    layer = _layer(StaticSimilarityConv2d, 0.5)
    assert isinstance(layer, StaticSimilarityConv2d)
    towards = torch.randn(4, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((layer.similarity() * towards).sum(), _shape(layer).D_r)
    torch.testing.assert_close(gradient, (layer.M.view(4, 4) * towards).sum(1), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_depends_on_which_taps_are_there_only(kind: type[StaticSimilarityConv2d | DynamicSimilarityConv2d]) -> None:
    layer = _layer(kind, 0.5)
    before, gradient = layer(X), _gradient(layer)
    _set(layer, torch.tensor([30.0, -7.0, 0.6, 0.49]))
    assert torch.equal(layer(X), before)
    assert torch.equal(_gradient(layer), gradient)
    _set(layer, torch.tensor([30.0, -7.0, 0.49, 0.49]))
    assert not torch.equal(layer(X), before)


def test_a_number_that_crosses_the_threshold_removes_its_tap_and_brings_it_back() -> None:
    torch.manual_seed(0)
    layer = StaticSimilarityConv2d(2, 3, 2, dtype=torch.float64, structure="diagonal", shape_threshold=0.5)
    whole = layer.fold().weight.detach()
    assert whole.all()
    optimizer = torch.optim.SGD(sgd_groups(layer, shape_lr=0.3), lr=0)
    taps = []
    for sign in (1, 1, -1, -1):  # towards less of tap 2, then towards more
        optimizer.zero_grad()
        (sign * layer.similarity()[2, 2]).backward()
        optimizer.step()
        folded = layer.fold().weight.detach()
        taps.append((folded != 0).all((0, 1)).flatten().tolist())
        assert torch.equal(folded[folded != 0], whole[folded != 0])
    there, gone = [True] * 4, [True, True, False, True]
    assert taps == [there, gone, there, there]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_without_taps_gives_the_bias(kind: type[StaticSimilarityConv2d | DynamicSimilarityConv2d]) -> None:
    layer = _layer(kind, 0.5)
    _set(layer, torch.zeros(4))
    assert layer.bias is not None
    assert torch.equal(layer(X), layer.bias[:, None, None].expand(2, 3, 4, 5))
    assert _gradient(layer).all()  # so that taps can come back


@pytest.mark.parametrize("threshold", [1.0, 1.5, float("inf"), float("nan")])
def test_a_threshold_that_leaves_no_tap_is_refused(threshold: float) -> None:
    expected = rf"^shape_threshold {threshold}: expected a number below 1, where D_r starts, or no tap is left$"
    for make in (lambda: KernelShape(9, threshold), lambda: StaticSimilarityConv2d(1, 1, 3, shape_threshold=threshold)):
        with pytest.raises(ConfigurationError, match=expected):
            make()


def test_an_unknown_threshold_is_refused() -> None:
    unchecked = inspect.unwrap(KernelShape.__init__)  # as it is where types are not checked
    with pytest.raises(ConfigurationError, match=r"^shape_threshold 'soft': expected a number below 1, 'continuous', or None$"):
        unchecked(KernelShape.__new__(KernelShape), 9, "soft")


@pytest.mark.parametrize("kind", KINDS)
def test_no_threshold_no_shape(kind: type[StaticSimilarityConv2d | DynamicSimilarityConv2d]) -> None:
    layer = kind(1, 1, 3)
    assert layer.kernel_shape is None
    assert not shape_parameters(layer)


def test_a_continuous_shape_is_the_number_itself() -> None:
    shape = KernelShape(4, "continuous").double()
    with torch.no_grad():
        shape.D_r.copy_(REAL)
    assert torch.equal(shape(), REAL)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_a_continuous_shape(kind: type[StaticSimilarityConv2d | DynamicSimilarityConv2d]) -> None:
    layer = _layer(kind, "continuous")

    def compute(real: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"kernel_shape.D_r": real}, (X[:1, :, :3, :3],))

    assert torch.autograd.gradcheck(compute, (REAL.clone().requires_grad_(),))
    assert torch.autograd.gradgradcheck(lambda real: compute(real).pow(2), (REAL.clone().requires_grad_(),))


def test_a_boolean_shape_has_second_derivatives_of_the_loss_in_the_shape() -> None:
    def hessian(threshold: Any) -> Tensor:
        layer = _layer(StaticSimilarityConv2d, threshold)
        real = REAL if threshold == 0.5 else SHAPE
        values = real.clone().requires_grad_()
        y = torch.func.functional_call(layer, {"kernel_shape.D_r": values}, (X,)).pow(3).sum()
        (first,) = torch.autograd.grad(y, values, create_graph=True)
        return torch.stack([torch.autograd.grad(one, values, retain_graph=True)[0] for one in first])

    assert torch.equal(hessian(0.5), hessian("continuous"))


def _model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        StaticSimilarityConv2d(2, 2, 2, shape_threshold=0.5),
        nn.Sequential(nn.BatchNorm2d(2), DynamicSimilarityConv2d(2, 2, (1, 2), shape_threshold="continuous")),
        StaticSimilarityConv2d(2, 1, 2),
    ).double()


def test_shape_parameters_are_found_by_their_names() -> None:
    model = _model()
    found = shape_parameters(model)
    assert list(found) == ["0.kernel_shape.D_r", "1.1.kernel_shape.D_r"]
    named = dict(model.named_parameters())
    assert all(named[name] is parameter for name, parameter in found.items())


def test_a_lone_shape_is_found_too() -> None:
    shape = KernelShape(3, 0.5)
    assert list(shape_parameters(shape)) == ["D_r"] == [name for name, _ in shape.named_parameters()]


def test_a_layer_that_serves_twice_has_one_shape() -> None:
    layer = StaticSimilarityConv2d(2, 2, 2, shape_threshold=0.5)
    model = nn.Sequential(layer, layer)
    assert list(shape_parameters(model)) == ["0.kernel_shape.D_r"]
    assert [len(group["params"]) for group in sgd_groups(model, shape_lr=0.1)] == [3, 1]


def test_every_parameter_is_in_one_group() -> None:
    model = _model()
    others, shapes = sgd_groups(model, shape_lr=0.1)
    assert {id(value) for value in shapes["params"]} == {id(value) for value in shape_parameters(model).values()}
    together = sorted(id(value) for value in (*others["params"], *shapes["params"]))
    assert together == sorted(id(value) for value in model.parameters())


def test_a_model_without_shapes_has_one_group() -> None:
    assert len(sgd_groups(nn.Conv2d(1, 1, 3), shape_lr=0.1)) == 1


def test_shapes_move_by_plain_gradient_descent_and_the_rest_as_the_optimizer_says() -> None:
    model = _model()
    plain = {name: value.detach().clone() for name, value in model.named_parameters()}
    velocity = dict.fromkeys(plain, torch.zeros((), dtype=torch.float64))
    shapes, shape_lr, lr, momentum, decay = shape_parameters(model), 0.3, 0.1, 0.9, 1e-2
    optimizer = torch.optim.SGD(sgd_groups(model, shape_lr=shape_lr), lr=lr, momentum=momentum, weight_decay=decay, nesterov=True)
    for step in range(2):
        for number, (name, value) in enumerate(model.named_parameters()):
            value.grad = gradient = torch.randn(value.shape, generator=torch.Generator().manual_seed(10 * number + step), dtype=value.dtype)
            if name in shapes:
                plain[name] = plain[name] - shape_lr * gradient
            else:
                gradient = gradient + decay * plain[name]
                velocity[name] = momentum * velocity[name] + gradient
                plain[name] = plain[name] - lr * (gradient + momentum * velocity[name])
        optimizer.step()
        for name, value in model.named_parameters():
            torch.testing.assert_close(value.detach(), plain[name], rtol=1e-14, atol=1e-14)


def test_torch_func_takes_the_gradient() -> None:
    layer = _layer(StaticSimilarityConv2d, 0.5)

    def loss(real: Tensor) -> Tensor:
        y = torch.func.functional_call(layer, {"kernel_shape.D_r": real}, (X,))
        return y.pow(2).sum()

    (expected,) = torch.autograd.grad(layer(X).pow(2).sum(), _shape(layer).D_r)
    torch.testing.assert_close(torch.func.grad(loss)(REAL), expected, rtol=1e-13, atol=1e-13)


def test_torch_func_maps_over_shapes() -> None:
    layer = _layer(StaticSimilarityConv2d, 0.5)
    reals = torch.rand(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert len(boolean_shape(reals, 0.5).unique(dim=0)) > 3

    def output(real: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"kernel_shape.D_r": real}, (X,))

    def gradient(real: Tensor) -> Tensor:
        return torch.func.grad(lambda real: output(real).pow(2).sum())(real)

    for function in (output, gradient):
        expected = torch.stack([function(real) for real in reals])
        torch.testing.assert_close(torch.func.vmap(function)(reals), expected, rtol=1e-12, atol=1e-12)


def test_a_shape_follows_its_layer() -> None:
    layer = _layer(StaticSimilarityConv2d, 0.5)
    assert _shape(layer).D_r.dtype == torch.float64
    other = copy.deepcopy(layer)
    _set(other, torch.ones(4))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(_shape(other).D_r, REAL)


def test_the_threshold_is_shown() -> None:
    assert repr(KernelShape(9, 0.5)) == "KernelShape(taps=9, threshold=0.5)"
    assert repr(KernelShape(4, "continuous")) == "KernelShape(taps=4, threshold=continuous)"
