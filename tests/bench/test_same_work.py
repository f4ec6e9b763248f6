"""Every library's step is ours; of those that are not installed here, only in an environment that `evaluate/benchmarks/peers.py` builds.

FEWSHOT_NSL_PEERS_PYTHON=$(python evaluate/benchmarks/peers.py FOLDER) python -m pytest tests/bench
"""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewshot_nsl.bench import PEERS, Peer, agreeing_peers, installed_peers
from fewshot_nsl.bench.peers import PeerNetwork, Step, Task
from fewshot_nsl.bench.same_work import TOLERANCE, difference

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("FEWSHOT_NSL_PEERS_PYTHON")
STRATEGIES = ("maml", "meta-static")

IN_THEIR_ENVIRONMENT = """
from functools import partial

from peers_imports import prepare_imports

prepare_imports()
from fewshot_nsl.bench import PEERS, Peer, agreeing_peers, installed_peers
from fewshot_nsl.bench.peers.parallel_metalearn import build, settings
from fewshot_nsl.bench.same_work import SMALL

peers = installed_peers(print)
assert list(peers) == list(PEERS)
# which setting is timed depends on its speed, so all must do the same work
peers |= {str(setting): Peer("metalearn", partial(build, setting=setting)) for setting in settings(SMALL.tasks)}
assert list(agreeing_peers(peers, ["maml", "meta-static"], print)) == list(peers)
"""


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_has_our_loss_and_our_meta_gradient(name: str, strategy: str) -> None:
    peers = installed_peers(lambda _: None, [name])
    if not peers:
        pytest.skip(f"{name} is not installed here")
    assert difference(strategy, peers[name]) < TOLERANCE


@pytest.mark.skipif(PYTHON is None, reason="FEWSHOT_NSL_PEERS_PYTHON is not set (evaluate/benchmarks/peers.py)")
def test_all_of_them_agree_where_all_are() -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'evaluate' / 'benchmarks'}"}
    done = subprocess.run([str(PYTHON), "-c", IN_THEIR_ENVIRONMENT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_higher_agrees_to_rounding(strategy: str) -> None:
    assert difference(strategy, PEERS["higher"]) < 1e-12


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_leaving_out_second_derivatives_would_show(strategy: str) -> None:
    assert difference(strategy, PEERS["higher"], first_order=True) > 0.1


def test_a_peer_that_does_something_else_is_left_out_with_a_notice() -> None:
    def one_step_too_few(network: PeerNetwork, tasks: list[Task], *, steps: int, lr: float) -> Step:
        return PEERS["higher"].meta_step(network, tasks, steps=steps - 1, lr=lr)

    said: list[str] = []
    peers = {"lazy": Peer("lazy", one_step_too_few), "higher": PEERS["higher"]}
    assert list(agreeing_peers(peers, ["maml"], said.append)) == ["higher"]
    (line,) = said
    assert line.startswith("lazy is left out: its loss or meta-gradient is not ours, off by (maml ")


def test_a_peer_whose_gradient_is_no_number_is_left_out() -> None:
    def nothing(network: PeerNetwork, tasks: list[Task], *, steps: int, lr: float) -> Step:
        step = PEERS["higher"].meta_step(network, tasks, steps=steps, lr=lr)

        def spoilt() -> Tensor:
            loss = step()
            for value in network.parameters():
                value.grad = torch.full_like(value, float("nan"))
            return loss

        return spoilt

    assert agreeing_peers({"nan": Peer("nan", nothing)}, ["maml"], lambda _: None) == {}
