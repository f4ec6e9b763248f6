from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import STRUCTURES, similarity_conv2d
from fewshot_nsl.similarity.hyperspherical import EPSILON
from fewshot_nsl.similarity.linear import DynamicSimilarityLinear, HypersphericalLinear, StaticSimilarityLinear, similarity_linear
from fewshot_nsl.similarity.structure import Structure

KINDS = ("static diagonal", "static full", "dynamic diagonal", "dynamic full")
LAYERS: tuple[Callable[..., nn.Linear], ...] = (StaticSimilarityLinear, DynamicSimilarityLinear)


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _similarity(kind: str, batch: tuple[int, ...], block: int) -> Tensor:
    when, form = kind.split()
    leading = batch if when == "dynamic" else ()
    return _draw(*leading, block) if form == "diagonal" else _draw(*leading, block, block)


def _compute(kind: str, x: Tensor, weight: Tensor, similarity: Tensor, bias: Tensor | None = None, blocks: int = 1) -> Tensor:
    if kind.startswith("static"):
        return similarity_linear(x, weight, bias, static=similarity, blocks=blocks)
    return similarity_linear(x, weight, bias, dynamic=similarity, blocks=blocks)


def _naive(x: Tensor, weight: Tensor, dense: Tensor, blocks: int) -> Tensor:
    """The sum of the definition, term by term; M `[..., d, d]` is written out from its block."""
    batch = x.shape[:-1]
    y = torch.zeros(*batch, len(weight), dtype=x.dtype)
    for place in product(*map(range, batch)):
        block = dense[place] if dense.dim() > 2 else dense
        m = torch.block_diag(*[block] * blocks)
        for o, i, j in product(range(len(weight)), range(len(m)), range(len(m))):
            y[(*place, o)] += weight[o, i] * m[i, j] * x[(*place, j)]
    return y


def _written_out(kind: str, similarity: Tensor, batch: tuple[int, ...]) -> Tensor:
    dense = torch.diag_embed(similarity) if kind.endswith("diagonal") else similarity
    return dense.expand(*batch, -1, -1) if kind.startswith("dynamic") else dense


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_equals_the_sum_of_the_definition(kind: str, batch: tuple[int, ...], blocks: int) -> None:
    x, weight = _draw(*batch, 6), _draw(4, 6)
    similarity = _similarity(kind, batch, 6 // blocks)
    expected = _naive(x, weight, _written_out(kind, similarity, batch), blocks)
    torch.testing.assert_close(_compute(kind, x, weight, similarity, blocks=blocks), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["dynamic diagonal", "dynamic full"])
@pytest.mark.parametrize("shared", [(1, 3), (2, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("blocks", [1, 2])
def test_vectors_may_share_a_similarity(kind: str, shared: tuple[int, int], blocks: int) -> None:
    x, weight = _draw(2, 3, 4), _draw(5, 4)
    similarity = _similarity(kind, shared, 4 // blocks)
    expected = _naive(x, weight, _written_out(kind, similarity, (2, 3)), blocks)
    torch.testing.assert_close(_compute(kind, x, weight, similarity, blocks=blocks), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bias_is_added(kind: str) -> None:
    x, weight, bias = _draw(2, 3, 4), _draw(5, 4), _draw(5)
    similarity = _similarity(kind, (2, 3), 4)
    torch.testing.assert_close(_compute(kind, x, weight, similarity, bias), _compute(kind, x, weight, similarity) + bias)


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_identity_gives_the_plain_map(blocks: int) -> None:
    x, weight, bias = _draw(2, 3, 4), _draw(5, 4), _draw(5)
    eye = torch.eye(4 // blocks, dtype=torch.float64)
    expected = functional.linear(x, weight, bias)
    for static in (eye.diagonal(), eye):
        assert torch.equal(similarity_linear(x, weight, bias, static=static, blocks=blocks), expected)
        assert torch.equal(similarity_linear(x, weight, bias, dynamic=static.expand(2, 1, *static.shape), blocks=blocks), expected)


def test_rows_of_the_similarity_are_the_weights_features_and_columns_the_inputs() -> None:
    similarity = torch.zeros(3, 3)
    similarity[1, 2] = 1
    x, weight = torch.tensor([2.0, 3.0, 5.0]), torch.tensor([[7.0, 11.0, 13.0]])
    assert similarity_linear(x, weight, static=similarity).tolist() == [11 * 5]
    assert similarity_linear(x, weight, dynamic=similarity).tolist() == [11 * 5]


@pytest.mark.parametrize("kind", KINDS)
def test_a_similarity_convolution_is_this_on_its_windows_with_a_block_for_each_channel(kind: str) -> None:
    x, weight = _draw(2, 3, 4, 4), _draw(5, 3, 2, 2)
    windows = functional.unfold(x, 2).transpose(1, 2)  # [n, h * w, c * K]
    similarity = _similarity(kind, (2, 9), 4)
    located = similarity if kind.startswith("static") else similarity.movedim(1, -1).unflatten(-1, (3, 3))
    expected = similarity_conv2d(x, weight, located).flatten(2).transpose(1, 2)
    torch.testing.assert_close(_compute(kind, windows, weight.flatten(1), similarity, blocks=3), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_derivatives_in_every_argument(kind: str, blocks: int, *, shared: bool) -> None:
    similarity = _similarity(kind, (2, 1 if shared else 2), 4 // blocks)
    inputs = tuple(tensor.requires_grad_() for tensor in (_draw(2, 2, 4), _draw(3, 4), _draw(3), similarity))

    def compute(x: Tensor, weight: Tensor, bias: Tensor, similarity: Tensor) -> Tensor:
        return _compute(kind, x, weight, similarity, bias, blocks)

    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "similarity: expected one of static and dynamic, got neither"),
        ({"static": _draw(4), "dynamic": _draw(2, 3, 4)}, "similarity: expected one of static and dynamic, got both"),
        ({"static": _draw(4), "blocks": 3}, "blocks=3: expected a divisor of the layer's 4 input features"),
        ({"static": _draw(4), "blocks": 0}, "blocks=0: expected a divisor of the layer's 4 input features"),
        ({"static": _draw(3)}, r"static similarity has shape \[3\]: expected \[4\] or \[4, 4\]"),
        ({"static": _draw(4, 4), "blocks": 2}, r"static similarity has shape \[4, 4\]: expected \[2\] or \[2, 2\]"),
        ({"static": _draw(4, 1)}, r"static similarity has shape \[4, 1\]: expected \[4\] or \[4, 4\]"),
        *(
            (
                {"dynamic": _draw(*shape)},
                rf"dynamic similarity has shape \[{', '.join(map(str, shape))}\]: "
                r"expected \[2, 3, 4\] or \[2, 3, 4, 4\] \(2 and 3 may each be 1\)",
            )
            for shape in [(4,), (3, 4), (2, 3, 1), (3, 3, 4), (2, 2, 4), (2, 3, 4, 1), (2, 3, 3, 4), (2, 3, 4, 4, 4)]
        ),
    ],
    ids=str,
)
def test_a_similarity_of_another_shape_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        similarity_linear(_draw(2, 3, 4), _draw(5, 4), **arguments)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_new_layer_is_the_plain_layer(kind: Callable[..., nn.Linear], structure: str, blocks: int, *, bias: bool) -> None:
    layer = kind(6, 4, bias, dtype=torch.float64, structure=structure, blocks=blocks)
    for x in (_draw(6), _draw(5, 6), _draw(2, 5, 6)):
        assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))


def _static(structure: str, blocks: int = 1, *, bias: bool = True) -> StaticSimilarityLinear:
    torch.manual_seed(1)
    layer = StaticSimilarityLinear(4, 3, bias, dtype=torch.float64, structure=structure, blocks=blocks)
    nn.init.normal_(layer.M)
    return layer


def _dynamic(structure: str, blocks: int = 1, *, gain: float = 0.5) -> DynamicSimilarityLinear:
    torch.manual_seed(1)
    layer = DynamicSimilarityLinear(4, 3, dtype=torch.float64, structure=structure, blocks=blocks, hidden_features=8)
    nn.init.constant_(layer.gain, gain)
    return layer


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_static_layer_computes_the_functional_form(structure: str, blocks: int) -> None:
    layer = _static(structure, blocks)
    assert layer.similarity().shape == (4 // blocks, 4 // blocks)
    expected = similarity_linear(_draw(5, 4), layer.weight, layer.bias, static=layer.similarity(), blocks=blocks)
    torch.testing.assert_close(layer(_draw(5, 4)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_the_folded_layer_is_a_plain_layer_of_the_same_output(structure: str, blocks: int, *, bias: bool) -> None:
    layer = _static(structure, blocks, bias=bias).eval()
    folded = layer.fold()
    assert type(folded) is nn.Linear
    assert not folded.training
    torch.testing.assert_close(folded(_draw(5, 4)), layer(_draw(5, 4)), rtol=1e-12, atol=1e-12)
    assert (folded(_draw(5, 4)) - functional.linear(_draw(5, 4), layer.weight, layer.bias)).abs().max() > 0.01  # M does something
    before = layer(_draw(5, 4))
    for parameter in folded.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(layer(_draw(5, 4)), before)


@pytest.mark.parametrize(("structure", "free"), [("diagonal", 3), ("unconstrained", 9)])
def test_the_similarity_is_the_one_new_parameter(structure: str, free: int) -> None:
    layer = StaticSimilarityLinear(6, 4, structure=structure, blocks=2)
    assert {name: tuple(value.shape) for name, value in layer.named_parameters()} == {"weight": (4, 6), "bias": (4,), "M": (free,)}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_dynamic_layer_maps_each_vector_under_the_similarity_predicted_from_it(structure: str, blocks: int) -> None:
    layer, x = _dynamic(structure, blocks), _draw(2, 3, 4)
    similarity = layer.predict(x)
    block = 4 // blocks
    assert similarity.shape == (2, 3, *((block,) if structure == "diagonal" else (block, block)))
    expected = _naive(x, layer.weight, torch.diag_embed(similarity) if structure == "diagonal" else similarity, blocks) + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(x)[1, 2], layer(x[1, 2]), rtol=1e-12, atol=1e-12)  # alone as among others
    assert similarity.flatten(0, 1).std(0).mean() > 0.01  # it does depend on the vector


def test_what_is_predicted_is_added_to_the_identity() -> None:
    layer, x = _dynamic("unconstrained"), _draw(5, 4)
    expected = torch.eye(4, dtype=torch.float64) + 0.5 * layer.predictor(x).view(5, 4, 4)
    torch.testing.assert_close(layer.predict(x), expected)


def test_the_gain_of_a_new_layer_has_a_gradient() -> None:
    layer = _dynamic("diagonal", gain=0)
    layer(_draw(5, 4)).sum().backward()
    assert layer.gain.grad is not None
    assert layer.gain.grad.all()


def test_the_identity_is_no_state() -> None:
    names = {"weight", "bias", "gain", "predictor.0.weight", "predictor.2.weight"}
    assert set(_dynamic("diagonal").state_dict()) == names


@pytest.mark.parametrize("make", [_static, _dynamic])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("blocks", [1, 2])
def test_derivatives_of_the_layers(make: Callable[[str, int], nn.Module], structure: str, blocks: int) -> None:
    layer = make(structure, blocks)
    values = {name: value.detach().requires_grad_() for name, value in layer.named_parameters()}

    def compute(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(values, parameters, strict=True)), (x,))

    inputs = (_draw(2, 4).requires_grad_(), *values.values())
    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


@pytest.mark.parametrize("make", [_static, _dynamic])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_task_may_have_parameters_of_its_own(make: Callable[[str, int], nn.Module], structure: str) -> None:
    layer, x = make(structure, 2), _draw(3, 5, 4)
    values = {name: torch.stack([value.detach() * scale for scale in (1, 2, 3)]) for name, value in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss))(values, x)
    for task in range(3):
        expected = torch.func.grad(loss)({name: value[task] for name, value in values.items()}, x[task])
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name][task], gradient)


def test_hyperspherical_outputs_are_cosines() -> None:
    layer, x = HypersphericalLinear(6, 3).double(), _draw(2, 5, 6)
    norms = (x.square().sum(-1, keepdim=True) + EPSILON).sqrt() * (layer.weight.square().sum(1) + EPSILON).sqrt()
    torch.testing.assert_close(layer(x), x @ layer.weight.T / norms)
    zeros = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    layer(zeros).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


class _Positive(Structure):
    """A diagonal of positive numbers."""

    def identity(self, taps: int) -> Tensor:
        return torch.zeros(taps)

    def matrix(self, free: Tensor) -> Tensor:
        return free.exp()

    def dense(self, free: Tensor) -> Tensor:
        return torch.diag_embed(free.exp())


def test_a_structure_of_ones_own() -> None:
    static = StaticSimilarityLinear(4, 3, False, dtype=torch.float64, structure=_Positive())
    dynamic = DynamicSimilarityLinear(4, 3, False, dtype=torch.float64, structure=_Positive())
    for layer, free in ((static, static.M), (dynamic, dynamic.identity)):
        assert torch.equal(layer(_draw(4)), layer.weight @ _draw(4))
        nn.init.ones_(free)
        torch.testing.assert_close(layer(_draw(4)), torch.e * layer.weight @ _draw(4))


@pytest.mark.parametrize("kind", LAYERS)
def test_arguments_that_name_nothing_are_refused(kind: Callable[..., nn.Linear]) -> None:
    with pytest.raises(ConfigurationError, match="similarity structure 'round' is unknown"):
        kind(4, 3, structure="round")
    with pytest.raises(ConfigurationError, match="blocks=3: expected a divisor of the layer's 4 input features"):
        kind(4, 3, blocks=3)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_form_of_the_similarity_is_shown(kind: Callable[..., nn.Linear]) -> None:
    shown = repr(kind(4, 3, structure="diagonal", blocks=2))
    assert "in_features=4, out_features=3, bias=True, structure=diagonal, blocks=2" in shown
