"""Where derivatives end: the next one is refused.

torch's `once_differentiable` is not enough: `torch.autograd.grad` with named inputs passes its error by, and returns a wrong derivative.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_Backward = Callable[..., tuple[Any, ...]]


def last_derivative(backward: _Backward) -> _Backward:
    """Make of a `torch.autograd.Function`'s `backward` one whose results are refused to be differentiated."""

    @functools.wraps(backward)
    def wrapper(ctx: Any, *incoming: Tensor | None) -> tuple[Any, ...]:
        with torch.no_grad():
            outputs = backward(ctx, *incoming)
        if not torch.is_grad_enabled():
            return outputs
        sources = [tensor for tensor in (*ctx.saved_tensors, *incoming) if tensor is not None and tensor.requires_grad]
        if not sources:
            return outputs
        given = [output for output in outputs if output is not None]
        marked = iter(_Refused.apply(len(given), *given, *sources))
        return tuple(None if output is None else next(marked) for output in outputs)

    return wrapper


class _Refused(torch.autograd.Function):
    """The first `count` tensors as they are, depending on all others as far as autograd knows."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        del ctx
        return tensors[:count]

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        del ctx
        raise RuntimeError("a third derivative of the fast engine's convolutions is not there: use --engine higher")
