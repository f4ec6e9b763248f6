from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import STRUCTURES, HardSparse, StaticSimilarityConv2d, similarity_conv2d

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": (2, 3), "groups": 2, "dilation": (1, 2)},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": (4, 2), "padding": "same", "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": (2, 1), "padding_mode": "circular"},
    {"kernel_size": 5, "padding": "same", "padding_mode": "replicate"},
]
STRUCTURED: list[str | HardSparse] = [*STRUCTURES, HardSparse(30)]
THRESHOLDS: list[Any] = [None, 0.5, "continuous"]

X = torch.randn(2, 4, 7, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _layer(structure: str | HardSparse, geometry: dict[str, Any], threshold: Any = None) -> StaticSimilarityConv2d:
    torch.manual_seed(1)
    return StaticSimilarityConv2d(4, 6, **geometry, dtype=torch.float64, structure=structure, shape_threshold=threshold)


def _moved(layer: StaticSimilarityConv2d) -> StaticSimilarityConv2d:
    """Away from where it starts; of a kernel shape, every other number is below 0.5."""
    with torch.no_grad():
        size = layer.M.numel()  # no two magnitudes of M are close to each other
        layer.M.copy_((1 + torch.randperm(size)) / size * torch.randn(size).sign())
        if layer.kernel_shape is not None:
            taps = torch.arange(len(layer.kernel_shape.D_r), dtype=torch.float64)
            layer.kernel_shape.D_r.copy_(0.9 - 0.7 * (taps % 2) + 0.01 * taps)
    return layer


def _plain(layer: StaticSimilarityConv2d, geometry: dict[str, Any]) -> nn.Conv2d:
    plain = nn.Conv2d(4, 6, **geometry, dtype=torch.float64)
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain


def _combined(weight: Tensor, similarity: Tensor) -> Tensor:
    """`sum_i w_i M_ij`, term by term."""
    kernel, combined = weight.flatten(2), torch.zeros_like(weight.flatten(2))
    for i in range(len(similarity)):
        for j in range(len(similarity)):
            combined[:, :, j] += kernel[:, :, i] * similarity[i, j]
    return combined.view_as(weight)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("structure", STRUCTURED, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_new_layer_is_the_plain_convolution(structure: str | HardSparse, geometry: dict[str, Any], threshold: Any) -> None:
    layer = _layer(structure, geometry, threshold)
    assert torch.equal(layer.similarity(), torch.eye(layer.weight[0, 0].numel(), dtype=torch.float64))
    assert torch.equal(layer.fold().weight, layer.weight)
    torch.testing.assert_close(layer(X), _plain(layer, geometry)(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("structure", STRUCTURED, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_output_is_that_of_the_kernel_combined_with_the_similarity(
    structure: str | HardSparse, geometry: dict[str, Any], threshold: Any
) -> None:
    layer = _moved(_layer(structure, geometry, threshold))
    plain = nn.Conv2d(4, 6, **geometry, dtype=torch.float64)
    with torch.no_grad():
        plain.weight.copy_(_combined(layer.weight, layer.similarity()))
        if plain.bias is not None and layer.bias is not None:
            plain.bias.copy_(layer.bias)
    torch.testing.assert_close(layer(X), plain(X), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("structure", STRUCTURED, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_folded_layer_is_a_plain_convolution_of_the_same_output(
    structure: str | HardSparse, geometry: dict[str, Any], threshold: Any
) -> None:
    layer = _moved(_layer(structure, geometry, threshold))
    folded = layer.fold()
    assert type(folded) is nn.Conv2d
    torch.testing.assert_close(folded(X), layer(X), rtol=1e-12, atol=1e-12)
    assert (folded(X) - _plain(layer, geometry)(X)).abs().max() > 0.1  # M does something


@pytest.mark.parametrize("structure", STRUCTURED, ids=str)
@pytest.mark.parametrize(("threshold", "shape"), [(0.5, [1, 0, 1, 0, 1, 0]), ("continuous", [0.9, 0.21, 0.92, 0.23, 0.94, 0.25])])
def test_the_similarity_is_the_shape_times_what_the_structure_gives(
    structure: str | HardSparse, threshold: Any, shape: list[float]
) -> None:
    geometry = {"kernel_size": (2, 3)}
    layer, whole = _moved(_layer(structure, geometry, threshold)), _layer(structure, geometry)
    whole.load_state_dict(layer.state_dict(), strict=False)
    for row, kept in enumerate(shape):
        torch.testing.assert_close(layer.similarity()[row], kept * whole.similarity()[row], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("structure", STRUCTURED, ids=str)
def test_the_output_is_that_of_the_functional_form(structure: str | HardSparse, threshold: Any) -> None:
    layer = _moved(_layer(structure, {"kernel_size": 3, "padding": 1, "groups": 2}, threshold))
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


@pytest.mark.parametrize(("structure", "free"), [("diagonal", 6), ("unconstrained", 36), ("symmetric", 21), ("psd", 21)])
def test_the_similarity_is_the_one_new_parameter(structure: str, free: int) -> None:
    layer = _layer(structure, {"kernel_size": (2, 3)})
    assert {name: tuple(value.shape) for name, value in layer.named_parameters()} == {"weight": (6, 4, 2, 3), "bias": (6,), "M": (free,)}


def test_a_kernel_shape_adds_a_number_for_each_tap() -> None:
    layer = _layer("diagonal", {"kernel_size": (2, 3)}, 0.5)
    assert {name: tuple(value.shape) for name, value in layer.named_parameters()} == {
        "weight": (6, 4, 2, 3),
        "bias": (6,),
        "M": (6,),
        "kernel_shape.D_r": (6,),
    }


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("structure", [*STRUCTURES, HardSparse(7)], ids=str)
def test_derivatives_in_the_input_the_weight_and_the_similarity(structure: str | HardSparse, threshold: Any) -> None:
    torch.manual_seed(2)
    layer = StaticSimilarityConv2d(1, 2, 2, dtype=torch.float64, structure=structure, shape_threshold=threshold)
    values = {name: value.detach().requires_grad_() for name, value in _moved(layer).named_parameters()}
    if threshold == 0.5:
        del values["kernel_shape.D_r"]  # its gradient is no derivative: see test_kernel_shape

    def compute(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(values, parameters, strict=True)), (x,))

    inputs = (X[:1, :1, :3, :3].clone().requires_grad_(), *values.values())
    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


def test_a_psd_similarity_stays_so_in_training() -> None:
    layer = _layer("psd", {"kernel_size": 3})
    target = torch.randn(2, 6, 5, 6, dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.2, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        (layer(X) + target).square().mean().backward()
        optimizer.step()
        similarity = layer.similarity().detach()
        assert torch.linalg.eigvalsh(similarity).min() >= -1e-12
        assert torch.equal(similarity, similarity.T)
    assert (similarity - torch.eye(9)).abs().max() > 0.1


def test_a_symmetric_similarity_stays_so_in_training() -> None:
    layer = _layer("symmetric", {"kernel_size": 3})
    optimizer = torch.optim.SGD([layer.M], lr=0.2)
    for _ in range(5):
        optimizer.zero_grad()
        (layer(X) - 1).square().mean().backward()
        optimizer.step()
    assert torch.equal(layer.similarity(), layer.similarity().T)
    assert (layer.similarity() - torch.eye(9)).abs().max() > 0.01


@pytest.mark.parametrize("structure", STRUCTURES)
def test_torch_func_maps_over_similarities(structure: str) -> None:
    layer = _layer(structure, {"kernel_size": 2})
    several = torch.randn(3, layer.M.numel(), dtype=torch.float64)

    def loss(similarity: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layer, {"M": similarity}, (X,))
        return y.pow(2).sum()

    expected = torch.stack([torch.func.grad(loss)(one) for one in several])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(several), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_is_no_number_stays_where_a_plain_convolution_puts_it(structure: str) -> None:
    geometry = {"kernel_size": 3, "padding": 1}
    layer, x = _layer(structure, geometry), X.clone()
    x[0, 1, 2, 3], x[1, 0, 6, 0] = torch.nan, torch.inf
    assert torch.equal(layer(x).isnan(), _plain(layer, geometry)(x).isnan())
    assert torch.equal(layer(x).isfinite(), _plain(layer, geometry)(x).isfinite())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_no_images_give_no_outputs(structure: str) -> None:
    layer = _layer(structure, {"kernel_size": 3})
    y = layer(X[:0])
    assert y.shape == (0, 6, 5, 6)
    y.sum().backward()
    assert layer.M.grad is not None
    assert not layer.M.grad.any()


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


def test_the_kernel_shape_is_shown() -> None:
    shown = repr(StaticSimilarityConv2d(1, 2, 3, structure="psd", shape_threshold=0.5))
    assert "structure=psd" in shown
    assert "(kernel_shape): KernelShape(taps=9, threshold=0.5)" in shown


def test_an_unknown_structure_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="similarity structure 'round' is unknown"):
        StaticSimilarityConv2d(1, 1, 3, structure="round")
