"""Networks that predict the similarity of a layer from the layer's own input (Liu et al. 2019, section 3.3)."""

from collections.abc import Callable
from functools import partial
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


def new_gain(outputs: int, fixed: float | None = None) -> nn.Parameter:
    """One factor for each output of a predictor, 0 at the start, so that M = I + g P(x) starts as the identity exactly.

    A cosine does not shrink with its weights, nor does a sigmoid or a normalised output, hence the gain (our addition). With `fixed`, that
    number, not learned: 1 is the authors' form, whose layers do not start as plain ones.
    """
    return nn.Parameter(torch.zeros(outputs) if fixed is None else torch.full((outputs,), fixed), requires_grad=fixed is None)


class SpherePredictor(nn.Module):
    """Cosine convolution, BN, ReLU, 3x3 cosine convolution, gain: the paper's SphereNet predictor.

    Args:
        in_channels: of the layer.
        outputs: free numbers of M.
        kernel_size: of the layer, as the further ones.
        stride: of the layer.
        padding: of the layer.
        dilation: of the layer.
        hidden_channels: of the first convolution.
        kernel_norm: whether to divide by the kernels' norms too (the authors' best, "full SphereNet"), or by the inputs' only.
        gain: None, or a number to fix it at.
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
        kernel_norm: bool = True,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        self.first = HypersphericalConv2d(in_channels, hidden_channels, kernel_size, stride, padding, dilation, kernel_norm=kernel_norm)
        self.norm = nn.BatchNorm2d(hidden_channels)
        self.second = HypersphericalConv2d(hidden_channels, outputs, (3, 3), padding=1, kernel_norm=kernel_norm)
        self.gain = new_gain(outputs, gain)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h_out w_out"]:
        """Offsets from the identity's free numbers."""
        return self.gain[:, None, None] * self.second(functional.relu(self.norm(self.first(input))))


class PlainPredictor(nn.Module):
    """Convolution, BN, ReLU, 3x3 convolution, `squash`, gain: the plain CNN predictor, which does not converge without the squashing.

    `squash` is made for the number of outputs: `nn.BatchNorm2d` without its affine part normalises them, `nn.Sigmoid` bounds them. The
    other arguments are those of `SpherePredictor`.
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
        squash: Callable[[int], nn.Module],
        hidden_channels: int = 32,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, hidden_channels, kernel_size, stride, padding, dilation, bias=False)
        self.norm = nn.BatchNorm2d(hidden_channels)
        self.second = nn.Conv2d(hidden_channels, outputs, 3, padding=1)
        self.squash = squash(outputs)
        self.gain = new_gain(outputs, gain)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h_out w_out"]:
        """Offsets from the identity's free numbers."""
        offsets = self.squash(self.second(functional.relu(self.norm(self.first(input)))))
        return self.gain[:, None, None] * offsets


PREDICTORS: dict[str, Predictor] = {
    "sphere": SpherePredictor,
    "sphere-input": partial(SpherePredictor, kernel_norm=False),
    "cnn-normalised": partial(PlainPredictor, squash=partial(nn.BatchNorm2d, affine=False)),
    "cnn-sigmoid": partial(PlainPredictor, squash=lambda _: nn.Sigmoid()),
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
