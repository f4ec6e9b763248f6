"""Our meta-steps and the peers', in turn, over their floor."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot_nsl.backbones import CNN4
from fewshot_nsl.bench.measure import Work, figure, medians
from fewshot_nsl.bench.operations import meta_step_operations
from fewshot_nsl.bench.peers import Peer, PeerNetwork, Step, float_tasks, plain_cnn4, static_cnn4
from fewshot_nsl.bench.work import MetaWork, made_up_batch
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.inner_loop import Engine
from fewshot_nsl.strategies import MAML, MetaLearner, MetaStatic

NETWORKS: dict[str, Callable[[MetaWork], PeerNetwork]] = {"maml": plain_cnn4, "meta-static": static_cnn4}
"""What can be timed, by its name in `META_STRATEGIES`: the network on which MAML, as every peer has it, is the same work."""
_LEARNERS: dict[str, Callable[..., MetaLearner]] = {"maml": MAML, "meta-static": MetaStatic}

LR = 0.01
"""Of the inner loop, one for everything that moves, as the peers have it."""


@dataclass(frozen=True)
class Comparison:
    """Milliseconds of one meta-step."""

    strategy: str
    work: MetaWork
    floor: float
    """The operations that it needs, at the measured rate of a large product."""
    ours: Mapping[str, float]
    """By engine."""
    peers: Mapping[str, float]

    def figures(self, device: torch.device) -> list[str]:
        """Lines of JSON: every engine of ours over the floor, and over every peer."""
        against = {"floor": self.floor, **self.peers}
        return [
            figure(f"{self.strategy}, {self.work}, {engine}: time over {name}", ours, time, "ms", device)
            for engine, ours in self.ours.items()
            for name, time in against.items()
        ]


def timed_strategies(names: Sequence[str] = ()) -> list[str]:
    """Those asked for, each once, or all that can be timed.

    Raises:
        ConfigurationError: one that cannot be.
    """
    for name in names:
        if name not in NETWORKS:
            raise ConfigurationError(f"strategy '{name}' cannot be timed: expected one of {', '.join(NETWORKS)}")
    return list(dict.fromkeys(names or NETWORKS))


def our_learner(strategy: str, work: MetaWork, engine: Engine, *, lr: float = LR) -> MetaLearner:
    """Ours on CNN-4 of random weights."""
    torch.manual_seed(0)
    backbone = CNN4(work.image_size, work.channels, width=work.width, mean=[127.5] * work.channels, std=[127.5] * work.channels)
    learner = _LEARNERS[strategy](backbone, n_way=work.n_way, steps=work.steps, engine=engine).train()
    learner.rates = dict.fromkeys(learner.moving, lr)
    return learner


def our_step(learner: MetaLearner, batch: EpisodeBatch) -> Step:
    """One step of ours, as training takes it: from uint8 images to gradients."""

    def step() -> Tensor:
        learner.zero_grad()
        loss = learner.loss(batch).mean()
        loss.backward()
        return loss.detach()

    return step


def our_work(strategy: str, work: MetaWork, engine: Engine, device: torch.device) -> Work:
    """What is timed of ours."""
    return our_step(our_learner(strategy, work, engine).to(device), made_up_batch(work, device))


def peer_work(strategy: str, work: MetaWork, peer: Peer, device: torch.device) -> Work:
    """What is timed of a peer: its step on a plain network of the same sizes. Its images are normalised beforehand."""
    torch.manual_seed(0)
    network = NETWORKS[strategy](work).to(device)
    return peer.meta_step(network, float_tasks(made_up_batch(work, device)), steps=work.steps, lr=LR)


def compare(
    strategy: str,
    work: MetaWork,
    engines: Sequence[Engine],
    peers: Mapping[str, Peer],
    device: torch.device,
    *,
    rounds: int,
    operations: float,
) -> Comparison:
    """Time one step of ours with each engine, and of every peer; `operations` a second is the machine's measured rate."""
    ours = {f"our {engine.name}": our_work(strategy, work, engine, device) for engine in engines}
    times = medians(ours | {name: peer_work(strategy, work, peer, device) for name, peer in peers.items()}, device, rounds)
    by_engine = {engine.name: times.pop(f"our {engine.name}") for engine in engines}
    return Comparison(strategy, work, 1e3 * meta_step_operations(work) / operations, by_engine, times)
