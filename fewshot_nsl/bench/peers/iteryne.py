"""MAML by iteryne, as in its own trainer."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewshot_nsl.bench.peers.networks import PeerNetwork
from fewshot_nsl.bench.peers.task import Step, Task


def meta_step(network: PeerNetwork, tasks: list[Task], *, steps: int, lr: float) -> Step:
    """Task after task, each differentiated as soon as it is done."""
    from iteryne import MAML

    maml = MAML(network, inner_lr=lr, inner_steps=steps)

    def step() -> Tensor:
        network.zero_grad()
        total = torch.zeros((), device=tasks[0].query.device)
        for task in tasks:
            learner = maml.clone()
            learner.adapt_on(cross_entropy, task.support, task.support_labels)
            loss = cross_entropy(learner(task.query), task.query_labels) / len(tasks)
            loss.backward()
            total = total + loss.detach()
        return total

    return step
