"""Neural similarity of fully connected layers: `w' M x` in place of `w' x` (Liu et al. 2019, eq. 1 and section 1)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.hyperspherical import EPSILON
from fewshot_nsl.similarity.structure import Structure, get_structure


def similarity_linear(
    input: Float[Tensor, "*batch d"],
    weight: Float[Tensor, "o d"],
    bias: Float[Tensor, " o"] | None = None,
    *,
    static: Float[Tensor, "*static"] | None = None,
    dynamic: Float[Tensor, "*dynamic"] | None = None,
    blocks: int = 1,
) -> Float[Tensor, "*batch o"]:
    """Map each vector with the similarity `w' M x` in place of the inner product `w' x`.

        y[..., o] = sum_i sum_j  weight[o, i] M[i, j] input[..., j]

    M is block-diagonal: `blocks` times the same block of e = d / blocks features. A convolution is this on its windows, with a block for
    each channel. Twice differentiable in every argument. A static M is merged with the weight, at a cost that no batch raises; a dynamic
    one is applied to the input.

    Args:
        input: vectors, with any leading axes.
        weight: one row for each output.
        bias: added to every output vector.
        static: the block for all vectors, `[e]` (its diagonal) or `[e, e]`.
        dynamic: a block for each vector, `[..., e]` or `[..., e, e]`; its leading axes are the input's, where each may be 1.
        blocks: how often the block is repeated.

    Raises:
        ConfigurationError: both or neither of `static` and `dynamic`, one of another shape, or blocks that do not divide d.
    """
    block = _block_size(weight.shape[1], blocks)
    if static is not None and dynamic is None:
        _check_static(static, block)
        return functional.linear(input, _combine(weight, static, blocks), bias)
    if static is None and dynamic is not None:
        _check_dynamic(dynamic, block, input.shape[:-1])
        parts = input.unflatten(-1, (blocks, block))
        # einsum keeps an M that several vectors share as it is, where a batched product would repeat it.
        seen = parts * dynamic.unsqueeze(-2) if dynamic.dim() == input.dim() else torch.einsum("...ij,...bj->...bi", dynamic, parts)
        return functional.linear(seen.flatten(-2), weight, bias)
    raise ConfigurationError(f"similarity: expected one of static and dynamic, got {'neither' if static is None else 'both'}")


class StaticSimilarityLinear(nn.Linear):
    """A fully connected layer with a learned similarity M, the identity at the start: `y = (M' w)' x`.

    The parameter `M` holds the structure's free numbers of one block of e = in_features / blocks features: `[e]` for "diagonal", `[e * e]`
    for "unconstrained". `fold()` merges it with the weight for good.

    Raises:
        ConfigurationError: unknown `structure`, or blocks that do not divide `in_features`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        structure: str | Structure = "unconstrained",
        blocks: int = 1,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.structure, self.blocks = structure, blocks
        identity = get_structure(structure).identity(_block_size(in_features, blocks))
        self.M = nn.Parameter(identity.to(self.weight))

    def similarity(self) -> Float[Tensor, "e e"]:
        """One block of M written out; rows belong to the weight's features, columns to the input's."""
        return get_structure(self.structure).dense(self.M)

    def forward(self, input: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch o"]:
        """Map each vector by `M' w`."""
        matrix = get_structure(self.structure).matrix(self.M)
        return similarity_linear(input, self.weight, self.bias, static=matrix, blocks=self.blocks)

    def fold(self) -> nn.Linear:
        """The plain layer of the same output, with weights of its own."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, self.weight.device, self.weight.dtype)
        with torch.no_grad():
            plain.weight.copy_(_combine(self.weight, get_structure(self.structure).matrix(self.M), self.blocks))
            if self.bias is not None:
                plain.bias.copy_(self.bias)
        return plain.train(self.training)

    def extra_repr(self) -> str:
        """`nn.Linear`'s, and what M looks like."""
        return f"{super().extra_repr()}, structure={self.structure}, blocks={self.blocks}"


class DynamicSimilarityLinear(nn.Linear):
    """A fully connected layer whose similarity is M(x) = I + g * P(x), one for each vector; exactly plain at the start.

    P is cosine map, ReLU, cosine map; g is one learned gain for each output of P, 0 at the start. There is no norm between the two: batch
    norm would let a vector's M depend on the others, and a scale would be lost again in the second cosine.

    Raises:
        ConfigurationError: unknown `structure`, or blocks that do not divide `in_features`.
    """

    identity: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        structure: str | Structure = "diagonal",
        blocks: int = 1,
        hidden_features: int = 32,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.structure, self.blocks = structure, blocks
        identity = get_structure(structure).identity(_block_size(in_features, blocks))
        self.register_buffer("identity", identity.to(self.weight), persistent=False)
        maps = HypersphericalLinear(in_features, hidden_features), nn.ReLU(), HypersphericalLinear(hidden_features, identity.numel())
        self.predictor = nn.Sequential(*maps).to(self.weight)
        self.gain = nn.Parameter(torch.zeros_like(self.identity))

    def predict(self, input: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch_and_block"]:
        """One block of M for every vector: `[..., e]` (diagonal) or `[..., e, e]`."""
        return get_structure(self.structure).matrix(self.identity + self.gain * self.predictor(input))

    def forward(self, input: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch o"]:
        """Map each vector under the similarity predicted from it."""
        return similarity_linear(input, self.weight, self.bias, dynamic=self.predict(input), blocks=self.blocks)

    def extra_repr(self) -> str:
        """`nn.Linear`'s, and what M looks like."""
        return f"{super().extra_repr()}, structure={self.structure}, blocks={self.blocks}"


class HypersphericalLinear(nn.Module):
    """`<w, x> / (|w| |x|)` for every row w of the weight: each output lies in [-1, 1], and there is no bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, input: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch o"]:
        """Cosines; EPSILON stands under both roots, as in `hyperspherical_conv2d`."""
        direction = self.weight / (self.weight.square().sum(1, keepdim=True) + EPSILON).sqrt()
        return functional.linear(input, direction) / (input.square().sum(-1, keepdim=True) + EPSILON).sqrt()


def _block_size(features: int, blocks: int) -> int:
    if blocks < 1 or features % blocks:
        raise ConfigurationError(f"blocks={blocks}: expected a divisor of the layer's {features} input features")
    return features // blocks


def _combine(weight: Float[Tensor, "o d"], similarity: Float[Tensor, "*block"], blocks: int) -> Float[Tensor, "o d"]:
    """The one weight `M' w`."""
    parts = weight.unflatten(1, (blocks, -1))
    return (parts * similarity if similarity.dim() == 1 else parts @ similarity).flatten(1)


def _check_static(static: Tensor, block: int) -> None:
    if static.shape not in {(block,), (block, block)}:
        raise ConfigurationError(f"static similarity has shape {list(static.shape)}: expected [{block}] or [{block}, {block}]")


def _check_dynamic(dynamic: Tensor, block: int, batch: torch.Size) -> None:
    leading, last = dynamic.shape[: len(batch)], dynamic.shape[len(batch) :]
    if last in {(block,), (block, block)} and all(got in (1, full) for got, full in zip(leading, batch, strict=True)):
        return
    axes = ", ".join(map(str, (*batch, block)))
    note = f" ({' and '.join(map(str, batch))} may each be 1)" if batch else ""
    raise ConfigurationError(f"dynamic similarity has shape {list(dynamic.shape)}: expected [{axes}] or [{axes}, {block}]{note}")
