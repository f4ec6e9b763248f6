import pytest
import torch

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import STRUCTURES
from fewshot_nsl.similarity.structure import get_structure


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("taps", [1, 4, 9])
def test_the_free_numbers_of_the_identity_give_the_identity(name: str, taps: int) -> None:
    structure = STRUCTURES[name]
    assert torch.equal(structure.dense(structure.identity(taps)), torch.eye(taps))


@pytest.mark.parametrize(("name", "free"), [("diagonal", 9), ("unconstrained", 81)])
def test_number_of_free_numbers(name: str, free: int) -> None:
    assert STRUCTURES[name].identity(9).shape == (free,)


def test_unconstrained_numbers_are_rows() -> None:
    free = torch.arange(4.0)
    for form in (STRUCTURES["unconstrained"].matrix(free), STRUCTURES["unconstrained"].dense(free)):
        assert form.tolist() == [[0, 1], [2, 3]]


def test_diagonal_numbers_stay_a_vector_until_written_out() -> None:
    free = torch.tensor([2.0, 3.0])
    assert STRUCTURES["diagonal"].matrix(free).tolist() == [2, 3]
    assert STRUCTURES["diagonal"].dense(free).tolist() == [[2, 0], [0, 3]]


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_location_has_its_own_matrix(name: str) -> None:
    structure = STRUCTURES[name]
    free = torch.randn(2, 3, len(structure.identity(4)))
    dense = structure.dense(free)
    assert dense.shape == (2, 3, 4, 4)
    for image in range(2):
        for place in range(3):
            assert torch.equal(dense[image, place], structure.dense(free[image, place]))


def test_an_unknown_structure_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"similarity structure 'round' is unknown: expected one of diagonal, unconstrained"):
        get_structure("round")
