"""What a peer is given, and what it makes of it."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fewshot_nsl.bench.peers.networks import PeerNetwork
from fewshot_nsl.episodes import EpisodeBatch

Step = Callable[[], Tensor]
"""One meta-step: the mean loss over tasks; its gradient is then in the network's parameters."""


class Task(NamedTuple):
    """One episode, images normalised beforehand."""

    support: Float[Tensor, "n_support c h w"]
    support_labels: Int64[Tensor, " n_support"]
    query: Float[Tensor, "n_query c h w"]
    query_labels: Int64[Tensor, " n_query"]


@runtime_checkable
class MetaStep(Protocol):
    """Builds a peer's second-order MAML step."""

    def __call__(self, network: PeerNetwork, tasks: list[Task], *, steps: int, lr: float) -> Step:
        """The step on all parameters of `network`, which it leaves as they are."""
        ...


def float_tasks(batch: EpisodeBatch, dtype: torch.dtype = torch.float32) -> list[Task]:
    """The tasks of a batch in the form that all peers take: contiguous, about -1 to 1."""
    support, query = ((images.to(dtype) - 127.5) / 127.5 for images in (batch.support, batch.query))
    return [Task(*task) for task in zip(support, batch.support_labels, query, batch.query_labels, strict=True)]
