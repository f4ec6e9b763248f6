"""Few entries in the similarity: the l1 penalty and hard sparsity (Liu et al. 2019, section 3.4). For one entry a block see `shift.py`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.linear import StaticSimilarityLinear
from fewshot_nsl.similarity.static import StaticSimilarityConv2d
from fewshot_nsl.similarity.structure import Structure, get_structure


def l1_penalty(model: nn.Module) -> Float[Tensor, ""]:
    """The sum of |M| over all entries of all static similarity layers; to be added to a loss, times a weight.

    Raises:
        ConfigurationError: the model has no static similarity layer.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, StaticSimilarityConv2d | StaticSimilarityLinear)]
    if not layers:
        raise ConfigurationError(
            f"{type(model).__name__} has no static similarity layer to penalise; convert(model, 'static') gives it some"
        )
    return torch.stack([layer.similarity().abs().sum() for layer in layers]).sum()


def keep_largest(similarity: Float[Tensor, "*batch K K"], entries: int) -> Float[Tensor, "*batch K K"]:
    """M with all but its `entries` largest magnitudes set to zero; the gradient passes through what is kept.

    Raises:
        ConfigurationError: `entries` is not between 1 and K * K.
    """
    magnitude = similarity.detach().abs().flatten(-2)
    if not 1 <= entries <= magnitude.shape[-1]:
        raise ConfigurationError(f"{entries} entries of M to keep: expected between 1 and {magnitude.shape[-1]}")
    kept = torch.zeros_like(magnitude).scatter(-1, magnitude.topk(entries).indices, 1.0)
    return similarity * kept.view_as(similarity)


class HardSparse(Structure):
    """Another structure of which only the `entries` largest magnitudes are kept; a structure for any layer.

    With fewer entries than taps M cannot be the identity, so a converted layer does not start as the plain one.

    Raises:
        ConfigurationError: less than one entry; at use, more than M has.
    """

    def __init__(self, entries: int, structure: str | Structure = "unconstrained") -> None:
        if entries < 1:
            raise ConfigurationError(f"{entries} entries of M to keep: expected at least 1")
        self.entries, self.structure = entries, get_structure(structure)

    def identity(self, taps: int) -> Float[Tensor, " free"]:
        """That of the structure underneath."""
        return self.structure.identity(taps)

    def dense(self, free: Float[Tensor, "*batch free"]) -> Float[Tensor, "*batch K K"]:
        """What is left."""
        return keep_largest(self.structure.dense(free), self.entries)

    def __repr__(self) -> str:
        return f"HardSparse({self.entries}, {type(self.structure).__name__})"
