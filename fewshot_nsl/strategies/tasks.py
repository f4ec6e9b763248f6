"""A linear classifier on a network's features, each task with its own classifier and its own part of the network."""

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.inner_loop import Parameters, TaskNetwork

CLASSIFIER = "classifier"
"""Name of the classifier's weights `[tasks, way, d]`."""
BIAS = "classifier.bias"
"""Name of its bias `[tasks, way]`, where it has one; every other name is a parameter of the network."""


def raw_features(network: TaskNetwork, parameters: Parameters, prepared: Tensor) -> Float[Tensor, "tasks n d"]:
    """Features of each task's `prepared` images under the task's own parameters."""
    own = {name: value for name, value in parameters.items() if name not in (CLASSIFIER, BIAS)}
    return network.features(own, prepared)


def task_features(network: TaskNetwork, parameters: Parameters, prepared: Tensor) -> Float[Tensor, "tasks n d"]:
    """The same, scaled to length 1."""
    return functional.normalize(raw_features(network, parameters, prepared), dim=-1)


def task_logits(network: TaskNetwork, parameters: Parameters, prepared: Tensor) -> Float[Tensor, "tasks n way"]:
    """Features of length 1 times classifier."""
    return task_features(network, parameters, prepared) @ parameters[CLASSIFIER].mT


def cross_entropies(logits: Float[Tensor, "tasks n way"], labels: Int64[Tensor, "tasks n"]) -> Float[Tensor, " tasks"]:
    """Mean cross entropy of each task."""
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)


def expand(parameters: dict[str, nn.Parameter], tasks: int) -> Parameters:
    """Every task starts from the same values, `[tasks, ...]`; gradients of all tasks add up in them."""
    return {name: value.expand(tasks, *value.shape) for name, value in parameters.items()}
