"""Dynamic neural similarity: an M for every output location, predicted from the input (Liu et al. 2019, section 3.3)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.similarity.columns import Size2
from fewshot_nsl.similarity.functional import PaddingMode, combine, similarity_conv2d
from fewshot_nsl.similarity.kernel_shape import KernelShape, ShapeThreshold
from fewshot_nsl.similarity.predictor import Predictor, get_predictor
from fewshot_nsl.similarity.structure import Structure, get_structure


class DynamicSimilarityConv2d(nn.Conv2d):
    """A convolution whose similarity is M(x) = I + g * P(x), with P a small network on the layer's input; exactly plain at the start.

    What is predicted are the structure's free numbers: for "psd" the lower triangle of L in M = L L'. With a `shape_threshold` the
    similarity is `D R(x)`, with one D for all inputs (see `KernelShape`).

    Raises:
        ConfigurationError: unknown `structure` or `predictor`, or a `shape_threshold` that cannot be.
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
        structure: str | Structure = "diagonal",
        predictor: str | Predictor = "sphere",
        shape_threshold: ShapeThreshold = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype)
        self.structure = structure
        taps = self.weight[0, 0].numel()
        identity = get_structure(structure).identity(taps)
        self.register_buffer("identity", identity.to(self.weight), persistent=False)
        self._padded_before = padding_mode != "zeros" or isinstance(padding, str)
        build, (height, width) = get_predictor(predictor), self.weight.shape[2:]
        self.predictor = build(in_channels, identity.numel(), (height, width), stride, self.zeros_added, dilation).to(self.weight)
        self.kernel_shape = None if shape_threshold is None else KernelShape(taps, shape_threshold).to(self.weight)

    def predict(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n *K h_out w_out"]:
        """M for every output location, D included: `[n, K, h_out, w_out]` for "diagonal", else `[n, K, K, h_out, w_out]`."""
        similarity = self._predict(self._pad(input))
        if self.kernel_shape is None:
            return similarity
        return similarity * self.kernel_shape().view(-1, *(1 for _ in similarity.shape[2:]))

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h_out w_out"]:
        """Convolve `input` under the similarity predicted from it."""
        padded = self._pad(input)
        weight = self.weight if self.kernel_shape is None else combine(self.weight, self.kernel_shape())
        return similarity_conv2d(
            padded,
            weight,
            self._predict(padded),
            self.bias,
            self.stride,  # type: ignore[arg-type]
            self.zeros_added,
            self.dilation,  # type: ignore[arg-type]
            self.groups,
        )

    def extra_repr(self) -> str:
        """`nn.Conv2d`'s, and the structure."""
        return f"{super().extra_repr()}, structure={self.structure}"

    def _predict(self, padded: Float[Tensor, "n c h w"]) -> Float[Tensor, "n *K h_out w_out"]:
        free = self.predictor(padded).movedim(1, -1) + self.identity
        similarity = get_structure(self.structure).matrix(free)
        return torch.movedim(similarity, (1, 2), (-2, -1))

    def _pad(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c H W"]:
        """What is not a number of zeros on each side is put around the input here, for predictor and convolution alike."""
        if not self._padded_before:
            return input
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return functional.pad(input, self._reversed_padding_repeated_twice, mode)

    @property
    def zeros_added(self) -> tuple[int, int]:
        """Rows and columns of zeros that the convolution itself adds on each side."""
        return (0, 0) if self._padded_before else self.padding  # type: ignore[return-value]
