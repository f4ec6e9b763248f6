"""Global neural similarity: an M that relates all locations of a feature map, here as self-attention (Liu et al. 2019, appendix B)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.hyperspherical import HypersphericalConv2d

REDUCTION = 8
"""The maps that are compared have this many times fewer channels than the input."""


class GlobalSimilarity(nn.Module):
    """`x + gamma * M(x) h(x)`, with M(x) = softmax(f(x)' g(x)) between all pairs of locations; gamma is learned, 0 at the start.

        y(p) = x(p) + gamma * sum_q M[p, q] h(x)(q)        M[p, :] = softmax over all locations q of f(x)(p)' g(x)(q)

    f, g and h are hyperspherical 1x1 convolutions, f with a ReLU; f and g have an eighth of the channels. A new module is exactly the
    identity. Memory grows with the square of the locations, unless torch has a fused kernel for the device. Such a kernel has no second
    derivative: where one is needed, compute within `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.

    Raises:
        ConfigurationError: `channels` is no multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        if channels < REDUCTION or channels % REDUCTION:
            raise ConfigurationError(f"global similarity of {channels} channels: expected a multiple of {REDUCTION}")
        super().__init__()
        self.f = HypersphericalConv2d(channels, channels // REDUCTION, (1, 1))
        self.g = HypersphericalConv2d(channels, channels // REDUCTION, (1, 1))
        self.h = HypersphericalConv2d(channels, channels, (1, 1))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Add to every location what all locations say to it; what lies channels last stays so."""
        query, key, value = (_by_location(values) for values in (functional.relu(self.f(input)), self.g(input), self.h(input)))
        gathered = functional.scaled_dot_product_attention(query, key, value, scale=1.0)  # [n, 1, h * w, c]
        return input + self.gamma * gathered.transpose(-2, -1).reshape(input.shape)

    def penalty(self, weight: float = 2e-4) -> Float[Tensor, ""]:
        """What to add to the loss so that the kernels of f, of g and of h stay orthonormal; the default weight is the authors'."""
        return weight * (orthogonality(self.f.weight) + orthogonality(self.g.weight) + orthogonality(self.h.weight))


def orthogonality(weight: Float[Tensor, "o c kh kw"]) -> Float[Tensor, ""]:
    """`|W W' - I|^2 / 2` with a kernel in each row of W, as in the authors' code: 0 where kernels are orthogonal and of norm 1."""
    kernels = weight.flatten(1)
    return (kernels @ kernels.T - torch.eye(len(kernels), dtype=weight.dtype, device=weight.device)).square().sum() / 2


def _by_location(values: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 p c"]:
    """One row for each location; the axis of one is what torch calls heads."""
    return values.flatten(2).transpose(1, 2).unsqueeze(1)
