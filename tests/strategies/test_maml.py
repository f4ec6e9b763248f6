import copy
from dataclasses import fields
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import CNN4, Backbone
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import EpisodeError
from fewshot_nsl.inner_loop import choose_engine
from fewshot_nsl.kernels import compiler
from fewshot_nsl.similarity import SpherePredictor, convert
from fewshot_nsl.strategies import MAML

LR = 0.1
ENGINES = pytest.mark.parametrize(
    "engine", ["higher", "plain", pytest.param("fast", marks=pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"))]
)
KINDS = pytest.mark.parametrize("kind", ["plain", "static", "dynamic"])


def _strategy(backbone: Backbone, kind: str = "plain", **settings: Any) -> MAML:
    """Away from its start, where a similarity is the identity."""
    torch.manual_seed(4)
    network = backbone if kind == "plain" else cast(Backbone, convert(backbone, kind))
    for layer in network.modules():
        if isinstance(layer, SpherePredictor):
            nn.init.constant_(layer.gain, 0.5)
    strategy = MAML(network, n_way=3, lr=LR, **settings).double()
    with torch.no_grad():
        for parameter in strategy.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return strategy


def _tasks(batch: EpisodeBatch, order: list[int]) -> EpisodeBatch:
    return EpisodeBatch(**{field.name: getattr(batch, field.name)[order] for field in fields(batch)})


@pytest.fixture
def small(tiny_store: ImageStore) -> Backbone:
    """CNN-4 with 2 filters, new."""
    torch.manual_seed(1)
    return CNN4(16, 3, width=2, mean=tiny_store.mean, std=tiny_store.std).double()


def _plain_forward(weights: dict[str, Tensor], strategy: MAML, images: Tensor) -> Tensor:
    """CNN-4 and the classifier written out; every BN sees `images` and nothing else."""
    mean, std = strategy.backbone.get_buffer("normalise.mean"), strategy.backbone.get_buffer("normalise.std")
    maps = (images.double() - mean) / std
    for i in range(4):
        maps = functional.conv2d(maps, weights[f"backbone.blocks.{i}.0.weight"], padding=1)
        centred = maps - maps.mean((0, 2, 3), keepdim=True)
        maps = centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
        scale, shift = weights[f"backbone.blocks.{i}.1.weight"], weights[f"backbone.blocks.{i}.1.bias"]
        maps = functional.max_pool2d((maps * scale[:, None, None] + shift[:, None, None]).relu(), 2)
    return maps.flatten(1) @ weights["classifier.weight"].T + weights["classifier.bias"]


def _by_hand(strategy: MAML, batch: EpisodeBatch, task: int, steps: int, *, first_order: bool = False) -> tuple[Tensor, Tensor]:
    """Logits and loss of one task's queries after plain gradient steps; differentiable in the strategy's parameters."""
    weights: dict[str, Tensor] = dict(strategy.named_parameters())
    for _ in range(steps):
        loss = functional.cross_entropy(_plain_forward(weights, strategy, batch.support[task]), batch.support_labels[task])
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=not first_order)
        weights = {name: value - LR * gradient for (name, value), gradient in zip(weights.items(), gradients, strict=True)}
    logits = _plain_forward(weights, strategy, batch.query[task])
    return logits, functional.cross_entropy(logits, batch.query_labels[task])


@ENGINES
@pytest.mark.parametrize("first_order", [False, True])
def test_loss_and_meta_gradient_are_plain_autograds(small: Backbone, batch: EpisodeBatch, engine: str, *, first_order: bool) -> None:
    strategy = _strategy(small, steps=3, first_order=first_order, engine=choose_engine(engine))
    expected = torch.stack([_by_hand(strategy, batch, task, 3, first_order=first_order)[1] for task in range(2)])
    losses = strategy.loss(batch)
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-9)
    gradients = torch.autograd.grad(losses.mean(), list(strategy.parameters()))
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected.mean(), list(strategy.parameters())), strict=True):
        assert wanted.abs().max() > 1e-6
        torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-10)


@ENGINES
@KINDS
def test_the_gradient_of_the_loss_equals_difference_quotients(small: Backbone, batch: EpisodeBatch, kind: str, engine: str) -> None:
    chosen = choose_engine(engine)
    strategy, rough = (_strategy(small, kind, steps=2, first_order=first_order, engine=chosen) for first_order in (False, True))
    moving = list(strategy.parameters())
    gradients = torch.autograd.grad(strategy.loss(batch).mean(), moving)
    approximate = torch.autograd.grad(rough.loss(batch).mean(), list(rough.parameters()))
    width, gaps = 1e-7, []
    for _ in range(3):
        direction = [torch.randn_like(parameter) for parameter in moving]
        losses = []
        for sign in (1, -2, 1):
            losses.append(strategy.loss(batch).mean().item())
            with torch.no_grad():
                for parameter, along in zip(moving, direction, strict=True):
                    parameter.add_(along, alpha=sign * width)
        quotient = (losses[1] - losses[2]) / (2 * width)
        slopes = [sum((g * d).sum().item() for g, d in zip(some, direction, strict=True)) for some in (gradients, approximate)]
        assert slopes[0] == pytest.approx(quotient, rel=1e-4, abs=1e-6)
        gaps.append(abs(slopes[1] - quotient))
    assert max(gaps) > 1e-3  # what first order leaves out is there


@KINDS
def test_everything_that_has_a_gradient_moves_and_nothing_else(backbone: Backbone, batch: EpisodeBatch, kind: str) -> None:
    strategy = _strategy(backbone, kind)
    before = {name: value.clone() for name, value in strategy.state_dict().items()}
    optimizer = torch.optim.SGD(strategy.parameters(), 1.0)
    strategy.train().loss(batch).mean().backward()
    optimizer.step()
    moved = {name for name, value in strategy.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name, _ in strategy.named_parameters()}
    assert len(strategy.moving) == len(moved)
    assert set(strategy.rates) == set(strategy.moving)


def test_what_asks_for_no_gradient_stays(backbone: Backbone, batch: EpisodeBatch) -> None:
    frozen = "blocks.1.0.weight"
    backbone.get_parameter(frozen).requires_grad = False
    strategy = _strategy(backbone)
    assert frozen not in strategy.moving
    strategy.loss(batch).mean().backward()
    assert {name for name, value in strategy.named_parameters() if value.grad is None} == {f"backbone.{frozen}"}


def test_fitting_takes_the_steps_of_a_test(small: Backbone, batch: EpisodeBatch) -> None:
    strategy = _strategy(small, steps=1, test_steps=4)
    logits = strategy.fit(batch.support, batch.support_labels)(batch.query)
    for task in range(2):
        torch.testing.assert_close(logits[task], _by_hand(strategy, batch, task, 4)[0].detach(), rtol=1e-9, atol=1e-9)


@KINDS
def test_fitting_leaves_everything_as_it_is(backbone: Backbone, batch: EpisodeBatch, kind: str) -> None:
    strategy = _strategy(backbone, kind)
    before = {name: value.clone() for name, value in strategy.state_dict().items()}
    for mode in (True, False):
        logits = strategy.train(mode).fit(batch.support, batch.support_labels)(batch.query)
        assert not logits.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in strategy.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in strategy.parameters())


def test_there_are_no_running_statistics(backbone: Backbone) -> None:
    strategy = MAML(backbone, n_way=3)
    assert not [name for name in strategy.state_dict() if "running" in name or "tracked" in name]
    assert backbone.state_dict().keys() - {name.removeprefix("backbone.") for name in strategy.state_dict()}


def test_the_given_backbone_is_left_as_it_is(backbone: Backbone, batch: EpisodeBatch) -> None:
    before = copy.deepcopy(backbone.state_dict())
    _strategy(backbone).loss(batch)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@KINDS
def test_statistics_are_of_one_task_alone(backbone: Backbone, batch: EpisodeBatch, kind: str) -> None:
    strategy = _strategy(backbone, kind, steps=2)
    losses, logits = strategy.loss(batch), strategy.fit(batch.support, batch.support_labels)(batch.query)
    for task in range(2):
        alone = _tasks(batch, [task])
        torch.testing.assert_close(strategy.loss(alone)[0], losses[task])
        torch.testing.assert_close(strategy.fit(alone.support, alone.support_labels)(alone.query)[0], logits[task])


def test_queries_see_those_of_their_task_and_no_others(backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = _strategy(backbone)
    assert strategy.transductive
    classify = strategy.fit(batch.support, batch.support_labels)
    before = classify(batch.query)
    changed = batch.query.clone()
    changed[1, 6:] = 255 - changed[1, 6:]
    after = classify(changed)
    assert torch.equal(after[0], before[0])
    assert not torch.allclose(after[1, :6], before[1, :6], rtol=1e-3, atol=1e-3)


def test_permuting_tasks_permutes_losses(backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = _strategy(backbone, steps=2)
    losses = strategy.loss(batch)
    torch.testing.assert_close(strategy.loss(_tasks(batch, [1, 0])), losses.flip(0))
    assert (losses[0] - losses[1]).abs() > 1e-3


def test_features_are_of_any_length_and_the_classifier_has_a_bias(small: Backbone, batch: EpisodeBatch) -> None:
    strategy = _strategy(small, test_steps=0)
    expected = torch.stack([_plain_forward(dict(strategy.named_parameters()), strategy, images) for images in batch.query])
    torch.testing.assert_close(strategy.fit(batch.support, batch.support_labels)(batch.query), expected.detach())
    assert strategy.classifier.weight.shape == (3, 2)
    assert strategy.classifier.bias.shape == (3,)


@pytest.mark.parametrize("n_way", [2, 5])
def test_another_number_of_ways_than_was_learned_is_refused(backbone: Backbone, batch: EpisodeBatch, n_way: int) -> None:
    message = f"maml learned a {n_way}-way classifier, the episodes have 3 ways; use --n-way {n_way}"
    with pytest.raises(EpisodeError, match=message):
        MAML(backbone, n_way=n_way).fit(batch.support, batch.support_labels)
