from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.similarity import STRUCTURES
from fewshot_nsl.strategies import FeatureLearner, RetrainedClassifier, StaticFinetuned, Strategy

Predict = Callable[[Strategy, Tensor, Tensor, Tensor], Tensor]


def test_without_steps_it_is_the_retrained_classifier(backbone: Backbone, batch: EpisodeBatch, predict: Predict) -> None:
    sets = batch.support, batch.support_labels, batch.query
    expected = predict(RetrainedClassifier(backbone, penalty=0.02), *sets)
    torch.testing.assert_close(predict(StaticFinetuned(backbone, steps=0, penalty=0.02), *sets), expected)


def test_with_the_similarity_held_the_classifier_is_at_its_best_already(backbone: Backbone, batch: EpisodeBatch, predict: Predict) -> None:
    sets = batch.support, batch.support_labels, batch.query
    expected = predict(RetrainedClassifier(backbone, penalty=0.1), *sets)
    held = predict(StaticFinetuned(backbone, steps=20, lr=0.0, lr_classifier=1.0, penalty=0.1), *sets)
    torch.testing.assert_close(held, expected, rtol=1e-3, atol=1e-4)
    moved = predict(StaticFinetuned(backbone, steps=20, lr=0.1, lr_classifier=1.0, penalty=0.1), *sets)
    assert (moved - expected).abs().max() > 0.01


@pytest.mark.parametrize("structure", STRUCTURES)
def test_each_step_lowers_the_loss_on_the_support(backbone: Backbone, batch: EpisodeBatch, structure: str) -> None:
    def loss(steps: int) -> float:
        strategy = StaticFinetuned(backbone, structure=structure, steps=steps, lr=0.02)
        logits = strategy.fit(batch.support, batch.support_labels)(batch.support)
        return functional.cross_entropy(logits.flatten(0, 1), batch.support_labels.flatten()).item()

    losses = [loss(steps) for steps in (0, 1, 2, 4, 8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.99 * losses[0]


def test_the_classifier_can_be_asked_again(backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = StaticFinetuned(backbone, steps=3)
    first = strategy.fit(batch.support, batch.support_labels)
    logits = first(batch.query)
    strategy.fit(batch.query, batch.query_labels)(batch.query)
    assert torch.equal(first(batch.query), logits)


def test_it_needs_images(backbone: Backbone) -> None:
    assert not isinstance(StaticFinetuned(backbone), FeatureLearner)
