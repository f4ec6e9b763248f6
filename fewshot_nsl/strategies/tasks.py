"""One network, many tasks: each task has its own copy of a few parameters, and all share the rest."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.func import functional_call

from fewshot_nsl.inner_loop import Parameters


def task_features(backbone: nn.Module, own: Parameters, images: UInt8[Tensor, "tasks n c h w"]) -> Float[Tensor, "tasks n d"]:
    """Features of each task's images under its own parameters, by their names in the backbone.

    Task after task: on a CPU, per-task kernels in one grouped convolution are slower.
    """
    return torch.stack([functional_call(backbone, {name: value[t] for name, value in own.items()}, (x,)) for t, x in enumerate(images)])


def expand(parameters: dict[str, nn.Parameter], tasks: int) -> Parameters:
    """Every task starts from the same values, `[tasks, ...]`; gradients of all tasks add up in them."""
    return {name: value.expand(tasks, *value.shape) for name, value in parameters.items()}
