"""What engines take and give."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from fewshot_nsl.errors import ConfigurationError

Parameters = dict[str, Tensor]
"""Name -> `[tasks, ...]`: every task has its own copy."""
TaskLoss = Callable[[Parameters], Tensor]
"""Parameters of all tasks -> a loss for each, `[tasks]`. Task t's loss depends on the parameters `[t]` alone."""
Rates = float | Mapping[str, float]
"""Step size, one for all or one per name."""


@runtime_checkable
class Adapt(Protocol):
    """Differentiable gradient descent."""

    def __call__(self, loss_fn: TaskLoss, parameters: Parameters, *, steps: int, lr: Rates, first_order: bool = False) -> Parameters:
        """`steps` steps of gradient descent on each task's loss (Finn et al. 2017, algorithm 2, lines 5 to 7).

        Pure: `parameters` stay as they are. The result can be differentiated with respect to them, through the steps.

        Args:
            loss_fn: the loss of each task. None depends on another's parameters, so the gradient of the sum holds each task's own.
            parameters: where to start, each `[tasks, ...]`.
            steps: 0 or more.
            lr: step size, one for all or one per name.
            first_order: take the inner gradients as constants (first-order MAML): the outer gradient then passes to `parameters` unchanged.

        Raises:
            ConfigurationError: `lr` lists step sizes, but not for every parameter.
        """
        ...


def step_sizes(parameters: Parameters, lr: Rates) -> Mapping[str, float]:
    """One for each name.

    Raises:
        ConfigurationError: `lr` lists step sizes, but not for every parameter.
    """
    if not isinstance(lr, Mapping):
        return dict.fromkeys(parameters, lr)
    if missing := [name for name in parameters if name not in lr]:
        raise ConfigurationError(f"lr has no step size for {', '.join(missing)}: expected one for each of {', '.join(parameters)}")
    return lr


def wanting(parameters: Parameters) -> Parameters:
    """The same tensors, or, where one asks for no gradient, another that does."""
    return {name: value if value.requires_grad else value.detach().requires_grad_() for name, value in parameters.items()}
