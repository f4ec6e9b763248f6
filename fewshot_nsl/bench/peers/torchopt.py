"""MAML by TorchOpt (Ren et al. 2022), as in its own example on Omniglot."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewshot_nsl.bench.peers.networks import PeerNetwork
from fewshot_nsl.bench.peers.task import Step, Task


def meta_step(network: PeerNetwork, tasks: list[Task], *, steps: int, lr: float) -> Step:
    """Task after task, each differentiated as soon as it is done: its example keeps all graphs to the end, which takes more memory."""
    import torchopt

    inner = torchopt.MetaSGD(network, lr=lr)

    def step() -> Tensor:
        network.zero_grad()
        start = torchopt.extract_state_dict(network, by="reference", detach_buffers=True)
        inner_start = torchopt.extract_state_dict(inner, by="reference")
        total = torch.zeros((), device=tasks[0].query.device)
        for task in tasks:
            for _ in range(steps):
                inner.step(cross_entropy(network(task.support), task.support_labels))
            loss = cross_entropy(network(task.query), task.query_labels) / len(tasks)
            torchopt.recover_state_dict(network, start)
            torchopt.recover_state_dict(inner, inner_start)
            loss.backward()
            total = total + loss.detach()
        return total

    return step
