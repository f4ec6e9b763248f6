"""Dynamic neural similarity: an M for every output location, predicted from the input (Liu et al. 2019, section 3.3)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.columns import Size2
from fewshot_nsl.similarity.functional import PaddingMode, similarity_conv2d
from fewshot_nsl.similarity.predictor import Predictor, get_predictor
from fewshot_nsl.similarity.structure import get_structure


class DynamicSimilarityConv2d(nn.Conv2d):
    """A convolution whose similarity is M(x) = I + g * P(x), with P a small network on the layer's input; exactly plain at the start.

    Raises:
        ConfigurationError: unknown `structure` or `predictor`, or a padding other than a number of zeros.
    """

    identity: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2,
        stride: Size2 = 1,
        padding: Size2 | str = 0,
        dilation: Size2 = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        structure: str = "diagonal",
        predictor: str | Predictor = "sphere",
    ) -> None:
        if padding_mode != "zeros" or isinstance(padding, str):
            raise ConfigurationError(
                f"padding {padding!r} with mode '{padding_mode}': a dynamic similarity layer takes a number of zeros; pad before the layer"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype)
        self.structure = structure
        identity = get_structure(structure).identity(self.weight[0, 0].numel())
        self.register_buffer("identity", identity.to(self.weight), persistent=False)
        height, width = self.weight.shape[2:]
        self.predictor = get_predictor(predictor)(in_channels, identity.numel(), (height, width), stride, padding, dilation).to(self.weight)

    def predict(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n *K h_out w_out"]:
        """M for every output location: `[n, K, h_out, w_out]` (diagonal) or `[n, K, K, h_out, w_out]`."""
        free = self.predictor(input).movedim(1, -1) + self.identity
        similarity = get_structure(self.structure).matrix(free)
        return torch.movedim(similarity, (1, 2), (-2, -1))

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h_out w_out"]:
        """Convolve `input` under the similarity predicted from it."""
        return similarity_conv2d(
            input,
            self.weight,
            self.predict(input),
            self.bias,
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            self.groups,
        )

    def extra_repr(self) -> str:
        """`nn.Conv2d`'s, and the structure."""
        return f"{super().extra_repr()}, structure={self.structure}"
