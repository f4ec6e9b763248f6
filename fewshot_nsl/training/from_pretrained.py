"""Similarity for a network that is trained already: first what similarity adds, then everything (Liu et al. 2019, section 4)."""

import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError, TrainingError
from fewshot_nsl.similarity import added_parameters, sgd_groups

Loss = Callable[[Tensor, Tensor], Float[Tensor, ""]]


def train_from_pretrained(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    module_steps: int,
    whole_steps: int = 0,
    lr: float = 0.1,
    whole_lr: float = 0.01,
    shape_lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    loss: Loss = functional.cross_entropy,
) -> list[float]:
    """Train a converted network in place, in two stages of SGD; every batch is one step.

    First W and all else that the network had stays as it is (BN's running statistics follow, as in any training), and what similarity
    added moves: M, predictors, kernel shapes. Then everything moves.

    Args:
        model: `convert(pretrained, ...)`, on the device of the batches.
        batches: inputs and targets, at least `module_steps + whole_steps` of them.
        module_steps: of the first stage.
        whole_steps: of the second.
        lr: of the first stage.
        whole_lr: of the second stage.
        shape_lr: of kernel shapes, in both.
        momentum: of both.
        weight_decay: of both; kernel shapes have none.
        loss: of the model's output and the targets.

    Returns:
        The loss at each step.

    Raises:
        ConfigurationError: the model has no similarity, or there are too few batches.
        TrainingError: the loss is not finite.
    """
    added = added_parameters(model)
    if not added:
        raise ConfigurationError(f"{type(model).__name__} has no similarity to train; make some first: convert(model, 'static')")
    supply = iter(batches)
    losses: list[float] = []
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        for steps, rate, moving in ((module_steps, lr, added.keys()), (whole_steps, whole_lr, wanted.keys())):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(wanted[name] and name in moving)
            groups = sgd_groups(model, shape_lr=shape_lr)
            optimizer = torch.optim.SGD(groups, rate, momentum, weight_decay=weight_decay, nesterov=momentum > 0)
            for _ in range(steps):
                batch = next(supply, None)
                if batch is None:
                    expected = module_steps + whole_steps
                    raise ConfigurationError(f"{len(losses)} batches to train on: expected {expected}; repeat them: itertools.cycle")
                losses.append(_step(model, optimizer, loss, *batch))
                if not math.isfinite(losses[-1]):
                    raise TrainingError(f"the loss is {losses[-1]} at step {len(losses)}; try a lower learning rate than {rate}")
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(wanted[name])
    return losses


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, inputs: Tensor, targets: Tensor) -> float:
    optimizer.zero_grad()
    value = loss(model.train()(inputs), targets)
    value.backward()
    if torch.isfinite(value):
        optimizer.step()
    return value.item()
