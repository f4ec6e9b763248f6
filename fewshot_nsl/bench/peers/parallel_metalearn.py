"""MAML by parallel-metalearn: `torch.func` over the tasks, all at once, in chunks, or one after another."""

from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewshot_nsl.bench.measure import milliseconds
from fewshot_nsl.bench.peers.networks import PeerNetwork
from fewshot_nsl.bench.peers.task import Step, Task


class Setting(NamedTuple):
    """What its users are told to tune."""

    backend: str
    chunk_size: int


def settings(tasks: int) -> list[Setting]:
    """All tasks at once, one a chunk, or one after another without `vmap`."""
    return [Setting("vmap", tasks), Setting("vmap", 1), Setting("sequential", 1)]


def meta_step(network: PeerNetwork, tasks: list[Task], *, steps: int, lr: float) -> Step:
    """The step in whichever of its settings is the fastest here, by one run of each after one to warm up."""
    forms = [build(network, tasks, setting, steps=steps, lr=lr) for setting in settings(len(tasks))]
    times = []
    for form in forms:
        form()
        times.append(milliseconds(form, tasks[0].query.device))
    return forms[times.index(min(times))]


def build(network: PeerNetwork, tasks: list[Task], setting: Setting, *, steps: int, lr: float) -> Step:
    """The step in one setting; its own optimizer moves nothing."""
    from metalearn.algorithms import MAML
    from metalearn.inner_optimizers import InnerSGD
    from metalearn.loss import CategoricalAccuracy, CrossEntropy
    from metalearn.model_wrappers import MAML_Model

    body = network.body if setting.backend == "sequential" else _with_its_norm(network.body)
    model = MAML_Model(backbone=_Silent(body), head=_Silent(network.classifier))
    inner = InnerSGD(model.get_fast_weights(), inner_lr=lr, learn_lr=False, max_inner_steps=steps)
    algorithm = MAML(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        inner_optimizer=inner,
        support_loss_fn=CrossEntropy(CategoricalAccuracy()),
        inner_steps=steps,
        backend=setting.backend,
        chunk_size=setting.chunk_size,
        device=tasks[0].query.device,
    )
    support, support_labels, query, query_labels = (torch.stack(parts) for parts in zip(*tasks, strict=True))
    batches = repeat((support, {"labels": support_labels}, query, {"labels": query_labels}))

    # One after another, it divides the loss that it reports by the number of tasks twice; the gradient is right.
    scale = len(tasks) if setting.backend == "sequential" else 1

    def step() -> Tensor:
        loss, _ = algorithm.step(batches)
        return torch.tensor(loss * scale, dtype=support.dtype)

    return step


def _with_its_norm(module: nn.Module) -> nn.Module:
    """The same layers and parameters, BN excepted: differentiated twice under `vmap`, torch's own is wrong by some thousandths."""
    from metalearn.nn_models.basic_layers import BatchNorm

    if isinstance(module, nn.Sequential):
        return nn.Sequential(*map(_with_its_norm, module))
    if isinstance(module, nn.BatchNorm2d):
        norm = BatchNorm(module.num_features, eps=module.eps, track_running_stats=False)
        norm.weight, norm.bias = module.weight, module.bias
        return norm
    return module


class _Silent(nn.Module):
    """Its wrapper tells every module the inner step and whether it trains; torch's own layers do not listen."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input: Tensor, **_: Any) -> Tensor:
        return self.module(input)
