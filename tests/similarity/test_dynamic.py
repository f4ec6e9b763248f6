from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import STRUCTURES, DynamicSimilarityConv2d, SpherePredictor, similarity_conv2d
from fewshot_nsl.similarity.columns import Size2

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": (2, 3), "groups": 2, "dilation": (1, 2)},
    {"kernel_size": (3, 1), "padding": (2, 0), "stride": (1, 2)},
]

X = torch.randn(2, 4, 7, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _layer(structure: str, geometry: dict[str, Any], *, gain: float = 0) -> DynamicSimilarityConv2d:
    torch.manual_seed(1)
    layer = DynamicSimilarityConv2d(4, 6, **geometry, dtype=torch.float64, structure=structure).eval()
    assert isinstance(layer.predictor, SpherePredictor)
    nn.init.constant_(layer.predictor.gain, gain)
    return layer


def _plain_output(layer: DynamicSimilarityConv2d, geometry: dict[str, Any]) -> Tensor:
    plain = nn.Conv2d(4, 6, **geometry, dtype=torch.float64)
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain(X)


def _identity(structure: str, taps: int) -> Tensor:
    identity = torch.eye(taps, dtype=torch.float64)
    return identity.diagonal().view(1, taps, 1, 1) if structure == "diagonal" else identity.view(1, taps, taps, 1, 1)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_new_layer_is_the_plain_convolution(structure: str, geometry: dict[str, Any]) -> None:
    layer = _layer(structure, geometry)
    similarity, identity = layer.predict(X), _identity(structure, layer.weight[0, 0].numel())
    assert torch.equal(similarity, identity.expand_as(similarity))
    torch.testing.assert_close(layer(X), _plain_output(layer, geometry), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_one_similarity_for_every_output_location(geometry: dict[str, Any]) -> None:
    layer = _layer("diagonal", geometry)
    n, _, h, w = layer(X).shape
    taps = layer.weight[0, 0].numel()
    assert layer.predict(X).shape == (n, taps, h, w)
    assert _layer("unconstrained", geometry).predict(X).shape == (n, taps, taps, h, w)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_output_is_the_convolution_under_the_predicted_similarity(structure: str, geometry: dict[str, Any]) -> None:
    layer = _layer(structure, geometry, gain=0.5)
    similarity = layer.predict(X)
    assert similarity.std(0).mean() > 0.01  # it does depend on the image
    expected = similarity_conv2d(X, layer.weight, similarity, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[arg-type]
    assert torch.equal(layer(X), expected)
    assert (layer(X) - _plain_output(layer, geometry)).abs().max() > 0.01


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_similarity_is_the_identity_plus_what_is_predicted(structure: str) -> None:
    layer = _layer(structure, {"kernel_size": 2}, gain=0.5)
    predicted = layer.predictor(X)  # free numbers row by row, as channels
    expected = _identity(structure, 4) + predicted.view(2, *((4,) if structure == "diagonal" else (4, 4)), 6, 7)
    torch.testing.assert_close(layer.predict(X), expected)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_location_is_seen_through_its_own_window(structure: str) -> None:
    layer = _layer(structure, {"kernel_size": 3}, gain=0.5)
    changed = X.clone()
    changed[0, :, 0, 0] += 1
    moved = (layer(changed) - layer(X)).abs().amax(1)
    assert moved[0, :2, :2].gt(0).all()  # the predictor's two 3 x 3 kernels together reach two pixels past the window
    assert not moved[0, 2:].any()
    assert not moved[0, :, 2:].any()
    assert not moved[1].any()


class _Recorded(nn.Module):
    """A predictor that adds a constant."""

    def __init__(
        self, in_channels: int, outputs: int, kernel_size: tuple[int, int], stride: Size2, padding: Size2, dilation: Size2
    ) -> None:
        super().__init__()
        self.geometry = in_channels, outputs, kernel_size, stride, padding, dilation
        self.offset = nn.Parameter(torch.ones(outputs))

    def forward(self, input: Tensor) -> Tensor:
        return self.offset.view(1, -1, 1, 1).expand(len(input), -1, 3, 4)


def test_a_predictor_of_ones_own() -> None:
    layer = DynamicSimilarityConv2d(4, 6, (2, 3), 2, (0, 1), (2, 1), dtype=torch.float64, predictor=_Recorded)
    assert isinstance(layer.predictor, _Recorded)
    assert layer.predictor.geometry == (4, 6, (2, 3), 2, (0, 1), (2, 1))
    assert layer.predictor.offset.dtype == torch.float64  # it follows the layer's dtype
    expected = nn.functional.conv2d(X, 2 * layer.weight, layer.bias, 2, (0, 1), (2, 1))
    torch.testing.assert_close(layer(X), expected)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("image_wants", [True, False], ids=["inside a network", "first layer"])
def test_twice_differentiable(structure: str, *, image_wants: bool) -> None:
    torch.manual_seed(0)
    layer = DynamicSimilarityConv2d(1, 1, 2, bias=False, dtype=torch.float64, structure=structure, predictor=_linear_predictor)
    values = {name: value.detach().requires_grad_() for name, value in layer.named_parameters()}

    def compute(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(values, parameters, strict=True)), (x,))

    inputs = (X[:1, :1, :2, :3].clone().requires_grad_(image_wants), *values.values())
    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


def _linear_predictor(
    in_channels: int, outputs: int, kernel_size: tuple[int, int], stride: Size2, padding: Size2, dilation: Size2
) -> nn.Module:
    return nn.Conv2d(in_channels, outputs, kernel_size, stride, padding, dilation)


def test_what_lies_channels_last_stays_so() -> None:
    layer = _layer("diagonal", {"kernel_size": 3, "padding": 1}, gain=0.5)
    assert layer(X.contiguous(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


def test_the_identity_is_no_state() -> None:
    layer = DynamicSimilarityConv2d(1, 1, 3)
    assert {name.partition(".")[0] for name in layer.state_dict()} == {"weight", "bias", "predictor"}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"padding": "same"}, "padding 'same' with mode 'zeros'"),
        ({"padding": 1, "padding_mode": "reflect"}, "padding 1 with mode 'reflect'"),
    ],
)
def test_padding_that_is_not_a_number_of_zeros_is_refused(arguments: dict[str, Any], shown: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{shown}: a dynamic similarity layer takes a number of zeros; pad before the layer"):
        DynamicSimilarityConv2d(1, 1, 3, **arguments)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="similarity structure 'round' is unknown"):
        DynamicSimilarityConv2d(1, 1, 3, structure="round")
    with pytest.raises(ConfigurationError, match="similarity predictor 'oracle' is unknown"):
        DynamicSimilarityConv2d(1, 1, 3, predictor="oracle")
