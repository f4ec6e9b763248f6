from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import CNN4, Backbone
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch, EpisodeDataset, EpisodeSampler
from fewshot_nsl.inner_loop import choose_engine
from fewshot_nsl.kernels import compiler
from fewshot_nsl.precision import Precision
from fewshot_nsl.similarity import SpherePredictor, convert
from fewshot_nsl.strategies import MAML

LR = 0.1
FAST = pytest.param("fast", marks=pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"))
ENGINES = pytest.mark.parametrize("engine", ["higher", "plain", FAST])
KINDS = pytest.mark.parametrize("kind", ["plain", "static", "dynamic"])
ORDERS = pytest.mark.parametrize("first_order", [False, True])


@pytest.fixture
def small(tiny_store: ImageStore) -> Backbone:
    """CNN-4 with 2 filters, new."""
    torch.manual_seed(1)
    return CNN4(16, 3, width=2, mean=tiny_store.mean, std=tiny_store.std).double()


def _strategy(backbone: Backbone, kind: str = "plain", *, transductive: bool = False, **settings: Any) -> MAML:
    """Away from its start, where a similarity is the identity; lines that fall are among BN's."""
    torch.manual_seed(4)
    network = backbone if kind == "plain" else cast(Backbone, convert(backbone, kind))
    for layer in network.modules():
        if isinstance(layer, SpherePredictor):
            nn.init.constant_(layer.gain, 0.5)
    strategy = MAML(network, n_way=3, lr=LR, transductive=transductive, **settings).double()
    with torch.no_grad():
        for parameter in strategy.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        strategy.backbone.get_parameter("blocks.1.1.weight")[0] *= -1
    return strategy


def _by_hand(weights: dict[str, Tensor], strategy: MAML, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of one task's supports and queries, CNN-4 written out; every BN knows the supports alone, and a query comes alone."""
    mean, std = strategy.backbone.get_buffer("normalise.mean"), strategy.backbone.get_buffer("normalise.std")
    streams = [(images.double() - mean) / std for images in (support, *query.split(1))]
    for i in range(4):
        streams = [functional.conv2d(maps, weights[f"backbone.blocks.{i}.0.weight"], padding=1) for maps in streams]
        centre = streams[0].mean((0, 2, 3))
        spread = ((streams[0] - centre[:, None, None]) ** 2).mean((0, 2, 3))
        line = weights[f"backbone.blocks.{i}.1.weight"], weights[f"backbone.blocks.{i}.1.bias"]
        for s, maps in enumerate(streams):
            normal = (maps - centre[:, None, None]) / (spread[:, None, None] + 1e-5).sqrt()
            streams[s] = functional.max_pool2d((normal * line[0][:, None, None] + line[1][:, None, None]).relu(), 2)
    logits = [maps.flatten(1) @ weights["classifier.weight"].T + weights["classifier.bias"] for maps in streams]
    return logits[0], torch.cat(logits[1:])


def _adapted_by_hand(strategy: MAML, batch: EpisodeBatch, task: int, steps: int, *, first_order: bool = False) -> Tensor:
    """Logits of one task's queries after plain gradient steps; differentiable in the strategy's parameters."""
    weights: dict[str, Tensor] = dict(strategy.named_parameters())
    support, query = batch.support[task], batch.query[task]
    for _ in range(steps):
        loss = functional.cross_entropy(_by_hand(weights, strategy, support, query[:1])[0], batch.support_labels[task])
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=not first_order)
        weights = {name: value - LR * gradient for (name, value), gradient in zip(weights.items(), gradients, strict=True)}
    return _by_hand(weights, strategy, support, query)[1]


@ENGINES
@ORDERS
def test_loss_and_meta_gradient_are_those_written_by_hand(small: Backbone, batch: EpisodeBatch, engine: str, *, first_order: bool) -> None:
    strategy = _strategy(small, steps=3, first_order=first_order, engine=choose_engine(engine))
    logits = [_adapted_by_hand(strategy, batch, task, 3, first_order=first_order) for task in range(2)]
    expected = torch.stack([functional.cross_entropy(logits[task], batch.query_labels[task]) for task in range(2)])
    losses = strategy.loss(batch)
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-9)
    gradients = torch.autograd.grad(losses.mean(), list(strategy.parameters()))
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected.mean(), list(strategy.parameters())), strict=True):
        assert wanted.abs().max() > 1e-6
        torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-10)


@ENGINES
def test_fitting_takes_the_steps_of_a_test(small: Backbone, batch: EpisodeBatch, engine: str) -> None:
    strategy = _strategy(small, steps=1, test_steps=4, engine=choose_engine(engine))
    logits = strategy.fit(batch.support, batch.support_labels)(batch.query)
    assert not logits.requires_grad
    for task in range(2):
        torch.testing.assert_close(logits[task], _adapted_by_hand(strategy, batch, task, 4).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("engine", ["plain", FAST])
@KINDS
@ORDERS
def test_loss_and_meta_gradient_are_those_of_higher(
    backbone: Backbone, batch: EpisodeBatch, engine: str, kind: str, *, first_order: bool
) -> None:
    results = []
    for each in ("higher", engine):
        strategy = _strategy(backbone, kind, steps=2, first_order=first_order, engine=choose_engine(each))
        losses = strategy.loss(batch)
        results.append([losses, *torch.autograd.grad(losses.mean(), list(strategy.parameters()))])
    for theirs, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-7 * theirs.abs().max().item())


@ENGINES
@KINDS
def test_the_gradient_of_the_loss_equals_difference_quotients(small: Backbone, batch: EpisodeBatch, kind: str, engine: str) -> None:
    strategy = _strategy(small, kind, steps=2, engine=choose_engine(engine))
    moving = list(strategy.parameters())
    gradients = torch.autograd.grad(strategy.loss(batch).mean(), moving)
    width = 1e-7
    for _ in range(3):
        direction = [torch.randn_like(parameter) for parameter in moving]
        losses = []
        for sign in (1, -2, 1):
            losses.append(strategy.loss(batch).mean().item())
            with torch.no_grad():
                for parameter, along in zip(moving, direction, strict=True):
                    parameter.add_(along, alpha=sign * width)
        slope = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))
        assert slope == pytest.approx((losses[1] - losses[2]) / (2 * width), rel=1e-4, abs=1e-6)


@ENGINES
@KINDS
@pytest.mark.parametrize("transductive", [False, True])
def test_queries_see_each_other_where_it_is_transductive_and_nowhere_else(
    backbone: Backbone, batch: EpisodeBatch, kind: str, engine: str, *, transductive: bool
) -> None:
    strategy = _strategy(backbone, kind, transductive=transductive, test_steps=2, engine=choose_engine(engine))
    assert strategy.transductive is transductive
    classify = strategy.fit(batch.support, batch.support_labels)
    together = classify(batch.query)
    alone = torch.cat([classify(query) for query in batch.query.split(1, dim=1)], dim=1)
    changed = batch.query.clone()
    changed[:, 6:] = 255 - changed[:, 6:]
    for other in (alone[:, :6], classify(changed)[:, :6]):
        if transductive:
            assert not torch.allclose(other, together[:, :6], rtol=1e-3, atol=1e-3)
        else:
            torch.testing.assert_close(other, together[:, :6], rtol=1e-9, atol=1e-9)


@KINDS
def test_tasks_do_not_see_each_other(backbone: Backbone, batch: EpisodeBatch, kind: str) -> None:
    strategy = _strategy(backbone, kind, test_steps=2)
    logits = strategy.fit(batch.support, batch.support_labels)(batch.query)
    for task in range(2):
        support, labels, query = (images[task : task + 1] for images in (batch.support, batch.support_labels, batch.query))
        torch.testing.assert_close(strategy.fit(support, labels)(query)[0], logits[task])


def test_the_published_setting_is_that_of_all_queries_together(backbone: Backbone, batch: EpisodeBatch) -> None:
    assert MAML(backbone).transductive
    losses = [_strategy(backbone, transductive=transductive).loss(batch) for transductive in (True, False)]
    assert ((losses[0] - losses[1]).abs() > 1e-3).all()


def test_half_precision_is_near(backbone: Backbone, batch: EpisodeBatch) -> None:
    engine = choose_engine("higher")
    half = engine.in_precision(Precision("bfloat16", torch.device("cpu")))
    losses = [_strategy(backbone, test_steps=2, engine=each).float().loss(batch).detach() for each in (engine, half)]
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=0.1, atol=0.1)
    assert not torch.equal(losses[1], losses[0])


def test_learns_a_toy_of_colours(backbone: Backbone, tiny_store: ImageStore) -> None:
    torch.manual_seed(0)
    strategy = MAML(backbone, n_way=3, lr=LR, steps=3, test_steps=3, transductive=False).double()
    optimizer = torch.optim.Adam(strategy.parameters(), 0.01)
    sampler = EpisodeSampler(tiny_store.split_labels("train"), n_way=3, n_shot=4, n_query=4, seed=5)
    batches, losses = EpisodeDataset(tiny_store, sampler, episodes=50, tasks=2), []
    for index in range(25):
        loss = strategy.loss(batches[index]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses[-5:]) < min(losses[:5]) / 2
    sampler = EpisodeSampler(tiny_store.split_labels("val"), n_way=3, n_shot=4, n_query=4, seed=1)
    new = EpisodeDataset(tiny_store, sampler, episodes=20, tasks=20)[0]
    predicted = strategy.fit(new.support, new.support_labels)(new.query).argmax(-1)
    assert (predicted == new.query_labels).double().mean() > 0.99  # before training 0.83
