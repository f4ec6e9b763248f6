from itertools import product

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import (
    STRUCTURES,
    DynamicSimilarityConv2d,
    HardSparse,
    SpherePredictor,
    StaticSimilarityConv2d,
    StaticSimilarityLinear,
    keep_largest,
    l1_penalty,
)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _kept(matrix: Tensor, entries: int) -> Tensor:
    """1 where one of the largest magnitudes of one M stands."""
    rows, columns = matrix.shape
    places = sorted(product(range(rows), range(columns)), key=lambda place: -abs(float(matrix[place])))[:entries]
    mask = torch.zeros_like(matrix)
    for place in places:
        mask[place] = 1
    return mask


@pytest.mark.parametrize("entries", [1, 2, 7, 15, 16])
def test_the_largest_magnitudes_are_kept(entries: int) -> None:
    matrix = _random(4, 4)
    kept = keep_largest(matrix, entries)
    assert torch.equal(kept, matrix * _kept(matrix, entries))
    assert kept.count_nonzero() == entries


def test_magnitude_is_what_counts() -> None:
    matrix = torch.tensor([[-3.0, 1.0], [2.0, -0.5]])
    assert keep_largest(matrix, 2).tolist() == [[-3, 0], [2, 0]]


def test_equal_magnitudes_do_not_raise_the_number_of_entries() -> None:
    assert keep_largest(torch.ones(3, 3), 4).count_nonzero() == 4


@pytest.mark.parametrize("batch", [(3,), (2, 3)], ids=str)
def test_every_matrix_of_a_batch_keeps_its_own(batch: tuple[int, ...]) -> None:
    matrices = _random(*batch, 3, 3)
    kept = keep_largest(matrices, 4)
    for place in product(*map(range, batch)):
        assert torch.equal(kept[place], keep_largest(matrices[place], 4))


def test_the_gradient_passes_through_what_is_kept() -> None:
    matrices, towards = _random(2, 4, 4).requires_grad_(), _random(2, 4, 4) + 5
    (gradient,) = torch.autograd.grad((keep_largest(matrices, 5) * towards).sum(), matrices)
    assert torch.equal(gradient, towards * torch.stack([_kept(matrix.detach(), 5) for matrix in matrices]))


def test_derivatives_of_what_is_kept() -> None:
    matrix = _random(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: keep_largest(m, 4), (matrix,))
    assert torch.autograd.gradgradcheck(lambda m: keep_largest(m, 4).pow(3), (matrix,))


@pytest.mark.parametrize("entries", [-1, 0, 17])
def test_an_impossible_number_of_entries_is_refused(entries: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{entries} entries of M to keep: expected between 1 and 16$"):
        keep_largest(_random(4, 4), entries)


def test_an_unknown_structure_underneath_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="similarity structure 'round' is unknown"):
        HardSparse(3, "round")


@pytest.mark.parametrize("name", STRUCTURES)
def test_hard_sparsity_is_of_any_structure(name: str) -> None:
    structure, below = HardSparse(5, name), STRUCTURES[name]
    assert torch.equal(structure.identity(4), below.identity(4))
    free = _random(3, len(below.identity(4)))
    expected = below.dense(free)
    assert torch.equal(structure.dense(free), keep_largest(expected, 5))
    assert torch.equal(structure.matrix(free), structure.dense(free))
    assert torch.equal(structure.dense(structure.identity(4)), torch.eye(4))


def test_with_fewer_entries_than_taps_the_start_is_not_the_identity() -> None:
    layer = StaticSimilarityConv2d(1, 1, 2, structure=HardSparse(3))
    assert layer.similarity().count_nonzero() == 3


def test_torch_func_maps_over_what_is_kept() -> None:
    matrices = _random(3, 4, 4)
    found = torch.func.vmap(torch.func.grad(lambda one: keep_largest(one, 5).pow(3).sum()))(matrices)
    assert torch.equal(found, 3 * keep_largest(matrices, 5) ** 2)


def test_a_static_layer_convolves_with_what_is_left() -> None:
    torch.manual_seed(0)
    layer = StaticSimilarityConv2d(2, 3, 2, dtype=torch.float64, structure=HardSparse(6))
    nn.init.normal_(layer.M)
    kept = _kept(layer.M.detach().view(4, 4), 6)
    assert torch.equal(layer.similarity(), layer.M.view(4, 4) * kept)
    layer(_random(2, 2, 5, 5)).square().sum().backward()
    assert layer.M.grad is not None
    assert torch.equal(layer.M.grad.view(4, 4) != 0, kept != 0)


def test_a_static_layer_keeps_no_more_through_training() -> None:
    torch.manual_seed(0)
    layer = StaticSimilarityConv2d(2, 3, 2, dtype=torch.float64, structure=HardSparse(6))
    nn.init.normal_(layer.M)
    before = layer.similarity().detach() != 0
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9)
    for step in range(15):
        optimizer.zero_grad()
        (layer(_random(2, 2, 5, 5)) - step).square().mean().backward()
        optimizer.step()
        assert layer.similarity().count_nonzero() == 6
    assert not torch.equal(layer.similarity() != 0, before)  # one that shrinks makes room for another


@pytest.mark.parametrize("structure", [HardSparse(5), HardSparse(5, "psd")], ids=repr)
def test_a_dynamic_layer_keeps_so_many_at_every_location(structure: HardSparse) -> None:
    torch.manual_seed(0)
    layer = DynamicSimilarityConv2d(2, 3, 2, dtype=torch.float64, structure=structure).eval()
    assert isinstance(layer.predictor, SpherePredictor)
    nn.init.constant_(layer.predictor.gain, 3)
    similarity = layer.predict(_random(2, 2, 5, 5))
    assert similarity.shape == (2, 4, 4, 4, 4)
    assert similarity.count_nonzero((1, 2)).eq(5).all()
    assert (similarity != 0).flatten(3).movedim(-1, 1).flatten(0, 1).unique(dim=0).shape[0] > 1  # not the same ones everywhere


def test_a_linear_layer_takes_it_too() -> None:
    layer = StaticSimilarityLinear(6, 2, structure=HardSparse(4), blocks=2)
    nn.init.normal_(layer.M)
    assert layer.similarity().count_nonzero() == 4


def test_hard_sparsity_is_shown() -> None:
    assert repr(HardSparse(3)) == "HardSparse(3, Unconstrained)"
    shown = repr(StaticSimilarityConv2d(1, 2, 2, structure=HardSparse(4, "psd")))
    assert shown == "StaticSimilarityConv2d(1, 2, kernel_size=(2, 2), stride=(1, 1), structure=HardSparse(4, PositiveSemidefinite))"


def _model() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(
        StaticSimilarityConv2d(1, 2, 2, structure="diagonal"),
        nn.Sequential(nn.ReLU(), StaticSimilarityConv2d(2, 2, (1, 3), structure="symmetric"), nn.Conv2d(2, 2, 3)),
        nn.Flatten(),
        StaticSimilarityLinear(4, 2, structure="unconstrained", blocks=2),
    ).double()
    for layer in model.modules():
        if isinstance(layer, StaticSimilarityConv2d | StaticSimilarityLinear):
            nn.init.normal_(layer.M)
    return model


def _layer(model: nn.Module, name: str) -> StaticSimilarityConv2d:
    layer = model.get_submodule(name)
    assert isinstance(layer, StaticSimilarityConv2d)
    return layer


def test_the_l1_penalty_is_the_sum_of_all_magnitudes() -> None:
    model = _model()
    diagonal, symmetric = _layer(model, "0").M, _layer(model, "1.1").M
    linear = dict(model.named_parameters())["3.M"]
    written_out = symmetric[[0, 1, 3, 1, 2, 4, 3, 4, 5]]
    expected = sum(abs(value.item()) for value in (*diagonal, *written_out, *linear))
    assert l1_penalty(model).item() == pytest.approx(expected, rel=1e-14)


def test_the_gradient_of_the_l1_penalty_is_the_sign() -> None:
    model = _model()
    l1_penalty(model).backward()
    diagonal, symmetric = _layer(model, "0").M, _layer(model, "1.1").M
    assert diagonal.grad is not None
    assert torch.equal(diagonal.grad, diagonal.sign())
    assert symmetric.grad is not None
    assert torch.equal(symmetric.grad, symmetric.sign() * torch.tensor([1, 2, 1, 2, 2, 1]))  # what is mirrored counts twice
    assert {name for name, value in model.named_parameters() if value.grad is not None} == {"0.M", "1.1.M", "3.M"}


def test_the_l1_penalty_is_of_what_the_kernel_shape_leaves() -> None:
    layer = StaticSimilarityConv2d(1, 1, 2, dtype=torch.float64, shape_threshold=0.5)
    nn.init.normal_(layer.M)
    assert layer.kernel_shape is not None
    nn.init.zeros_(layer.kernel_shape.D_r[:2])
    assert l1_penalty(layer).item() == pytest.approx(layer.M.view(4, 4)[2:].abs().sum().item(), rel=1e-14)


def test_a_layer_that_serves_twice_is_penalised_once() -> None:
    layer = StaticSimilarityConv2d(2, 2, 2)
    assert l1_penalty(nn.Sequential(layer, layer)) == 4


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Conv2d(1, 1, 3)), nn.Sequential(DynamicSimilarityConv2d(1, 1, 3))], ids=["plain", "dynamic"]
)
def test_a_model_without_static_similarity_has_nothing_to_penalise(model: nn.Module) -> None:
    expected = r"^Sequential has no static similarity layer to penalise; convert\(model, 'static'\) gives it some$"
    with pytest.raises(ConfigurationError, match=expected):
        l1_penalty(model)
