from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import STRUCTURES, StaticSimilarityConv2d, similarity_conv2d

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": (2, 3), "groups": 2, "dilation": (1, 2)},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": (2, 1), "padding_mode": "circular"},
    {"kernel_size": 5, "padding": "same", "padding_mode": "replicate"},
]

X = torch.randn(2, 4, 7, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _layer(structure: str, geometry: dict[str, Any]) -> StaticSimilarityConv2d:
    torch.manual_seed(1)
    return StaticSimilarityConv2d(4, 6, **geometry, dtype=torch.float64, structure=structure)


def _plain(layer: StaticSimilarityConv2d, geometry: dict[str, Any]) -> nn.Conv2d:
    plain = nn.Conv2d(4, 6, **geometry, dtype=torch.float64)
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_new_layer_is_the_plain_convolution(structure: str, geometry: dict[str, Any]) -> None:
    layer = _layer(structure, geometry)
    assert torch.equal(layer.similarity(), torch.eye(layer.weight[0, 0].numel(), dtype=torch.float64))
    torch.testing.assert_close(layer(X), _plain(layer, geometry)(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_folded_layer_is_a_plain_convolution_of_the_same_output(structure: str, geometry: dict[str, Any]) -> None:
    layer = _layer(structure, geometry)
    nn.init.normal_(layer.M)
    folded = layer.fold()
    assert type(folded) is nn.Conv2d
    torch.testing.assert_close(folded(X), layer(X), rtol=1e-12, atol=1e-12)
    assert (folded(X) - _plain(layer, geometry)(X)).abs().max() > 0.1  # M does something


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_output_is_that_of_the_functional_form(structure: str) -> None:
    layer = _layer(structure, {"kernel_size": 3, "padding": 1, "groups": 2})
    nn.init.normal_(layer.M)
    expected = similarity_conv2d(X, layer.weight, layer.similarity(), layer.bias, padding=1, groups=2)
    torch.testing.assert_close(layer(X), expected, rtol=1e-12, atol=1e-12)


def test_the_folded_layer_has_weights_of_its_own() -> None:
    layer = _layer("diagonal", {"kernel_size": 3})
    before = layer.weight.detach().clone()
    folded = layer.eval().fold()
    assert not folded.training
    assert folded.bias is not None
    nn.init.zeros_(folded.weight)
    nn.init.zeros_(folded.bias)
    assert torch.equal(layer.weight, before)
    assert layer.bias is not None
    assert layer.bias.any()


@pytest.mark.parametrize(("structure", "free"), [("diagonal", 6), ("unconstrained", 36)])
def test_the_similarity_is_the_one_new_parameter(structure: str, free: int) -> None:
    layer = _layer(structure, {"kernel_size": (2, 3)})
    assert {name: tuple(value.shape) for name, value in layer.named_parameters()} == {"weight": (6, 4, 2, 3), "bias": (6,), "M": (free,)}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_derivatives_in_the_input_the_weight_and_the_similarity(structure: str) -> None:
    layer = StaticSimilarityConv2d(2, 2, 2, dtype=torch.float64, structure=structure)
    values = {name: value.detach().requires_grad_() for name, value in layer.named_parameters()}

    def compute(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(values, parameters, strict=True)), (x,))

    inputs = (X[:1, :2, :3, :3].clone().requires_grad_(), *values.values())
    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


def test_what_lies_channels_last_stays_so() -> None:
    layer = _layer("unconstrained", {"kernel_size": 3, "padding": 1})
    assert layer(X.contiguous(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


def test_arguments_are_those_of_a_convolution_in_its_order() -> None:
    layer = StaticSimilarityConv2d(4, 6, 3, 2, 1, 1, 2, False, "reflect", None, torch.float64, structure="diagonal")
    assert layer.bias is None
    expected = functional.conv2d(functional.pad(X, (1, 1, 1, 1), mode="reflect"), layer.weight, stride=2, groups=2)
    torch.testing.assert_close(layer(X), expected)


def test_the_structure_is_shown() -> None:
    assert repr(StaticSimilarityConv2d(1, 2, 3, structure="diagonal")).endswith("stride=(1, 1), structure=diagonal)")


def test_an_unknown_structure_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="similarity structure 'round' is unknown"):
        StaticSimilarityConv2d(1, 1, 3, structure="round")
