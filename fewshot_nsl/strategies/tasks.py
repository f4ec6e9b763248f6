"""One network, many tasks: each task has its own similarity and classifier, and all share the filters."""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from fewshot_nsl.inner_loop import Parameters

CLASSIFIER = "classifier"
"""Name of the classifier's weights `[tasks, way, d]`; every other name is a parameter of the network."""


def task_features(network: nn.Module, parameters: Parameters, images: UInt8[Tensor, "tasks n c h w"]) -> Float[Tensor, "tasks n d"]:
    """Features, of length 1, of each task's images under the task's own parameters.

    Task after task: on a CPU, per-task kernels in one grouped convolution are slower.
    """
    own = {name: value for name, value in parameters.items() if name != CLASSIFIER}
    features = [functional_call(network, {name: value[t] for name, value in own.items()}, (x,)) for t, x in enumerate(images)]
    return functional.normalize(torch.stack(features), dim=-1)


def task_logits(network: nn.Module, parameters: Parameters, images: UInt8[Tensor, "tasks n c h w"]) -> Float[Tensor, "tasks n way"]:
    """Features times classifier."""
    return task_features(network, parameters, images) @ parameters[CLASSIFIER].mT


def task_loss(
    network: nn.Module, parameters: Parameters, images: UInt8[Tensor, "tasks n c h w"], labels: Int64[Tensor, "tasks n"]
) -> Float[Tensor, " tasks"]:
    """Mean cross entropy of each task."""
    logits = task_logits(network, parameters, images)
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)


def expand(parameters: dict[str, nn.Parameter], tasks: int) -> Parameters:
    """Every task starts from the same values, `[tasks, ...]`; gradients of all tasks add up in them."""
    return {name: value.expand(tasks, *value.shape) for name, value in parameters.items()}
