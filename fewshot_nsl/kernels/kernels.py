"""What kernels compute. Two implementations give the same numbers to rounding: torch's operators, and ours for one processor."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Shaped
from torch import Tensor


class Dense(NamedTuple):
    """A straight line of each number of z, `z * scale + shift`, one scale and one shift a channel."""

    z: Float[Tensor, "n c h w"]
    scale: Float[Tensor, " c"]
    shift: Float[Tensor, " c"]


@runtime_checkable
class Kernels(Protocol):
    """Images `[n, c, h, w]`, channels last. None of these is known to autograd; `place` is the implementation's own way to say where."""

    def pool(self, z: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n c h//2 w//2"], Shaped[Tensor, "n c h//2 w//2"]]:
        """The largest of every 2x2 window, and its place."""
        ...

    def unpool(
        self, g: Float[Tensor, "n c h//2 w//2"], place: Shaped[Tensor, "n c h//2 w//2"], size: tuple[int, int], dense: Dense | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Every g at its place in images of `size`, zeros elsewhere; plus `dense`."""
        ...

    def pick(self, u: Float[Tensor, "n c h w"], place: Shaped[Tensor, "n c h//2 w//2"]) -> Float[Tensor, "n c h//2 w//2"]:
        """The numbers of u at the places."""
        ...

    def moments(self, z: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
        """Mean and biased variance of each channel."""
        ...

    def products(
        self, u: Float[Tensor, "n c h w"], z: Float[Tensor, "n c h w"], mean: Float[Tensor, " c"]
    ) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
        """The sums over each channel of u, and of `u * (z - mean)`."""
        ...

    def affine_relu(self, m: Float[Tensor, "n c h w"], a: Float[Tensor, " c"], b: Float[Tensor, " c"]) -> Float[Tensor, "n c h w"]:
        """`relu(m * a + b)`, one a and one b a channel."""
        ...

    def affine_relu_backward(
        self, g: Float[Tensor, "n c h w"], m: Float[Tensor, "n c h w"], a: Float[Tensor, " c"], b: Float[Tensor, " c"], *, wanted: bool
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " c"] | None, Float[Tensor, " c"] | None]:
        """From the gradient g in the result: those in m, and, where `wanted`, in a and b."""
        ...

    def affine_relu_double(
        self,
        incoming: tuple[Float[Tensor, "n c h w"], Float[Tensor, " c"], Float[Tensor, " c"]],
        g: Float[Tensor, "n c h w"],
        m: Float[Tensor, "n c h w"],
        a: Float[Tensor, " c"],
        b: Float[Tensor, " c"],
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"], Float[Tensor, " c"]]:
        """The backward differentiated: from gradients `incoming` in its three results to those in g, m and a."""
        ...

    def conv_pool(
        self, x: Float[Tensor, "n c h w"], weight: Float[Tensor, "o i 3 3"], groups: int
    ) -> tuple[Float[Tensor, "n o h//2 w//2"], Shaped[Tensor, "n o h//2 w//2"]]:
        """`pool` of the convolution with 3x3 kernels and padding 1."""
        ...

    def conv_pick(
        self, x: Float[Tensor, "n c h w"], weight: Float[Tensor, "o i 3 3"], place: Shaped[Tensor, "n o h//2 w//2"], groups: int
    ) -> Float[Tensor, "n o h//2 w//2"]:
        """`pick` of that convolution."""
        ...

    def conv_backward(
        self,
        g: Float[Tensor, "n o h//2 w//2"],
        place: Shaped[Tensor, "n o h//2 w//2"],
        x: Float[Tensor, "n c h w"],
        weight: Float[Tensor, "o i 3 3"],
        groups: int,
        *,
        of_input: bool,
        of_weight: bool,
    ) -> tuple[Float[Tensor, "n c h w"] | None, Float[Tensor, "o i 3 3"] | None]:
        """From the gradient g in `conv_pool`'s numbers: that in the images and that in the weights, where wanted."""
        ...
