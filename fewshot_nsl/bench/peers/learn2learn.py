"""MAML by learn2learn (Arnold et al. 2020), as in its own example on vision."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewshot_nsl.bench.peers.networks import PeerNetwork
from fewshot_nsl.bench.peers.task import Step, Task


def meta_step(network: PeerNetwork, tasks: list[Task], *, steps: int, lr: float) -> Step:
    """Task after task, each differentiated as soon as it is done."""
    from learn2learn.algorithms import MAML

    maml = MAML(network, lr=lr)

    def step() -> Tensor:
        network.zero_grad()
        total = torch.zeros((), device=tasks[0].query.device)
        for task in tasks:
            learner = maml.clone()
            for _ in range(steps):
                learner.adapt(cross_entropy(learner(task.support), task.support_labels))
            loss = cross_entropy(learner(task.query), task.query_labels) / len(tasks)
            loss.backward()
            total = total + loss.detach()
        return total

    return step
