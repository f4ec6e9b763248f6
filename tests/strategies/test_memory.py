"""Long: `python -m pytest -m slow`."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeDataset, EpisodeSampler
from fewshot_nsl.inner_loop import choose_engine
from fewshot_nsl.strategies import META_STRATEGIES, EpisodeLearner, InnerLoopConfig

ADAPTING = [name for name, entry in META_STRATEGIES.items() if issubclass(entry.config, InnerLoopConfig)]
STEPS, EARLY = 2000, 400
STATUS = Path("/proc/self/status")


def _held() -> tuple[int, float]:
    """Tensors that are alive, and megabytes of this process."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()), int(line.split()[1]) / 2**10


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.is_file(), reason="this system does not say what a process holds")
@pytest.mark.parametrize("engine", ["auto", "plain", "higher"])
@pytest.mark.parametrize("name", ADAPTING)
def test_two_thousand_outer_steps_hold_no_more_than_a_few(
    tiny_store: ImageStore, new_learner: Callable[..., EpisodeLearner], name: str, engine: str
) -> None:
    learner = new_learner(name, n_way=3, engine=choose_engine(engine))
    optimizer = torch.optim.Adam([parameter for parameter in learner.parameters() if parameter.requires_grad], 0.003)
    batches = EpisodeDataset(tiny_store, EpisodeSampler(tiny_store.split_labels("train"), 3, 1, 2, seed=5), 2 * STEPS, tasks=2)
    early = (0, 0.0)
    for index in range(STEPS):
        optimizer.zero_grad()
        learner.loss(batches[index]).mean().backward()
        optimizer.step()
        if index == EARLY:
            early = _held()
    tensors, megabytes = _held()
    assert tensors <= early[0]
    assert megabytes < early[1] + 4
