"""Whether a peer's meta-step is ours: the same loss and the same meta-gradient, from the same weights and images, in double precision."""

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import CNN4
from fewshot_nsl.bench.compare import NETWORKS, our_learner, our_step
from fewshot_nsl.bench.peers import Peer, PeerNetwork, float_tasks
from fewshot_nsl.bench.work import MetaWork, made_up_batch
from fewshot_nsl.inner_loop import higher
from fewshot_nsl.strategies import MetaLearner

SMALL = MetaWork(image_size=16, tasks=2, steps=2, n_way=3, n_shot=2, n_query=2, width=4)
"""As every other size, but quick."""

LR = 0.2
"""Large, so that leaving out second derivatives would show."""

TOLERANCE = 1e-6
"""Relative. parallel-metalearn tells its loss in single precision; all else comes out within 1e-14."""


def agreeing_peers(peers: Mapping[str, Peer], strategies: Iterable[str], notice: Callable[[str], None]) -> dict[str, Peer]:
    """Those that do the same work in every strategy; `notice` is told of the others."""
    strategies, same = list(strategies), {}
    for name, peer in peers.items():
        off = {strategy: difference(strategy, peer) for strategy in strategies}
        if all(value <= TOLERANCE for value in off.values()):
            same[name] = peer
        else:
            described = ", ".join(f"{strategy} {value:.1g}" for strategy, value in off.items())
            notice(f"{name} is left out: its loss or meta-gradient is not ours, off by ({described})")
    return same


def difference(strategy: str, peer: Peer, *, first_order: bool = False) -> float:
    """The largest relative difference between the peer's loss and gradients and ours, on small random networks.

    Args:
        strategy: a name in `NETWORKS`.
        peer: what is compared.
        first_order: leave out second derivatives in ours: how far off a peer would be that does.
    """
    learner = our_learner(strategy, SMALL, higher(), lr=LR)
    learner.first_order = first_order
    _randomise(learner.double())
    network = NETWORKS[strategy](SMALL).double()
    copy_weights(learner, network)
    batch = made_up_batch(SMALL, torch.device("cpu"))
    ours = [our_step(learner, batch)(), *_gradients(learner.moving.values())]
    theirs = [peer.meta_step(network, float_tasks(batch, torch.float64), steps=SMALL.steps, lr=LR)(), *_gradients(network.parameters())]
    off = [(b.view_as(a) - a).abs().max() / a.abs().max() for a, b in zip(ours, theirs, strict=True)]
    return float(torch.stack(off).max())  # what is no number stays none


def copy_weights(learner: MetaLearner, network: PeerNetwork) -> None:
    """Give a peer's network the weights of ours."""
    fixed = list(network.buffers())
    theirs = [*network.parameters(), *fixed]
    ours = [*learner.moving.values(), *(_fixed(learner) if fixed else [])]
    with torch.no_grad():
        for target, value in zip(theirs, ours, strict=True):
            target.copy_(value.view_as(target))


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [torch.zeros_like(value) if value.grad is None else value.grad for value in parameters]


def _fixed(learner: MetaLearner) -> list[Tensor]:
    """What meta-static leaves as it is, in the order of the peers' buffers."""
    blocks = cast(CNN4, learner.backbone).blocks
    names = ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    return [stage.state_dict()[name] for stage in blocks for name in names]


def _randomise(learner: MetaLearner) -> None:
    """Move everything from where it starts: at identities, ones and zeros, errors can hide."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in learner.state_dict().items():
            if value.is_floating_point() and "normalise" not in name:
                noise = torch.rand(value.shape, generator=random, dtype=value.dtype)
                value += 0.3 * (noise if "running_var" in name else 2 * noise - 1)
