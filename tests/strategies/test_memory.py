"""Long: `python -m pytest -m slow`."""

import ctypes
import gc
from pathlib import Path

import pytest
import torch
from torch import nn

from fewshot_nsl.backbones import CNN4
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeDataset, EpisodeSampler
from fewshot_nsl.inner_loop import choose_engine
from fewshot_nsl.strategies import META_STRATEGIES, InnerLoopConfig

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
def test_two_thousand_outer_steps_hold_no_more_than_a_few(tiny_store: ImageStore, name: str, engine: str) -> None:
    backbone = CNN4(16, 3, width=4, mean=tiny_store.mean, std=tiny_store.std)
    learner = META_STRATEGIES[name].build(backbone, n_way=3, engine=choose_engine(engine))
    assert isinstance(learner, nn.Module)
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
