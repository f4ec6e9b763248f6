"""MAML by higher (Grefenstette et al. 2019), as in its own example on Omniglot."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewshot_nsl.bench.peers.networks import PeerNetwork
from fewshot_nsl.bench.peers.task import Step, Task


def meta_step(network: PeerNetwork, tasks: list[Task], *, steps: int, lr: float) -> Step:
    """Task after task, each differentiated as soon as it is done."""
    import higher

    inner = torch.optim.SGD(network.parameters(), lr)

    def step() -> Tensor:
        network.zero_grad()
        total = torch.zeros((), device=tasks[0].query.device)
        for task in tasks:
            with higher.innerloop_ctx(network, inner, copy_initial_weights=False) as (fast, optimizer):
                for _ in range(steps):
                    optimizer.step(cross_entropy(fast(task.support), task.support_labels))
                loss = cross_entropy(fast(task.query), task.query_labels) / len(tasks)
                loss.backward()
            total = total + loss.detach()
        return total

    return step
