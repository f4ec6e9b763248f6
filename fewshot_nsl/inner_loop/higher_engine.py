"""The reference engine: differentiable SGD by `higher` (Grefenstette et al. 2019), behind a signature of our own."""

import higher
import torch
from torch import Tensor, nn

from fewshot_nsl.inner_loop.parameters import Parameters, Rates, TaskLoss, step_sizes, wanting


def adapt(loss_fn: TaskLoss, parameters: Parameters, *, steps: int, lr: Rates, first_order: bool = False) -> Parameters:
    """See `Adapt`."""
    names, rates = list(parameters), step_sizes(parameters, lr)
    initial = list(wanting(parameters).values())
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


class _Holder(nn.Module):
    """Gives `higher` the module it wants to patch; what is computed from the parameters is `loss_fn`'s matter."""

    def __init__(self, values: list[Tensor]) -> None:
        super().__init__()
        self.values = nn.ParameterList([nn.Parameter(value.detach()) for value in values])
