"""All tasks in one pass: each task is a group of channels, in one grouped convolution a layer.

Channels last in memory, a grouped convolution runs as fast as the tasks' convolutions one after the other, or faster where they are small;
and what surrounds it costs one call for all tasks.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from fewshot_nsl.backbones import Backbone, Normalise
from fewshot_nsl.backbones.first_statistics import NormByFirst2d, NormReluPoolByFirst2d
from fewshot_nsl.backbones.pooled import NormReluPool2d
from fewshot_nsl.inner_loop.layers import TaskBatchNorm2d, TaskConv2d, TaskStaticConv2d
from fewshot_nsl.inner_loop.parameters import Parameters
from fewshot_nsl.inner_loop.pooled_layers import TaskNormReluPool2d, TaskSequential
from fewshot_nsl.kernels import Kernels
from fewshot_nsl.similarity import StaticSimilarityConv2d

_LEAVES: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Conv2d: TaskConv2d,
    StaticSimilarityConv2d: TaskStaticConv2d,
    nn.BatchNorm2d: TaskBatchNorm2d,
    NormReluPool2d: TaskNormReluPool2d,
    NormByFirst2d: TaskBatchNorm2d,
    NormReluPoolByFirst2d: TaskNormReluPool2d,
    # Done once for all steps, by `prepare`.
    Normalise: lambda _: nn.Identity(),
    nn.ReLU: lambda layer: layer,
    nn.MaxPool2d: lambda layer: layer,
    nn.Identity: lambda layer: layer,
}
"""How a layer becomes one for many tasks; what works on each channel alone is that already."""


class GroupedNetwork:
    """A network of layers that are known here, all tasks in one pass; a `TaskNetwork`.

    Args:
        network: as `can_be_grouped` allows. It is not copied: changes of its weights are seen.
        kernels: what computes the stages.
    """

    def __init__(self, network: nn.Module, kernels: Kernels) -> None:
        self._normalise = next((module for module in network.modules() if isinstance(module, Normalise)), None)
        self._body = _regroup(network, kernels)
        self._first = next(module for module in self._body.modules() if isinstance(module, TaskConv2d))

    def prepare(self, images: Shaped[Tensor, "tasks n c h w"]) -> Float[Tensor, "n tasks_c h w"]:
        """Normalised, the tasks' channels side by side, channels last."""
        tasks, _, c, h, w = images.shape
        with torch.no_grad():
            values = images.flatten(0, 1) if self._normalise is None else self._normalise(images.flatten(0, 1))
            side_by_side = values.unflatten(0, images.shape[:2]).permute(1, 3, 4, 0, 2).reshape(-1, h, w, tasks * c)
        return side_by_side.permute(0, 3, 1, 2)

    def features(self, parameters: Parameters, prepared: Float[Tensor, "n tasks_c h w"]) -> Float[Tensor, "tasks n d"]:
        """See `TaskNetwork`."""
        features: Tensor = functional_call(self._body, parameters, (prepared,))
        return features.unflatten(1, (self._first.tasks(prepared), -1)).transpose(0, 1)


def can_be_grouped(network: nn.Module) -> bool:
    """Whether all of a network's layers can be made ready for many tasks at once. If not, a `LoopedNetwork` runs it."""
    if type(network) in _LEAVES:
        return _is_plain(network)
    holds_its_own = any(True for _ in network.parameters(recurse=False))
    known = type(network) is nn.Sequential or (isinstance(network, Backbone) and network.channels_apart)
    return known and not holds_its_own and all(can_be_grouped(child) for child in network.children())


def _is_plain(layer: nn.Module) -> bool:
    """Nothing about it that the layers for many tasks leave out."""
    if isinstance(layer, StaticSimilarityConv2d) and layer.kernel_shape is not None:
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if isinstance(layer, nn.BatchNorm2d):
        return layer.affine
    return True


def _regroup(module: nn.Module, kernels: Kernels) -> nn.Module:
    if type(module) in _LEAVES:
        return _LEAVES[type(module)](module)
    children = {name: _regroup(child, kernels) for name, child in module.named_children()}
    if type(module) is nn.Sequential:
        return TaskSequential(children, kernels)
    shallow = copy.copy(module)
    shallow._modules = dict(children)
    return shallow
