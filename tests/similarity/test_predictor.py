from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import (
    PREDICTORS,
    STRUCTURES,
    DynamicSimilarityConv2d,
    PlainPredictor,
    SpherePredictor,
    convert,
    hyperspherical_conv2d,
)
from fewshot_nsl.similarity.columns import Size2
from fewshot_nsl.similarity.predictor import get_predictor

Built = SpherePredictor | PlainPredictor
NAMED: dict[str, Callable[..., nn.Module]] = dict(PREDICTORS)  # with the options that a predictor of one's own need not have
SPHERES, PLAINS = ("sphere", "sphere-input"), ("cnn-normalised", "cnn-sigmoid")


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _predictor(name: str, *, gain: float | None = None, **options: Any) -> Built:
    """Of 3 channels, 5 outputs, a 3x3 kernel with padding 1, in double precision."""
    torch.manual_seed(1)
    predictor = partial(NAMED[name], **options)(3, 5, (3, 3), 1, 1, 1).double()
    assert isinstance(predictor, SpherePredictor | PlainPredictor)
    if gain is not None:
        nn.init.constant_(predictor.gain, gain)
    return predictor


X = _draw(4, 3, 6, 7)


def test_the_predictors_by_name() -> None:
    assert list(PREDICTORS) == ["sphere", "sphere-input", "cnn-normalised", "cnn-sigmoid"]


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", PREDICTORS)
def test_a_new_predictor_predicts_zeros(name: str, *, train: bool) -> None:
    assert not _predictor(name).train(train)(X).any()


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", PREDICTORS)
def test_the_similarity_of_a_new_layer_is_bitwise_the_identity(name: str, structure: str, *, train: bool) -> None:
    layer = DynamicSimilarityConv2d(3, 4, (2, 3), structure=structure, predictor=name).train(train)
    similarity = layer.predict(X.float())
    identity = torch.ones(6)[:, None, None] if structure == "diagonal" else torch.eye(6)[..., None, None]
    assert torch.equal(similarity, identity.expand_as(similarity))


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3), 1, 1, 1),
        ((2, 3), (2, 1), (0, 2), 1),
        ((1, 1), 3, 0, 1),
        ((3, 3), 1, 0, 2),
        ((2, 2), 1, 1, 1),
        ((4, 2), 2, (2, 1), 1),
        ((1, 5), (1, 2), (0, 2), (1, 1)),
        ((3, 2), (2, 3), (3, 0), (2, 3)),
        ((7, 7), 2, 3, 1),
    ],
    ids=str,
)
def test_the_output_has_the_resolution_of_the_convolution(
    name: str, kernel: tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, int], dilation: int | tuple[int, int]
) -> None:
    predicted = PREDICTORS[name](3, 5, kernel, stride, padding, dilation)(torch.randn(2, 3, 8, 7))
    output = nn.Conv2d(3, 1, kernel, stride, padding, dilation)(torch.randn(2, 3, 8, 7))
    assert predicted.shape == (2, 5, *output.shape[2:])


@pytest.mark.parametrize("kernel_norm", [True, False])
def test_the_sphere_predictor_is_two_cosine_convolutions_with_a_gain(*, kernel_norm: bool) -> None:
    predictor = SpherePredictor(2, 4, (3, 3), padding=1, hidden_channels=6, kernel_norm=kernel_norm).double().eval()
    gain = torch.tensor([0.0, 1.0, 2.0, -1.0], dtype=torch.float64)
    with torch.no_grad():
        predictor.gain.copy_(gain)
    x = _draw(2, 2, 5, 5)
    cosine = partial(hyperspherical_conv2d, padding=1, kernel_norm=kernel_norm)
    hidden = functional.relu(cosine(x, predictor.first.weight) / (1 + predictor.norm.eps) ** 0.5)
    expected = cosine(hidden, predictor.second.weight) * gain.view(1, 4, 1, 1)
    torch.testing.assert_close(predictor(x), expected)


@pytest.mark.parametrize("name", PLAINS)
def test_the_plain_predictor_is_two_convolutions_squashed_with_a_gain(name: str) -> None:
    predictor = _predictor(name, gain=0.7, hidden_channels=6).train()
    first, second = predictor.first.weight, predictor.second
    assert isinstance(second, nn.Conv2d)
    hidden = functional.relu(functional.batch_norm(functional.conv2d(X, first, padding=1), None, None, training=True))
    outputs = functional.conv2d(hidden, second.weight, second.bias, padding=1)
    squashed = outputs.sigmoid() if name == "cnn-sigmoid" else functional.batch_norm(outputs, None, None, training=True)
    torch.testing.assert_close(predictor(X), 0.7 * squashed)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sphere", 32 * 32 * 9 + 2 * 32 + 9 * 32 * 9 + 9),
        ("sphere-input", 32 * 32 * 9 + 2 * 32 + 9 * 32 * 9 + 9),
        ("cnn-normalised", 32 * 32 * 9 + 2 * 32 + (9 * 32 * 9 + 9) + 9),
        ("cnn-sigmoid", 32 * 32 * 9 + 2 * 32 + (9 * 32 * 9 + 9) + 9),
    ],
)
def test_number_of_parameters(name: str, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in PREDICTORS[name](32, 9, (3, 3), 1, 1, 1).parameters()) == parameters


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_fixed_gain_is_not_learned(name: str) -> None:
    predictor = _predictor(name)
    fixed = partial(NAMED[name], gain=1.0)(3, 5, (3, 3), 1, 1, 1)
    assert isinstance(fixed, SpherePredictor | PlainPredictor)
    assert predictor.gain.requires_grad
    assert not fixed.gain.requires_grad
    assert torch.equal(fixed.gain, torch.ones(5))
    assert fixed(X.float()).any()


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_layer_of_fixed_gain_is_not_plain_at_the_start_and_keeps_its_gain_fixed(name: str) -> None:
    layer = DynamicSimilarityConv2d(3, 4, 3, predictor=partial(NAMED[name], gain=1.0))
    assert (layer.predict(X.float()) - 1).abs().max() > 0.01
    assert "predictor.gain" not in {name for name, value in layer.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_what_the_sphere_predicts_is_bounded_by_the_gain(scale: float) -> None:
    predictor = _predictor("sphere", gain=0.5)
    for weight in (predictor.first.weight, predictor.second.weight):
        nn.init.normal_(weight, std=scale)
    assert predictor(scale * X).abs().max() <= 0.5 + 1e-12


def test_only_the_sphere_of_inputs_grows_with_its_kernels() -> None:
    for name, times in (("sphere", 1.0), ("sphere-input", 3.0)):
        predictor = _predictor(name, gain=0.5).eval()
        nn.init.normal_(predictor.second.weight)  # long enough for EPSILON not to matter
        before = predictor(X)
        with torch.no_grad():
            predictor.second.weight.mul_(3)
        torch.testing.assert_close(predictor(X), times * before, rtol=1e-4, atol=1e-6)


def test_what_the_sigmoid_predicts_lies_between_zero_and_the_gain() -> None:
    predicted = _predictor("cnn-sigmoid", gain=0.5)(X)
    assert predicted.gt(0).all()
    assert predicted.lt(0.5).all()


def test_what_the_normalised_predicts_has_zero_mean_and_the_gains_deviation_in_training() -> None:
    predictor = _predictor("cnn-normalised", gain=0.5).train()
    nn.init.normal_(predictor.second.weight)  # large enough for the norm's epsilon not to matter
    predicted = predictor(X)
    torch.testing.assert_close(predicted.mean((0, 2, 3)), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(predicted.var((0, 2, 3), correction=0), torch.full((5,), 0.25, dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", PREDICTORS)
def test_only_the_predictors_with_a_norm_at_their_end_have_a_squashing_state(name: str) -> None:
    states = {"squash.running_mean", "squash.running_var", "squash.num_batches_tracked"}
    assert states & set(_predictor(name).state_dict()) == (states if name == "cnn-normalised" else set())


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", PREDICTORS)
def test_derivatives_through_a_dynamic_layer(name: str, structure: str, *, train: bool) -> None:
    torch.manual_seed(3)
    build = partial(NAMED[name], hidden_channels=2)
    layer = DynamicSimilarityConv2d(1, 1, (1, 2), bias=False, dtype=torch.float64, structure=structure, predictor=build).train(train)
    nn.init.constant_(layer.get_parameter("predictor.gain"), 0.5)
    for norm in (module for module in layer.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 0.0  # running statistics stay as they are
    values = {name: value.detach().requires_grad_() for name, value in layer.named_parameters()}

    def compute(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(values, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(
        compute, (_draw(2, 1, 2, 3).requires_grad_(), *values.values()), fast_mode=True, check_undefined_grad=False
    )


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", PREDICTORS)
def test_the_first_gradient_reaches_the_gain_and_the_next_one_the_whole_predictor(name: str, structure: str) -> None:
    torch.manual_seed(0)
    layer = DynamicSimilarityConv2d(3, 4, 3, padding=1, dtype=torch.float64, structure=structure, predictor=name)
    target = _draw(4, 4, 6, 7)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    inside = {name: value for name, value in layer.named_parameters() if name.startswith("predictor.")}
    for step in range(2):
        optimiser.zero_grad()
        functional.mse_loss(layer(X), target).backward()
        reached = {name for name, value in inside.items() if value.grad is not None and value.grad.any()}
        # A norm at the end takes out what the last bias adds, up to rounding.
        assert reached - {"predictor.second.bias"} == (set(inside) - {"predictor.second.bias"} if step else {"predictor.gain"})
        if step == 0:
            assert inside["predictor.gain"].grad is not None
            assert inside["predictor.gain"].grad.all()
        optimiser.step()


def test_a_square_is_flat_in_the_gain_of_a_new_predictor() -> None:
    predictor = SpherePredictor(2, 4, (3, 3))
    predictor(torch.randn(2, 2, 5, 5)).square().sum().backward()
    assert predictor.gain.grad is not None
    assert not predictor.gain.grad.any()


class _Own(nn.Module):
    """Recorded, and adds a learned number."""

    def __init__(
        self, in_channels: int, outputs: int, kernel_size: tuple[int, int], stride: Size2, padding: Size2, dilation: Size2
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, outputs, kernel_size, stride, padding, dilation)
        nn.init.zeros_(self.convolution.weight)
        nn.init.constant_(self.convolution.bias, 0.5)  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        return self.convolution(input)


def test_a_callable_of_ones_own_is_taken_as_it_is() -> None:
    assert get_predictor(_Own) is _Own


def test_a_predictor_of_ones_own_serves_a_converted_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, (1, 2), dilation=2, bias=False)).double()
    converted = convert(net, "dynamic", predictor=_Own)
    first, last = converted[0], converted[2]  # type: ignore[index]
    assert isinstance(first.predictor, _Own)
    assert first.predictor.convolution.weight.shape == (9, 3, 3, 3)
    assert last.predictor.convolution.weight.shape == (2, 4, 1, 2)
    with torch.no_grad():
        expected = 1.5 * net[2]((1.5 * (net[0](X) - net[0].bias[:, None, None]) + net[0].bias[:, None, None]).relu())  # type: ignore[index]
    torch.testing.assert_close(converted(X), expected)


def test_an_unknown_predictor_is_refused() -> None:
    message = (
        r"similarity predictor 'oracle' is unknown: "
        r"expected one of sphere, sphere-input, cnn-normalised, cnn-sigmoid, or a callable$"
    )
    with pytest.raises(ConfigurationError, match=message):
        get_predictor("oracle")
