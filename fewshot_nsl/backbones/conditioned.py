"""Backbones that a task may change: a scale and a shift of channels after each BN (FiLM; Perez et al. 2018; Oreshkin et al. 2018)."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.pooled import NormReluPool2d
from fewshot_nsl.errors import ConfigurationError


class Modulation(NamedTuple):
    """What some tasks do to the channels of one layer: `(1 + gamma) * x + beta`."""

    gamma: Float[Tensor, "tasks c"]
    beta: Float[Tensor, "tasks c"]


class ConditionedNorm(nn.Module):
    """A BN, and after it the modulation that is in force; without one, what the BN computes alone.

    Where the BN also activates and pools, the modulation comes between.

    Args:
        norm: whose parameters and statistics are used.
    """

    modulation: Modulation | None = None
    """Set by `modulating`."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm
        self.channels = norm.num_features

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h_out w_out"]:
        """Images of one task lie together, tasks in the order of the modulation's, equally many of each."""
        if self.modulation is None:
            return self.norm(input)
        hidden = nn.BatchNorm2d.forward(self.norm, input)
        images = len(input) // len(self.modulation.gamma)
        slope, shift = (value.repeat_interleave(images, 0)[:, :, None, None] for value in (1 + self.modulation.gamma, self.modulation.beta))
        # Half precision stays half.
        hidden = torch.addcmul(shift, hidden.to(slope.dtype), slope).to(hidden.dtype)
        return self.norm.finish(hidden) if isinstance(self.norm, NormReluPool2d) else hidden


def conditioned(backbone: Backbone) -> Backbone:
    """A copy of `backbone` that may be modulated after the BN of every convolution whose kernel has more than one tap.

    So the 1x1 convolutions beside residual blocks stay as they are, as in the authors' code. The convolution of a BN is the one that is
    registered last before it.

    Raises:
        ConfigurationError: there is no such BN.
    """
    backbone = copy.deepcopy(backbone)
    convolution: nn.Conv2d | None = None
    for name, layer in list(_layers(backbone)):
        if isinstance(layer, nn.Conv2d):
            convolution = layer
        elif isinstance(layer, nn.BatchNorm2d) and convolution is not None and max(convolution.kernel_size) > 1:
            parent, _, leaf = name.rpartition(".")
            setattr(backbone.get_submodule(parent), leaf, ConditionedNorm(layer))
    if not conditioned_layers(backbone):
        raise ConfigurationError(
            f"{type(backbone).__name__} has no nn.BatchNorm2d after a convolution, which a task could change; use another backbone"
        )
    return backbone


def conditioned_layers(backbone: nn.Module) -> list[ConditionedNorm]:
    """Its layers that may be modulated, in the order in which they are registered."""
    return [layer for layer in backbone.modules() if isinstance(layer, ConditionedNorm)]


@contextmanager
def modulating(backbone: nn.Module, modulations: Sequence[Modulation]) -> Iterator[None]:
    """Inside, every layer of `conditioned_layers(backbone)` has its modulation; outside, none has any."""
    layers = conditioned_layers(backbone)
    try:
        for layer, modulation in zip(layers, modulations, strict=True):
            layer.modulation = modulation
        yield
    finally:
        for layer in layers:
            layer.modulation = None


def _layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Convolutions and BN by name; what a similarity convolution has inside it is no layer of the network."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d | nn.BatchNorm2d):
            yield prefix + name, child
        else:
            yield from _layers(child, f"{prefix}{name}.")
