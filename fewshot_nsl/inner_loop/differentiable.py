"""The reference engine: differentiable SGD by `higher` (Grefenstette et al. 2019), behind a signature of our own."""

from collections.abc import Callable, Mapping

import higher
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError

Parameters = dict[str, Tensor]
"""Name -> `[tasks, ...]`: every task has its own copy."""
TaskLoss = Callable[[Parameters], Tensor]
"""Parameters of all tasks -> a loss for each, `[tasks]`. Task t's loss depends on the parameters `[t]` alone."""


def adapt(
    loss_fn: TaskLoss, parameters: Parameters, *, steps: int, lr: float | Mapping[str, float], first_order: bool = False
) -> Parameters:
    """`steps` steps of gradient descent on each task's loss (Finn et al. 2017, algorithm 2, lines 5 to 7).

    Pure: `parameters` stay as they are. The result can be differentiated with respect to them, through the steps.

    Args:
        loss_fn: the loss of each task. Since no task's loss depends on another's parameters, the gradient of the sum holds each task's own.
        parameters: where to start, each `[tasks, ...]`.
        steps: 0 or more.
        lr: step size, one for all or one per name.
        first_order: take the inner gradients as constants (first-order MAML): the outer gradient then passes to `parameters` unchanged.

    Raises:
        ConfigurationError: `lr` lists step sizes, but not for every parameter.
    """
    names = list(parameters)
    initial = [value if value.requires_grad else value.detach().requires_grad_() for value in parameters.values()]
    rates = lr if isinstance(lr, Mapping) else dict.fromkeys(names, lr)
    if missing := [name for name in names if name not in rates]:
        raise ConfigurationError(f"lr has no step size for {', '.join(missing)}: expected one for each of {', '.join(names)}")
    holder = _Holder(initial)
    optimizer = torch.optim.SGD([{"params": [p], "lr": rates[name]} for name, p in zip(names, holder.values, strict=True)])
    with torch.enable_grad():
        fast = higher.monkeypatch(holder, copy_initial_weights=False, track_higher_grads=not first_order)
        fast.update_params(initial)
        stepper = higher.get_diff_optim(optimizer, holder.parameters(), fmodel=fast, track_higher_grads=not first_order)
        for _ in range(steps):
            stepper.step(loss_fn(dict(zip(names, fast.parameters(), strict=True))).sum())
        adapted = list(fast.parameters())
        if first_order:
            # The same value but for rounding; the gradient goes straight to where the steps began.
            adapted = [start + (end - start).detach() for start, end in zip(initial, adapted, strict=True)]
    return dict(zip(names, adapted, strict=True))


def meta_gradient(
    inner_loss: TaskLoss,
    outer_loss: TaskLoss,
    initial: Parameters,
    *,
    steps: int,
    lr: float | Mapping[str, float],
    first_order: bool = False,
) -> tuple[Float[Tensor, " tasks"], Parameters]:
    """Outer loss of each task after adapting to its inner loss, and the gradient of that with respect to the task's copy of `initial`.

    The mean of the gradients over tasks is MAML's meta-gradient (Finn et al. 2017, algorithm 2, line 10).
    """
    start = {name: value.detach().requires_grad_() for name, value in initial.items()}
    loss = outer_loss(adapt(inner_loss, start, steps=steps, lr=lr, first_order=first_order))
    gradients = torch.autograd.grad(loss.sum(), list(start.values()), materialize_grads=True)
    return loss.detach(), dict(zip(start, gradients, strict=True))


class _Holder(nn.Module):
    """Gives `higher` the module it wants to patch; what is computed from the parameters is `loss_fn`'s matter."""

    def __init__(self, values: list[Tensor]) -> None:
        super().__init__()
        self.values = nn.ParameterList([nn.Parameter(value.detach()) for value in values])
