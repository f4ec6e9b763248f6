from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import EpisodeError
from fewshot_nsl.inner_loop import choose_engine
from fewshot_nsl.kernels import compiler
from fewshot_nsl.strategies import MetaClassifier, MetaStatic

LR = 0.7
ENGINES = pytest.mark.parametrize(
    "engine", ["higher", "plain", pytest.param("fast", marks=pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"))]
)


def _strategy(backbone: Backbone, **settings: Any) -> MetaClassifier:
    """Away from its start, where the ways are alike."""
    torch.manual_seed(4)
    strategy = MetaClassifier(backbone, n_way=3, lr=LR, **settings).double()
    torch.nn.init.normal_(strategy.classifier)
    return strategy


def _by_hand(strategy: MetaClassifier, batch: EpisodeBatch, task: int, steps: int, *, first_order: bool = False) -> tuple[Tensor, Tensor]:
    """Logits and loss of one task's queries after plain gradient steps, from features of the backbone as it was given."""
    support, query = (strategy.backbone(images[task]).detach() for images in (batch.support, batch.query))
    support, query = support / support.norm(dim=1, keepdim=True), query / query.norm(dim=1, keepdim=True)
    weights: Tensor = strategy.classifier
    for _ in range(steps):
        loss = functional.cross_entropy(support @ weights.T, batch.support_labels[task])
        (gradient,) = torch.autograd.grad(loss, weights, create_graph=not first_order)
        weights = weights - LR * gradient
    logits = query @ weights.T
    return logits, functional.cross_entropy(logits, batch.query_labels[task])


@ENGINES
@pytest.mark.parametrize("first_order", [False, True])
def test_loss_and_meta_gradient_are_plain_autograds(backbone: Backbone, batch: EpisodeBatch, engine: str, *, first_order: bool) -> None:
    strategy = _strategy(backbone, steps=3, first_order=first_order, engine=choose_engine(engine))
    losses = strategy.loss(batch)
    expected = torch.stack([_by_hand(strategy, batch, task, 3, first_order=first_order)[1] for task in range(2)])
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-9)
    (gradient,), (wanted,) = (torch.autograd.grad(each.mean(), [strategy.classifier]) for each in (losses, expected))
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-10)


@ENGINES
def test_fitting_takes_the_steps_of_a_test(backbone: Backbone, batch: EpisodeBatch, engine: str) -> None:
    strategy = _strategy(backbone, steps=1, test_steps=4, engine=choose_engine(engine))
    logits = strategy.fit(batch.support, batch.support_labels)(batch.query)
    for task in range(2):
        torch.testing.assert_close(logits[task], _by_hand(strategy, batch, task, 4)[0].detach(), rtol=1e-9, atol=1e-9)


def test_it_is_meta_static_with_the_similarity_held(backbone: Backbone, batch: EpisodeBatch) -> None:
    held = MetaStatic(backbone, n_way=3, lr=0.0, lr_classifier=LR).double()
    strategy = _strategy(backbone)
    held.classifier.data.copy_(strategy.classifier)
    torch.testing.assert_close(strategy.loss(batch), held.loss(batch), rtol=1e-9, atol=1e-9)


def test_only_the_classifier_asks_for_a_gradient_and_moves(backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = _strategy(backbone).train()
    assert [name for name, parameter in strategy.named_parameters() if parameter.requires_grad] == ["classifier"]
    before = {name: value.clone() for name, value in strategy.state_dict().items()}
    optimizer = torch.optim.SGD([strategy.classifier], 1.0)
    strategy.loss(batch).mean().backward()
    optimizer.step()
    assert [name for name, value in strategy.state_dict().items() if not torch.equal(value, before[name])] == ["classifier"]


@pytest.mark.parametrize("steps", [1, 6])
def test_an_image_is_encoded_once_however_many_steps_are_taken(backbone: Backbone, batch: EpisodeBatch, steps: int) -> None:
    strategy = _strategy(backbone, steps=steps, test_steps=steps, engine=choose_engine("higher"))
    encoded: list[int] = []
    strategy.backbone.register_forward_hook(lambda _module, _images, features: encoded.append(len(features)))
    strategy.loss(batch)
    assert encoded == [12, 12, 12, 12]  # supports and queries of two tasks
    strategy.fit(batch.support, batch.support_labels)(batch.query)
    assert encoded == 2 * [12, 12, 12, 12]


def test_the_given_backbone_is_left_as_it_is(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.train().state_dict().items()}
    strategy = _strategy(backbone)
    assert backbone.training
    for each in (strategy, strategy.train()):
        assert not any(module.training for module in each.backbone.modules())
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_another_number_of_ways_than_was_learned_is_refused(backbone: Backbone, batch: EpisodeBatch) -> None:
    message = "meta-classifier learned a 5-way classifier, the episodes have 3 ways; use --n-way 5"
    with pytest.raises(EpisodeError, match=message):
        MetaClassifier(backbone).fit(batch.support, batch.support_labels)
