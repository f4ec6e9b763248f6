"""Structures of the similarity matrix M: which of its K x K entries are free (Liu et al. 2019, sections 3.1 and 3.4)."""

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
    def dense(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch K K"]:
        """M written out."""

    def matrix(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch_and_matrix"]:
        """M as `similarity_conv2d` takes it: `[*batch, K, K]`, or the diagonal `[*batch, K]` where the rest is always zero."""
        return self.dense(free)


class Diagonal(Structure):
    """DNS: K free numbers, a weight for each tap."""

    def identity(self, taps: int) -> Float[Tensor, " free"]:
        """K ones."""
        return torch.ones(taps)

    def dense(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch K K"]:
        """Zeros off the diagonal."""
        return torch.diag_embed(free)

    def matrix(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch_and_matrix"]:
        """The free numbers are the diagonal."""
        return free


class Unconstrained(Structure):
    """UNS: K * K free numbers, row by row."""

    def identity(self, taps: int) -> Float[Tensor, " free"]:
        """The identity matrix, flattened."""
        return torch.eye(taps).flatten()

    def dense(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch K K"]:
        """The free numbers as a square."""
        taps = round(free.shape[-1] ** 0.5)
        return free.unflatten(-1, (taps, taps))


class Symmetric(Structure):
    """K (K + 1) / 2 free numbers: the lower triangle row by row, mirrored."""

    def identity(self, taps: int) -> Float[Tensor, " free"]:
        """The lower triangle of the identity."""
        return _lower_identity(taps)

    def dense(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch K K"]:
        """Each number off the diagonal stands in two places."""
        taps = _side(free)
        row, column = torch.tril_indices(taps, taps, device=free.device)
        place = torch.zeros(taps, taps, dtype=torch.int64, device=free.device)
        place[row, column] = place[column, row] = torch.arange(len(row), device=free.device)
        return free[..., place]


class PositiveSemidefinite(Structure):
    """Symmetric and positive semi-definite by construction: `M = L L'`; the lower triangle of L is free, K (K + 1) / 2 numbers."""

    def identity(self, taps: int) -> Float[Tensor, " free"]:
        """L = I."""
        return _lower_identity(taps)

    def dense(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch K K"]:
        """`L L'`."""
        taps = _side(free)
        row, column = torch.tril_indices(taps, taps, device=free.device)
        # Above the diagonal stands an extra zero, which keeps this a plain indexing for every engine of torch.
        place = torch.full((taps, taps), free.shape[-1], device=free.device)
        place[row, column] = torch.arange(len(row), device=free.device)
        lower = torch.cat([free, torch.zeros_like(free[..., :1])], -1)[..., place]
        return lower @ lower.mT


STRUCTURES: dict[str, Structure] = {
    "diagonal": Diagonal(),
    "unconstrained": Unconstrained(),
    "symmetric": Symmetric(),
    "psd": PositiveSemidefinite(),
}


def get_structure(structure: str | Structure) -> Structure:
    """The structure of this name; one of one's own is returned as it is.

    Raises:
        ConfigurationError: no structure has this name.
    """
    if not isinstance(structure, str):
        return structure
    if structure not in STRUCTURES:
        raise ConfigurationError(f"similarity structure '{structure}' is unknown: expected one of {', '.join(STRUCTURES)}, or a Structure")
    return STRUCTURES[structure]


def _lower_identity(taps: int) -> Float[Tensor, " free"]:
    row, column = torch.tril_indices(taps, taps)
    return (row == column).to(torch.get_default_dtype())


def _side(free: Float[Tensor, "*batch free"]) -> int:
    """K of K (K + 1) / 2 numbers."""
    return round(((8 * free.shape[-1] + 1) ** 0.5 - 1) / 2)
