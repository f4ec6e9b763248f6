import copy
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import STRUCTURES, DynamicSimilarityConv2d, HardSparse, SpherePredictor, convert, similarity_conv2d
from fewshot_nsl.similarity.columns import Size2

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": (2, 3), "groups": 2, "dilation": (1, 2)},
    {"kernel_size": (3, 1), "padding": (2, 0), "stride": (1, 2)},
    {"kernel_size": (2, 4), "padding": 1},
]
PADDINGS: list[tuple[dict[str, Any], tuple[int, int, int, int]]] = [
    ({"kernel_size": 3, "padding": "valid"}, (0, 0, 0, 0)),
    ({"kernel_size": 3, "padding": "same"}, (1, 1, 1, 1)),
    ({"kernel_size": (5, 3), "padding": "same", "dilation": (1, 2), "groups": 2}, (2, 2, 2, 2)),
    ({"kernel_size": (4, 2), "padding": "same"}, (0, 1, 1, 2)),
    ({"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}, (1, 1, 1, 1)),
    ({"kernel_size": 3, "padding": (2, 1), "padding_mode": "replicate", "stride": 2, "bias": False}, (1, 1, 2, 2)),
    ({"kernel_size": (2, 3), "padding": (0, 3), "padding_mode": "circular"}, (3, 3, 0, 0)),
    ({"kernel_size": 4, "padding": "same", "padding_mode": "replicate"}, (1, 2, 1, 2)),
    ({"kernel_size": 3, "padding": "valid", "padding_mode": "circular"}, (0, 0, 0, 0)),
]
"""Beside each, what it puts on the left, on the right, above and below."""
STRUCTURED: list[str | HardSparse] = [*STRUCTURES, HardSparse(9)]
THRESHOLDS: list[Any] = [None, 0.5, "continuous"]
# torch says this of its own convolution, which a test compares with
SAME = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

X = torch.randn(2, 4, 7, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _layer(structure: str | HardSparse, geometry: dict[str, Any], *, gain: float = 0, threshold: Any = None) -> DynamicSimilarityConv2d:
    torch.manual_seed(1)
    layer = DynamicSimilarityConv2d(4, 6, **geometry, dtype=torch.float64, structure=structure, shape_threshold=threshold).eval()
    return _set(layer, gain)


def _set(layer: DynamicSimilarityConv2d, gain: float) -> DynamicSimilarityConv2d:
    """With a gain other than 0, a kernel shape moves too: every other number of it is below 0.5."""
    assert isinstance(layer.predictor, SpherePredictor)
    nn.init.constant_(layer.predictor.gain, gain)
    if layer.kernel_shape is not None and gain:
        taps = torch.arange(len(layer.kernel_shape.D_r), dtype=torch.float64)
        with torch.no_grad():
            layer.kernel_shape.D_r.copy_(0.9 - 0.7 * (taps % 2) + 0.01 * taps)
    return layer


def _plain_output(layer: DynamicSimilarityConv2d, geometry: dict[str, Any], x: Tensor = X) -> Tensor:
    plain = nn.Conv2d(4, 6, **geometry, dtype=torch.float64)
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain(x)


def _identity(structure: str | HardSparse, taps: int) -> Tensor:
    identity = torch.eye(taps, dtype=torch.float64)
    return identity.diagonal().view(1, taps, 1, 1) if structure == "diagonal" else identity.view(1, taps, taps, 1, 1)


def _dense(similarity: Tensor) -> Tensor:
    """`[n, K, K, h, w]`, of a diagonal too."""
    return similarity if similarity.dim() == 5 else torch.diag_embed(similarity.movedim(1, -1)).movedim((-2, -1), (1, 2))


def _written_out(structure: str, free: Tensor, taps: int) -> Tensor:
    """M `[n, K, K, h, w]` from free numbers `[n, free, h, w]`, one number after the other."""
    numbers: dict[str, list[tuple[int, int]]] = {
        "diagonal": [(i, i) for i in range(taps)],
        "unconstrained": list(product(range(taps), range(taps))),
        "symmetric": [(i, j) for i in range(taps) for j in range(i + 1)],
        "psd": [(i, j) for i in range(taps) for j in range(i + 1)],
    }
    places = numbers[structure]
    dense = free.new_zeros(len(free), taps, taps, *free.shape[2:])
    assert free.shape[1] == len(places)
    for number, (i, j) in enumerate(places):
        dense[:, i, j] = free[:, number]
        if structure == "symmetric":
            dense[:, j, i] = free[:, number]
    return torch.einsum("nikhw,njkhw->nijhw", dense, dense) if structure == "psd" else dense


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("structure", STRUCTURED, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_new_layer_is_the_plain_convolution(structure: str | HardSparse, geometry: dict[str, Any], threshold: Any) -> None:
    layer = _layer(structure, geometry, threshold=threshold)
    similarity, identity = layer.predict(X), _identity(structure, layer.weight[0, 0].numel())
    assert torch.equal(similarity, identity.expand_as(similarity))
    torch.testing.assert_close(layer(X), _plain_output(layer, geometry), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_one_similarity_for_every_output_location(geometry: dict[str, Any]) -> None:
    layer = _layer("diagonal", geometry)
    n, _, h, w = layer(X).shape
    taps = layer.weight[0, 0].numel()
    assert layer.predict(X).shape == (n, taps, h, w)
    for structure in ("unconstrained", "symmetric", "psd"):
        assert _layer(structure, geometry).predict(X).shape == (n, taps, taps, h, w)


@pytest.mark.parametrize("structure", STRUCTURED, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_output_is_the_convolution_under_the_predicted_similarity(structure: str | HardSparse, geometry: dict[str, Any]) -> None:
    layer = _layer(structure, geometry, gain=0.5)
    similarity = layer.predict(X)
    assert similarity.std(0).amax() > 0.05  # it does depend on the image
    expected = similarity_conv2d(X, layer.weight, similarity, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[arg-type]
    assert torch.equal(layer(X), expected)
    assert (layer(X) - _plain_output(layer, geometry)).abs().max() > 0.01


@pytest.mark.parametrize("threshold", [0.5, "continuous"])
@pytest.mark.parametrize("structure", STRUCTURED, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_with_a_kernel_shape_it_is_too(structure: str | HardSparse, geometry: dict[str, Any], threshold: Any) -> None:
    layer = _layer(structure, geometry, gain=0.5, threshold=threshold)
    expected = similarity_conv2d(X, layer.weight, layer.predict(X), layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[arg-type]
    torch.testing.assert_close(layer(X), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("structure", STRUCTURED, ids=str)
def test_the_output_is_the_sum_of_the_definition(structure: str | HardSparse, threshold: Any) -> None:
    layer = _layer(structure, {"kernel_size": (2, 3), "padding": 1, "stride": (2, 1)}, gain=0.5, threshold=threshold)
    x = X[:, :, :4, :4]
    y, similarity = layer(x), _dense(layer.predict(x)).detach()
    padded, kernels = functional.pad(x, (1, 1, 1, 1)), layer.weight.detach().flatten(2)
    for row, column in product(range(3), range(4)):
        expected = torch.zeros(2, 6, dtype=torch.float64) if layer.bias is None else layer.bias.detach().expand(2, 6).clone()
        for i, j in product(range(6), range(6)):
            seen = padded[:, :, 2 * row + j // 3, column + j % 3]
            expected += similarity[:, i, j, row, column, None] * (seen @ kernels[:, :, i].T)
        torch.testing.assert_close(y[:, :, row, column], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("threshold", "shape"), [(0.5, [1, 0, 1, 0]), ("continuous", [0.9, 0.21, 0.92, 0.23])])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_shape_multiplies_the_rows_of_the_similarity(structure: str, threshold: Any, shape: list[float]) -> None:
    layer, whole = _layer(structure, {"kernel_size": 2}, gain=0.5, threshold=threshold), _layer(structure, {"kernel_size": 2}, gain=0.5)
    whole.load_state_dict(layer.state_dict(), strict=False)
    found, expected = layer.predict(X), whole.predict(X)
    for row, kept in enumerate(shape):
        torch.testing.assert_close(found[:, row], kept * expected[:, row], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_similarity_is_the_identity_plus_what_is_predicted(structure: str) -> None:
    layer = _layer(structure, {"kernel_size": 2}, gain=0.5)
    predicted = layer.predictor(X)  # free numbers as channels
    # for "psd" it is the triangle that starts as the identity
    expected = _written_out(structure, predicted + STRUCTURES[structure].identity(4).view(1, -1, 1, 1), 4)
    torch.testing.assert_close(_dense(layer.predict(X)), expected, rtol=1e-13, atol=1e-13)
    if structure != "psd":
        identity = _dense(_identity(structure, 4))
        torch.testing.assert_close(expected, identity + _written_out(structure, predicted, 4), rtol=1e-13, atol=1e-13)


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


def _train(layer: DynamicSimilarityConv2d, steps: int) -> None:
    target = torch.randn(layer(X).shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.train().parameters(), lr=0.2, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        (layer(X) + target).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_psd_similarity_stays_so_at_every_location_in_training(*, training: bool) -> None:
    layer = _layer("psd", {"kernel_size": 3}, gain=0.5)
    start = layer.predict(X)
    for _ in range(3):
        _train(layer, 4)
        similarity = layer.train(training).predict(X).detach().movedim((1, 2), (-2, -1))
        assert torch.linalg.eigvalsh(similarity).min() >= -1e-12
        torch.testing.assert_close(similarity, similarity.mT, rtol=1e-14, atol=1e-14)
    assert (layer.predict(X) - start).abs().max() > 0.1


def test_a_symmetric_similarity_stays_so_at_every_location_in_training() -> None:
    layer = _layer("symmetric", {"kernel_size": 2}, gain=0.5)
    start = layer.predict(X)
    _train(layer, 5)
    similarity = layer.predict(X)
    assert torch.equal(similarity, similarity.transpose(1, 2))
    assert (similarity - start).abs().max() > 0.05


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
    layer = DynamicSimilarityConv2d(1, 1, (1, 2), bias=False, dtype=torch.float64, structure=structure, predictor=_linear_predictor)
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


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("structure", [*STRUCTURES, HardSparse(5)], ids=str)
def test_derivatives_through_the_predictor(structure: str | HardSparse, threshold: Any, *, training: bool) -> None:
    torch.manual_seed(0)
    small = partial(SpherePredictor, hidden_channels=3)
    layer = DynamicSimilarityConv2d(2, 2, 2, dtype=torch.float64, structure=structure, predictor=small, shape_threshold=threshold)
    _set(layer.train(training), 0.5)
    values = {name: value.detach().requires_grad_() for name, value in layer.named_parameters()}
    if threshold == 0.5:
        del values["kernel_shape.D_r"]  # its gradient is no derivative: see test_kernel_shape

    def compute(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(values, parameters, strict=True)), (x,))

    inputs = (X[:2, :2, :3, :4].clone().requires_grad_(), *values.values())
    assert torch.autograd.gradcheck(compute, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(compute, inputs, fast_mode=True)


@pytest.mark.parametrize("structure", ["diagonal", "psd"])
@pytest.mark.parametrize(("geometry", "added"), PADDINGS, ids=str)
def test_any_padding_is_that_of_an_input_padded_before(structure: str, geometry: dict[str, Any], added: tuple[int, int, int, int]) -> None:
    layer = _layer(structure, geometry, gain=0.5)
    bare = _layer(structure, {**geometry, "padding": 0, "padding_mode": "zeros"})
    bare.load_state_dict(layer.state_dict())
    mode = geometry.get("padding_mode", "zeros")
    padded = functional.pad(X, added, "constant" if mode == "zeros" else mode)
    assert torch.equal(layer.predict(X), bare.predict(padded))
    assert torch.equal(layer(X), bare(padded))


@SAME
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("geometry", [geometry for geometry, _ in PADDINGS], ids=str)
def test_with_any_padding_a_new_layer_is_the_plain_convolution(structure: str, geometry: dict[str, Any]) -> None:
    layer = _layer(structure, geometry, threshold=0.5)
    similarity, identity = layer.predict(X), _identity(structure, layer.weight[0, 0].numel())
    assert torch.equal(similarity, identity.expand_as(similarity))
    expected = _plain_output(layer, geometry)
    assert similarity.shape[-2:] == expected.shape[-2:]
    torch.testing.assert_close(layer(X), expected, rtol=1e-12, atol=1e-12)


@SAME
@pytest.mark.parametrize("geometry", [geometry for geometry, _ in PADDINGS], ids=str)
def test_with_any_padding_a_converted_layer_is_the_plain_convolution(geometry: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(4, 6, **geometry, dtype=torch.float64))
    converted = convert(plain, "dynamic").eval()
    assert isinstance(converted.get_submodule("0"), DynamicSimilarityConv2d)
    torch.testing.assert_close(converted(X), plain(X), rtol=1e-12, atol=1e-12)


def test_padding_by_numbers_and_by_name_is_the_same() -> None:
    named, numbered = (_layer("diagonal", {"kernel_size": 3, "padding": padding}, gain=0.5) for padding in ("same", 1))
    torch.testing.assert_close(named(X), numbered(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("structure", STRUCTURED, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_no_images_give_no_outputs(structure: str | HardSparse, *, training: bool) -> None:
    layer = _layer(structure, {"kernel_size": (2, 3)}, gain=0.5).train(training)
    layer.weight.grad = None
    y = layer(X[:0])
    assert y.shape == (0, 6, 6, 6)
    y.sum().backward()
    for value in layer.parameters():
        assert value.grad is not None
        assert not value.grad.any()


@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_is_no_number_reaches_no_further_than_the_predictor(structure: str) -> None:
    layer, x = _layer(structure, {"kernel_size": 3}, gain=0.5), X.clone()
    x[0, 1, 0, 0] = torch.nan
    y = layer(x)
    assert y[0, :, 0, 0].isnan().all()
    assert torch.equal(y[0, :, 2:], layer(X)[0, :, 2:])
    assert torch.equal(y[0, :, :, 2:], layer(X)[0, :, :, 2:])
    assert torch.equal(y[1], layer(X)[1])


def test_what_lies_channels_last_stays_so() -> None:
    layer = _layer("diagonal", {"kernel_size": 3, "padding": 1}, gain=0.5)
    assert layer(X.contiguous(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


def test_the_identity_is_no_state() -> None:
    layer = DynamicSimilarityConv2d(1, 1, 3)
    assert {name.partition(".")[0] for name in layer.state_dict()} == {"weight", "bias", "predictor"}


def test_a_kernel_shape_is_state() -> None:
    layer = _layer("unconstrained", {"kernel_size": 3}, gain=0.5, threshold=0.5)
    other = _layer("unconstrained", {"kernel_size": 3}, threshold=0.5)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(X), layer(X))
    assert torch.equal(copy.deepcopy(layer)(X), layer(X))


def test_the_structure_and_the_kernel_shape_are_shown() -> None:
    shown = repr(DynamicSimilarityConv2d(1, 2, 3, structure="symmetric", shape_threshold="continuous"))
    assert "structure=symmetric" in shown
    assert "(kernel_shape): KernelShape(taps=9, threshold=continuous)" in shown


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="similarity structure 'round' is unknown"):
        DynamicSimilarityConv2d(1, 1, 3, structure="round")
    with pytest.raises(ConfigurationError, match="similarity predictor 'oracle' is unknown"):
        DynamicSimilarityConv2d(1, 1, 3, predictor="oracle")
