"""Networks that predict the similarity of a layer from the layer's own input (Liu et al. 2019, section 3.3)."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.columns import Size2
from fewshot_nsl.similarity.hyperspherical import HypersphericalConv2d


@runtime_checkable
class Predictor(Protocol):
    """Builds a network from feature maps `[n, c, h, w]` to what is added to the identity's free numbers, `[n, outputs, h_out, w_out]`."""

    def __call__(
        self, in_channels: int, outputs: int, kernel_size: tuple[int, int], stride: Size2, padding: Size2, dilation: Size2, /
    ) -> nn.Module:
        """Geometry is that of the convolution served: the output has its resolution."""
        ...


class SpherePredictor(nn.Module):
    """`g * P(x)`: P is cosine convolution, BN, ReLU, 3x3 cosine convolution; g is one learned gain for each output, 0 at the start.

    A cosine does not shrink with its weights, so the gain is what makes a new layer start at the identity exactly (our addition; the
    authors fix it at 1).
    """

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        kernel_size: tuple[int, int],
        stride: Size2 = 1,
        padding: Size2 = 0,
        dilation: Size2 = 1,
        *,
        hidden_channels: int = 32,
    ) -> None:
        super().__init__()
        self.first = HypersphericalConv2d(in_channels, hidden_channels, kernel_size, stride, padding, dilation)
        self.norm = nn.BatchNorm2d(hidden_channels)
        self.second = HypersphericalConv2d(hidden_channels, outputs, (3, 3), padding=1)
        self.gain = nn.Parameter(torch.zeros(outputs))

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h_out w_out"]:
        """Offsets from the identity's free numbers."""
        hidden = functional.relu(self.norm(self.first(input)))
        return self.gain[:, None, None] * self.second(hidden)


PREDICTORS: dict[str, Predictor] = {
    "sphere": SpherePredictor,
}


def get_predictor(predictor: str | Predictor) -> Predictor:
    """The predictor of this name; a callable of one's own is returned as it is.

    Raises:
        ConfigurationError: no predictor has this name.
    """
    if not isinstance(predictor, str):
        return predictor
    if predictor not in PREDICTORS:
        raise ConfigurationError(f"similarity predictor '{predictor}' is unknown: expected one of {', '.join(PREDICTORS)}, or a callable")
    return PREDICTORS[predictor]
