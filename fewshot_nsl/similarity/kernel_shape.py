"""Kernel shape: which taps a kernel has, learned together with the similarity, `M = D R` (Liu et al. 2019, section 3.5)."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError

ShapeThreshold = float | Literal["continuous"] | None
"""A number: D is Boolean. "continuous": D is a spatial mask of any numbers. None: every tap stays."""


class KernelShape(nn.Module):
    """D, the diagonal `[K]` of a matrix that is multiplied to the similarity from the left; all ones at the start.

    Boolean, `D = 1[D_r > threshold]`: the parameter `D_r` is used for this only, and its gradient is that of the loss in D (a
    straight-through estimator). It is to be moved by plain gradient descent: see `sgd_groups`. Continuous: D is `D_r` itself.

    Raises:
        ConfigurationError: a threshold of 1 or more, under which no tap would be left at the start, or one that is no number.
    """

    def __init__(self, taps: int, threshold: float | Literal["continuous"]) -> None:
        super().__init__()
        if isinstance(threshold, str) and threshold != "continuous":
            raise ConfigurationError(f"shape_threshold '{threshold}': expected a number below 1, 'continuous', or None")
        if not isinstance(threshold, str) and not threshold < 1:
            raise ConfigurationError(f"shape_threshold {threshold}: expected a number below 1, where D_r starts, or no tap is left")
        self.threshold = threshold
        self.D_r = nn.Parameter(torch.ones(taps))

    def forward(self) -> Float[Tensor, " K"]:
        """The diagonal of D."""
        return self.D_r if isinstance(self.threshold, str) else boolean_shape(self.D_r, self.threshold)

    def extra_repr(self) -> str:
        """The threshold."""
        return f"taps={len(self.D_r)}, threshold={self.threshold}"


def boolean_shape(real: Float[Tensor, "*shape"], threshold: float) -> Float[Tensor, "*shape"]:
    """`1[real > threshold]`, whose gradient passes to `real` unchanged (Liu et al. 2019, section 3.5)."""
    shape: Tensor = _StraightThrough.apply(real, threshold)
    return shape


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(real: Tensor, threshold: float) -> Tensor:
        return (real > threshold).to(real.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004 - torch's signature
        return gradient, None


def shape_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """`D_r` of every layer that has a kernel shape, by its name in `model.named_parameters()`."""
    shapes = [(name, module) for name, module in model.named_modules() if isinstance(module, KernelShape)]
    return {f"{name}.D_r".removeprefix("."): module.D_r for name, module in shapes}


def sgd_groups(model: nn.Module, *, shape_lr: float) -> list[dict[str, Any]]:
    """Parameter groups for `torch.optim.SGD`: every `D_r` by plain gradient descent at a rate of its own, the rest as the optimizer says.

    With another optimizer, give `shape_parameters(model).values()` to an SGD beside it.
    """
    shapes = list(shape_parameters(model).values())
    held = {id(parameter) for parameter in shapes}
    others = [parameter for parameter in model.parameters() if id(parameter) not in held]
    plain = {"params": shapes, "lr": shape_lr, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
    return [{"params": others}, *([plain] if shapes else [])]
