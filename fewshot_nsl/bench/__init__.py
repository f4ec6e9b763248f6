"""Timing: the standard meta-step, ours and that of other libraries, in turn on this machine, against what it could reach."""

from fewshot_nsl.bench.compare import Comparison, compare, our_learner, our_step, our_work, peer_work, timed_strategies
from fewshot_nsl.bench.measure import Work, ceilings, figure, medians, milliseconds, peak_megabytes, report
from fewshot_nsl.bench.operations import meta_step_operations
from fewshot_nsl.bench.peers import PEERS, Peer, installed_peers
from fewshot_nsl.bench.same_work import agreeing_peers
from fewshot_nsl.bench.work import MetaWork, made_up_batch, made_up_store

__all__ = [
    "PEERS",
    "Comparison",
    "MetaWork",
    "Peer",
    "Work",
    "agreeing_peers",
    "ceilings",
    "compare",
    "figure",
    "installed_peers",
    "made_up_batch",
    "made_up_store",
    "medians",
    "meta_step_operations",
    "milliseconds",
    "our_learner",
    "our_step",
    "our_work",
    "peak_megabytes",
    "peer_work",
    "report",
    "timed_strategies",
]
