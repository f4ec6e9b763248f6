import pytest
import torch
from torch import nn

from fewshot_nsl.backbones import CNN4
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeDataset, EpisodeSampler
from fewshot_nsl.inner_loop import choose_engine
from fewshot_nsl.kernels import compiler
from fewshot_nsl.strategies import META_STRATEGIES, InnerLoopConfig

FAST = pytest.param("fast", marks=pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"))
ADAPTING = [name for name, entry in META_STRATEGIES.items() if issubclass(entry.config, InnerLoopConfig)]
STEPS = 100


def _losses(store: ImageStore, name: str, engine: str) -> list[float]:
    """Of a hundred outer steps."""
    torch.manual_seed(0)
    backbone = CNN4(16, 3, width=4, mean=store.mean, std=store.std)
    learner = META_STRATEGIES[name].build(backbone, n_way=3, steps=2, engine=choose_engine(engine))
    assert isinstance(learner, nn.Module)
    learner.double()
    optimizer = torch.optim.Adam([parameter for parameter in learner.parameters() if parameter.requires_grad], 0.003)
    batches = EpisodeDataset(store, EpisodeSampler(store.split_labels("train"), 3, 1, 2, seed=5), 2 * STEPS, tasks=2)
    losses = []
    for index in range(STEPS):
        loss = learner.loss(batches[index]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module", params=ADAPTING)
def reference(request: pytest.FixtureRequest, tiny_store: ImageStore) -> tuple[str, list[float]]:
    """A strategy and its losses by `higher`."""
    return request.param, _losses(tiny_store, request.param, "higher")


@pytest.mark.parametrize("engine", ["plain", FAST])
def test_a_hundred_outer_steps_end_where_those_of_higher_end(
    tiny_store: ImageStore, reference: tuple[str, list[float]], engine: str
) -> None:
    name, expected = reference
    if name != "meta-classifier":  # on frozen features there is little to learn: the ways are others in every episode
        assert max(expected[-10:]) < min(expected[:10])
    assert _losses(tiny_store, name, engine) == pytest.approx(expected, abs=1e-3)
