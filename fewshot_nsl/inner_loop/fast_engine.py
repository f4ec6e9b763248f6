"""The fast engine's steps: gradient descent written out. What is fast is the network under it (`grouped.py`)."""

import torch

from fewshot_nsl.inner_loop.parameters import Parameters, Rates, TaskLoss, step_sizes, wanting


def adapt(loss_fn: TaskLoss, parameters: Parameters, *, steps: int, lr: Rates, first_order: bool = False) -> Parameters:
    """See `Adapt`."""
    rates, values = step_sizes(parameters, lr), wanting(parameters)
    with torch.enable_grad():
        for _ in range(steps):
            gradients = torch.autograd.grad(
                loss_fn(values).sum(), list(values.values()), create_graph=not first_order, materialize_grads=True
            )
            values = {name: value - rates[name] * g for (name, value), g in zip(values.items(), gradients, strict=True)}
    return values
