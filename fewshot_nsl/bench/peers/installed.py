"""The list of peers, and which of them are here."""

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fewshot_nsl.bench.peers import higher, iteryne, learn2learn, parallel_metalearn, torchopt
from fewshot_nsl.bench.peers.task import MetaStep


@dataclass(frozen=True)
class Peer:
    """A library."""

    module: str
    """What is imported of it."""
    meta_step: MetaStep


PEERS = {
    "higher": Peer("higher", higher.meta_step),
    "learn2learn": Peer("learn2learn", learn2learn.meta_step),
    "torchopt": Peer("torchopt", torchopt.meta_step),
    "parallel-metalearn": Peer("metalearn", parallel_metalearn.meta_step),
    "iteryne": Peer("iteryne", iteryne.meta_step),
}
"""Name in the package index -> how it meta-learns."""


def installed_peers(notice: Callable[[str], None], names: Iterable[str] = tuple(PEERS)) -> dict[str, Peer]:
    """Those of them that can be imported here; `notice` is told of one that is installed and cannot."""
    usable = {}
    for name in names:
        peer = PEERS[name]
        if importlib.util.find_spec(peer.module) is None:
            continue
        try:
            importlib.import_module(peer.module)
        except (ImportError, RuntimeError, AttributeError) as error:  # what a library of other years meets on today's stack
            notice(f"{name} is installed, but its import fails, so it is left out: {' '.join(str(error).split())}")
        else:
            usable[name] = peer
    return usable
