"""Structures of the similarity matrix M: which of its K x K entries are free (Liu et al. 2019, section 3.1)."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_nsl.errors import ConfigurationError


class Structure(ABC):
    """Turns a vector of free numbers into M. One class serves learned (static) and predicted (dynamic) similarity."""

    @abstractmethod
    def identity(self, taps: int) -> Float[Tensor, " free"]:
        """The free numbers of M = I for K = `taps`; its length says how many there are."""

    @abstractmethod
    def matrix(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch_and_matrix"]:
        """M as `similarity_conv2d` takes it: the diagonal `[*batch, K]`, or `[*batch, K, K]`."""

    @abstractmethod
    def dense(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch K K"]:
        """M written out."""


class Diagonal(Structure):
    """DNS: K free numbers, a weight for each tap."""

    def identity(self, taps: int) -> Float[Tensor, " free"]:
        """K ones."""
        return torch.ones(taps)

    def matrix(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch_and_matrix"]:
        """The free numbers are the diagonal."""
        return free

    def dense(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch K K"]:
        """Zeros off the diagonal."""
        return torch.diag_embed(free)


class Unconstrained(Structure):
    """UNS: K * K free numbers, row by row."""

    def identity(self, taps: int) -> Float[Tensor, " free"]:
        """The identity matrix, flattened."""
        return torch.eye(taps).flatten()

    def matrix(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch_and_matrix"]:
        """The free numbers as a square."""
        taps = round(free.shape[-1] ** 0.5)
        return free.unflatten(-1, (taps, taps))

    def dense(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch K K"]:
        """Same as `matrix`."""
        return self.matrix(free)


STRUCTURES: dict[str, Structure] = {
    "diagonal": Diagonal(),
    "unconstrained": Unconstrained(),
}


def get_structure(name: str) -> Structure:
    """The structure of this name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in STRUCTURES:
        raise ConfigurationError(f"similarity structure '{name}' is unknown: expected one of {', '.join(STRUCTURES)}")
    return STRUCTURES[name]
