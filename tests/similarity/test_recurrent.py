from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.linear import DynamicSimilarityLinear, StaticSimilarityLinear
from fewshot_nsl.similarity.recurrent import LinearMaker, SimilarityCell, SimilarityGRUCell, SimilarityLSTMCell, similarity_cell

MAPS: dict[str, LinearMaker] = {
    "plain": nn.Linear,
    "static": StaticSimilarityLinear,
    "static diagonal": partial(StaticSimilarityLinear, structure="diagonal"),
    "dynamic": DynamicSimilarityLinear,
}
Maker = Callable[..., SimilarityCell]
TORCH: dict[Maker, Callable[..., nn.LSTMCell | nn.GRUCell]] = {SimilarityLSTMCell: nn.LSTMCell, SimilarityGRUCell: nn.GRUCell}

X = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
"""Four steps of three sequences."""


class _Steps(nn.Module):
    """Every state of every step, one behind the other."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, steps: Tensor) -> Tensor:
        state, states = None, []
        for x in steps:
            state = self.cell(x, state)
            states.append(torch.cat(state, -1) if isinstance(state, tuple) else state)
        return torch.stack(states)


def _run(cell: nn.Module, steps: Tensor) -> Tensor:
    return _Steps(cell)(steps)


def _cell(kind: Maker, linear: LinearMaker = StaticSimilarityLinear) -> SimilarityCell:
    torch.manual_seed(1)
    return kind(5, 6, linear=linear).double()


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("linear", MAPS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_converted_cell_computes_what_the_cell_computes(kind: Maker, linear: str, *, bias: bool) -> None:
    cell = TORCH[kind](5, 6, bias=bias, dtype=torch.float64).eval()
    similar = similarity_cell(cell, linear=MAPS[linear])
    assert type(similar) is kind
    assert not similar.training
    torch.testing.assert_close(_run(similar, X), _run(cell, X), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(_run(similar, X[:, 0]), _run(cell, X[:, 0]), rtol=1e-12, atol=1e-12)  # single vectors


@pytest.mark.parametrize("kind", TORCH)
def test_a_converted_cell_has_weights_of_its_own(kind: Maker) -> None:
    cell = TORCH[kind](5, 6)
    cell.weight_hh.requires_grad_(False)
    similar = similarity_cell(cell)
    assert torch.equal(similar.input_map.weight, cell.weight_ih)
    assert similar.input_map.weight is not cell.weight_ih
    assert not similar.hidden_map.weight.requires_grad


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("linear", MAPS)
def test_sizes_bias_and_first_weights_are_those_of_torchs_cell(kind: Maker, linear: str) -> None:
    for bias in (True, False):
        similar, cell = kind(5, 6, bias, linear=MAPS[linear]), TORCH[kind](5, 6, bias)
        for layer, end in ((similar.input_map, "ih"), (similar.hidden_map, "hh")):
            assert layer.weight.shape == getattr(cell, f"weight_{end}").shape
            assert layer.weight.abs().max() <= 6**-0.5
            assert (layer.bias is None) == (not bias)
    assert similar.input_map.weight.abs().max() > 0.8 * 6**-0.5


@pytest.mark.parametrize("kind", TORCH)
def test_folding_each_map_changes_no_output(kind: Maker) -> None:
    similar = _cell(kind)
    before = _run(similar, X)
    assert isinstance(similar.input_map, StaticSimilarityLinear)
    assert isinstance(similar.hidden_map, StaticSimilarityLinear)
    for layer in (similar.input_map, similar.hidden_map):
        nn.init.normal_(layer.M, std=0.5)
    moved = _run(similar, X)
    assert (moved - before).abs().max() > 0.01
    similar.input_map, similar.hidden_map = similar.input_map.fold(), similar.hidden_map.fold()
    torch.testing.assert_close(_run(similar, X), moved, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("linear", MAPS)
def test_any_leading_axes(kind: Maker, linear: str) -> None:
    similar, steps = _cell(kind, MAPS[linear]), torch.randn(4, 2, 3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = _run(similar, steps.flatten(1, 2)).unflatten(1, (2, 3))
    torch.testing.assert_close(_run(similar, steps), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("linear", ["static", "dynamic"])
def test_derivatives_through_two_steps(kind: Maker, linear: str) -> None:
    torch.manual_seed(2)
    steps = _Steps(kind(2, 2, linear=MAPS[linear]).double())
    for name, value in steps.named_parameters():
        if name.endswith((".M", ".gain")):
            nn.init.normal_(value, std=0.5)
    values = {name: value.detach().requires_grad_() for name, value in steps.named_parameters() if "predictor" not in name}

    def compute(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(steps, dict(zip(values, parameters, strict=True)), (x,))

    inputs = (X[:2, :1, :2].clone().requires_grad_(), *values.values())
    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


@pytest.mark.parametrize("kind", TORCH)
def test_a_state_of_another_shape_is_refused(kind: Maker) -> None:
    similar, state = _cell(kind), torch.zeros(1, 6, dtype=torch.float64)
    with pytest.raises(ConfigurationError, match=r"state has shape \[1, 6\]: expected \[3, 6\]"):
        similar(X[0], (state, state) if kind is SimilarityLSTMCell else state)


def test_another_cell_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="RNNCell: expected one of LSTMCell, GRUCell"):
        similarity_cell(nn.RNNCell(2, 3))
