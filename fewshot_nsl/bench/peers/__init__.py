"""The libraries that meta-learn today, each doing the same MAML step in its own way. None is imported before its step is built."""

from fewshot_nsl.bench.peers.installed import PEERS, Peer, installed_peers
from fewshot_nsl.bench.peers.networks import PeerNetwork, plain_cnn4, static_cnn4
from fewshot_nsl.bench.peers.task import MetaStep, Step, Task, float_tasks

__all__ = ["PEERS", "MetaStep", "Peer", "PeerNetwork", "Step", "Task", "float_tasks", "installed_peers", "plain_cnn4", "static_cnn4"]
