import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import CNN4, Backbone
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import EpisodeError
from fewshot_nsl.similarity import STRUCTURES, similarity_parameters
from fewshot_nsl.strategies import MetaStatic

MOVING = {*(f"backbone.blocks.{i}.0.M" for i in range(4)), "classifier"}


RATES: dict[str, Any] = {"lr": 0.1, "lr_classifier": 0.7}
"""Of the inner loop."""


def _strategy(backbone: Backbone, **settings: Any) -> MetaStatic:
    """Away from its start, where half of the derivatives are 0."""
    torch.manual_seed(4)
    strategy = MetaStatic(backbone, n_way=3, **RATES, **settings).double()
    with torch.no_grad():
        for parameter in strategy.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return strategy


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_similarity_and_classifier_are_what_the_outer_loop_moves(backbone: Backbone, structure: str) -> None:
    strategy = MetaStatic(backbone, n_way=3, structure=structure)
    assert {name for name, parameter in strategy.named_parameters() if parameter.requires_grad} == MOVING


def test_an_outer_step_moves_these_and_nothing_else(backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = _strategy(backbone)
    before = _state(strategy.train())
    optimizer = torch.optim.SGD([parameter for parameter in strategy.parameters() if parameter.requires_grad], 1.0)
    strategy.loss(batch).mean().backward()
    optimizer.step()
    assert {name for name, value in strategy.state_dict().items() if not torch.equal(value, before[name])} == MOVING


def test_the_given_backbone_is_left_as_it_is(backbone: Backbone) -> None:
    before = _state(backbone)
    _strategy(backbone)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_training_mode_keeps_the_backbones_statistics(backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = MetaStatic(backbone, n_way=3).double()
    assert strategy.train() is strategy
    assert strategy.training
    assert not any(module.training for module in strategy.backbone.modules())
    before = _state(strategy)
    strategy.loss(batch)
    assert all(torch.equal(value, before[name]) for name, value in strategy.state_dict().items())


def _logits(strategy: MetaStatic, images: Tensor) -> Tensor:
    features = strategy.backbone(images)
    return features / features.norm(dim=1, keepdim=True) @ strategy.classifier.T


def _by_hand(strategy: MetaStatic, batch: EpisodeBatch, task: int, steps: int) -> tuple[Tensor, MetaStatic]:
    """Loss on one task's queries after plain gradient steps on a copy, and that copy."""
    own = copy.deepcopy(strategy)
    moving = {name: parameter for name, parameter in own.named_parameters() if parameter.requires_grad}

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(_logits(own, images[task]), labels[task])

    for _ in range(steps):
        gradients = torch.autograd.grad(loss(batch.support, batch.support_labels), list(moving.values()))
        with torch.no_grad():
            for name, gradient in zip(moving, gradients, strict=True):
                moving[name].sub_(gradient, alpha=RATES["lr_classifier" if name == "classifier" else "lr"])
    return loss(batch.query, batch.query_labels), own


@pytest.mark.parametrize("first_order", [False, True])
def test_the_loss_is_that_of_each_tasks_queries_after_its_steps(backbone: Backbone, batch: EpisodeBatch, *, first_order: bool) -> None:
    strategy = _strategy(backbone, steps=3, first_order=first_order)
    losses = strategy.loss(batch)
    assert losses.shape == (2,)
    expected = torch.stack([_by_hand(strategy, batch, task, 3)[0] for task in range(2)])
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-9)


def test_fitting_takes_the_steps_of_a_test(backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = _strategy(backbone, steps=1, test_steps=4)
    logits = strategy.fit(batch.support, batch.support_labels)(batch.query)
    for task in range(2):
        own = _by_hand(strategy, batch, task, 4)[1]
        torch.testing.assert_close(logits[task], _logits(own, batch.query[task]).detach(), rtol=1e-9, atol=1e-9)


def test_the_gradient_of_the_loss_equals_difference_quotients(tiny_store: ImageStore, batch: EpisodeBatch) -> None:
    torch.manual_seed(1)
    backbone = CNN4(16, 3, width=2, mean=tiny_store.mean, std=tiny_store.std).double()
    strategy = _strategy(backbone, steps=2)
    moving = [parameter for parameter in strategy.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(strategy.loss(batch).mean(), moving)
    first_order = _strategy(backbone, steps=2, first_order=True)
    approximate = torch.autograd.grad(first_order.loss(batch).mean(), [p for p in first_order.parameters() if p.requires_grad])
    width, gaps = 1e-6, []
    for _ in range(5):
        direction = [torch.randn_like(parameter) for parameter in moving]
        losses = []
        for sign in (1, -2, 1):
            losses.append(strategy.loss(batch).mean().item())
            with torch.no_grad():
                for parameter, along in zip(moving, direction, strict=True):
                    parameter.add_(along, alpha=sign * width)
        quotient = (losses[1] - losses[2]) / (2 * width)
        slopes = [sum((g * d).sum().item() for g, d in zip(some, direction, strict=True)) for some in (gradients, approximate)]
        assert slopes[0] == pytest.approx(quotient, rel=1e-5, abs=1e-7)
        gaps.append(abs(slopes[1] - quotient))
    assert max(gaps) > 1e-3  # what first order leaves out is there


def test_a_new_one_starts_as_the_pretrained_network(backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = MetaStatic(backbone, n_way=3).double()
    torch.testing.assert_close(strategy.backbone(batch.query[0]), backbone(batch.query[0]))
    assert len(similarity_parameters(strategy.backbone)) == 4
    assert not strategy.classifier.any()


def test_state_travels_to_another_of_the_same_settings(backbone: Backbone, tiny_store: ImageStore, batch: EpisodeBatch) -> None:
    strategy = _strategy(backbone)
    fresh = MetaStatic(CNN4(16, 3, width=6, mean=tiny_store.mean, std=tiny_store.std), n_way=3, **RATES).double()
    fresh.load_state_dict(strategy.state_dict())
    logits, expected = (each.fit(batch.support, batch.support_labels)(batch.query) for each in (fresh, strategy))
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("n_way", [2, 5])
def test_another_number_of_ways_than_was_learned_is_refused(backbone: Backbone, batch: EpisodeBatch, n_way: int) -> None:
    message = f"meta-static learned a {n_way}-way classifier, the episodes have 3 ways; use --n-way {n_way}"
    with pytest.raises(EpisodeError, match=message):
        MetaStatic(backbone, n_way=n_way).fit(batch.support, batch.support_labels)
