"""From a task to what it does to a backbone: the task embedding network of TADAM (Oreshkin et al. 2018)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import Modulation

DEPTH = 3
"""Fully connected layers of each net."""


class ResidualNet(nn.Module):
    """Fully connected layers with swish between them: the first goes to the width, the others add to what they get.

    Args:
        d: size of the input.
        width: of all layers.
    """

    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(d, width)
        self.others = nn.ModuleList(nn.Linear(width, width) for _ in range(DEPTH - 1))

    def forward(self, input: Float[Tensor, "n d"]) -> Float[Tensor, "n width"]:
        """The last layer is not followed by swish."""
        hidden: Tensor = self.first(input)
        for layer in self.others:
            active = functional.silu(hidden)
            hidden = active + layer(active)
        return hidden


class TaskEmbedding(nn.Module):
    """Two nets for each layer: its gamma and its beta, each times a learned number, the post-multiplier, that starts at 0.

    So every task begins with the backbone as it is. Depth, swish and where the shortcuts go are those of the authors' code.

    Args:
        d: size of a task's representation.
        channels: of each layer that is modulated.
    """

    def __init__(self, d: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.gamma = nn.ModuleList(ResidualNet(d, width) for width in channels)
        self.beta = nn.ModuleList(ResidualNet(d, width) for width in channels)
        self.gamma_0 = nn.Parameter(torch.zeros(len(channels)))
        self.beta_0 = nn.Parameter(torch.zeros(len(channels)))

    def forward(self, representation: Float[Tensor, "tasks d"]) -> list[Modulation]:
        """Of each layer, in the order of `channels`."""
        nets = zip(self.gamma_0, self.gamma, self.beta_0, self.beta, strict=True)
        return [Modulation(gamma_0 * gamma(representation), beta_0 * beta(representation)) for gamma_0, gamma, beta_0, beta in nets]

    def penalty(self) -> Float[Tensor, ""]:
        """Half the sum of the squares of all post-multipliers."""
        return (self.gamma_0.square().sum() + self.beta_0.square().sum()) / 2
