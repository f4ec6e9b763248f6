from itertools import product

import pytest
import torch
from torch import Tensor

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import STRUCTURES, HardSparse, Structure
from fewshot_nsl.similarity.structure import get_structure

SIZES = {
    "diagonal": lambda k: k,
    "unconstrained": lambda k: k * k,
    "symmetric": lambda k: k * (k + 1) // 2,
    "psd": lambda k: k * (k + 1) // 2,
}
TRIANGLES = ["symmetric", "psd"]


def _random(name: str, taps: int, *batch: int) -> Tensor:
    return torch.randn(*batch, SIZES[name](taps), generator=torch.Generator().manual_seed(taps), dtype=torch.float64)


def _lower(free: Tensor, taps: int) -> Tensor:
    """The lower triangle, filled row by row."""
    lower, numbers = torch.zeros(taps, taps, dtype=free.dtype), iter(free)
    for row, column in product(range(taps), range(taps)):
        if column <= row:
            lower[row, column] = next(numbers)
    return lower


def test_every_structure_is_tested_here() -> None:
    assert set(SIZES) == set(STRUCTURES)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 9, 25])
def test_the_free_numbers_of_the_identity_give_the_identity(name: str, taps: int) -> None:
    structure = STRUCTURES[name]
    assert torch.equal(structure.dense(structure.identity(taps)), torch.eye(taps))


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("taps", [1, 2, 4, 9, 25])
def test_number_of_free_numbers(name: str, taps: int) -> None:
    assert STRUCTURES[name].identity(taps).shape == (SIZES[name](taps),)


def test_unconstrained_numbers_are_rows() -> None:
    free = torch.arange(4.0)
    for form in (STRUCTURES["unconstrained"].matrix(free), STRUCTURES["unconstrained"].dense(free)):
        assert form.tolist() == [[0, 1], [2, 3]]


def test_diagonal_numbers_stay_a_vector_until_written_out() -> None:
    free = torch.tensor([2.0, 3.0])
    assert STRUCTURES["diagonal"].matrix(free).tolist() == [2, 3]
    assert STRUCTURES["diagonal"].dense(free).tolist() == [[2, 0], [0, 3]]


def test_symmetric_numbers_are_the_rows_of_the_lower_triangle() -> None:
    assert STRUCTURES["symmetric"].dense(torch.arange(1.0, 7)).tolist() == [[1, 2, 4], [2, 3, 5], [4, 5, 6]]


def test_psd_numbers_are_the_rows_of_a_lower_triangle_that_is_squared() -> None:
    assert STRUCTURES["psd"].dense(torch.tensor([1.0, 2.0, 3.0])).tolist() == [[1, 2], [2, 13]]


@pytest.mark.parametrize("taps", [1, 2, 4, 9])
def test_symmetric_mirrors_the_lower_triangle(taps: int) -> None:
    free = _random("symmetric", taps)
    dense, lower = STRUCTURES["symmetric"].dense(free), _lower(free, taps)
    assert torch.equal(dense, dense.T)
    assert torch.equal(dense.tril(), lower)


@pytest.mark.parametrize("taps", [1, 2, 4, 9])
def test_psd_is_the_lower_triangle_times_its_transpose(taps: int) -> None:
    free = _random("psd", taps)
    lower = _lower(free, taps)
    torch.testing.assert_close(STRUCTURES["psd"].dense(free), lower @ lower.T, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_psd_has_no_negative_eigenvalue(scale: float) -> None:
    dense = STRUCTURES["psd"].dense(scale * _random("psd", 9, 50))
    assert torch.linalg.eigvalsh(dense / scale**2).min() >= -1e-12


def test_psd_has_no_negative_eigenvalue_where_the_triangle_is_singular() -> None:
    free = _random("psd", 4, 20)
    free[:, [2, 9]] = 0  # two of L's diagonal
    dense = STRUCTURES["psd"].dense(free)
    assert torch.linalg.matrix_rank(dense).max() < 4
    assert torch.linalg.eigvalsh(dense).min() >= -1e-12


@pytest.mark.parametrize("name", STRUCTURES)
def test_matrix_and_dense_are_the_same_similarity(name: str) -> None:
    free = _random(name, 4, 2, 3)
    matrix = STRUCTURES[name].matrix(free)
    assert torch.equal(torch.diag_embed(matrix) if name == "diagonal" else matrix, STRUCTURES[name].dense(free))


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("batch", [(5,), (2, 3), (2, 1, 3), (0, 2)], ids=str)
def test_every_location_has_its_own_matrix(name: str, batch: tuple[int, ...]) -> None:
    structure = STRUCTURES[name]
    free = _random(name, 4, *batch)
    dense = structure.dense(free)
    assert dense.shape == (*batch, 4, 4)
    for place in product(*map(range, batch)):
        torch.testing.assert_close(dense[place], structure.dense(free[place]), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", STRUCTURES)
def test_free_numbers_need_not_lie_together(name: str) -> None:
    structure, free = STRUCTURES[name], _random(name, 4, 3, 2)
    torch.testing.assert_close(structure.matrix(free.mT.contiguous().mT), structure.matrix(free), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", STRUCTURES)
def test_derivatives(name: str) -> None:
    free = _random(name, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(STRUCTURES[name].dense, (free,))
    assert torch.autograd.gradgradcheck(STRUCTURES[name].dense, (free,))


@pytest.mark.parametrize("name", STRUCTURES)
def test_torch_func_maps_over_free_numbers(name: str) -> None:
    free, dense = _random(name, 3, 4), STRUCTURES[name].dense
    found = torch.func.vmap(torch.func.grad(lambda one: dense(one).pow(3).sum()))(free)
    copy = free.clone().requires_grad_()
    (expected,) = torch.autograd.grad(dense(copy).pow(3).sum(), copy)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("structure", [*STRUCTURES.values(), HardSparse(3)], ids=repr)
def test_a_structure_of_ones_own_is_returned_as_it_is(structure: Structure) -> None:
    assert get_structure(structure) is structure


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_is_had_by_its_name(name: str) -> None:
    assert get_structure(name) is STRUCTURES[name]


def test_an_unknown_structure_is_refused() -> None:
    expected = "similarity structure 'round' is unknown: expected one of diagonal, unconstrained, symmetric, psd, or a Structure"
    with pytest.raises(ConfigurationError, match=f"^{expected}$"):
        get_structure("round")
