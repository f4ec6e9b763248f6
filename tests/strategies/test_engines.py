from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeDataset, EpisodeSampler
from fewshot_nsl.inner_loop import choose_engine
from fewshot_nsl.kernels import compiler
from fewshot_nsl.strategies import META_STRATEGIES, EpisodeLearner, InnerLoopConfig

FAST = pytest.param("fast", marks=pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"))
ADAPTING = [pytest.param(name, {}, id=name) for name, entry in META_STRATEGIES.items() if issubclass(entry.config, InnerLoopConfig)]
ADAPTING.append(pytest.param("maml", {"transductive": False}, id="maml, inductive"))
GPU = pytest.param("plain", "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))
STEPS = 100

Settings = dict[str, Any]
NewLearner = Callable[..., EpisodeLearner]


def _gradients(store: ImageStore, new_learner: NewLearner, name: str, engine: str, device: str, **settings: Any) -> list[Tensor]:
    """Losses of two tasks, and the gradient of their mean in everything that is learned, away from where training starts."""
    learner = new_learner(name, n_way=3, steps=3, engine=choose_engine(engine), **settings).double()
    moving = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in moving:
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    batch = EpisodeDataset(store, EpisodeSampler(store.split_labels("train"), 3, 2, 4, seed=5), 2, tasks=2)[0]
    losses = learner.to(device).loss(batch.to(torch.device(device)))
    gradients = torch.autograd.grad(losses.mean(), [parameter for parameter in learner.parameters() if parameter.requires_grad])
    return [tensor.detach().cpu() for tensor in (losses, *gradients)]


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize(("name", "settings"), ADAPTING)
@pytest.mark.parametrize(("engine", "device"), [("plain", "cpu"), pytest.param("fast", "cpu", marks=FAST.marks), GPU])
def test_losses_and_meta_gradients_are_those_of_higher(
    tiny_store: ImageStore, new_learner: NewLearner, name: str, settings: Settings, engine: str, device: str, *, first_order: bool
) -> None:
    expected = _gradients(tiny_store, new_learner, name, "higher", device, first_order=first_order, **settings)
    found = _gradients(tiny_store, new_learner, name, engine, device, first_order=first_order, **settings)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-7 * theirs.abs().max().item())


def _losses(store: ImageStore, new_learner: NewLearner, name: str, settings: Settings, engine: str) -> list[float]:
    """Of a hundred outer steps."""
    learner = new_learner(name, n_way=3, steps=2, engine=choose_engine(engine), **settings).double()
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


@pytest.fixture(scope="module", params=[pytest.param(case.values, id=case.id) for case in ADAPTING])
def reference(request: pytest.FixtureRequest, tiny_store: ImageStore, new_learner: NewLearner) -> tuple[str, Settings, list[float]]:
    """A strategy and its losses by `higher`."""
    name, settings = request.param
    return name, settings, _losses(tiny_store, new_learner, name, settings, "higher")


@pytest.mark.parametrize("engine", ["plain", FAST])
def test_a_hundred_outer_steps_end_where_those_of_higher_end(
    tiny_store: ImageStore, new_learner: NewLearner, reference: tuple[str, Settings, list[float]], engine: str
) -> None:
    name, settings, expected = reference
    if name != "meta-classifier":  # on frozen features there is little to learn: the ways are others in every episode
        assert max(expected[-10:]) < min(expected[:10])
    assert _losses(tiny_store, new_learner, name, settings, engine) == pytest.approx(expected, abs=1e-3)
