from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.strategies import DiscriminativeKShot, FeatureStrategy, LearnsClassifier, RetrainedClassifier
from fewshot_nsl.strategies.logistic import fit_logistic_regression

CLASSES, WAY, D = 6, 3, 5


def _classifier(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Rows around a mean that is far from 0."""
    random = torch.Generator().manual_seed(0)
    rows = 3.0 + scale * torch.randn(CLASSES, D + 1, generator=random, dtype=torch.float64)
    return rows[:, :D], rows[:, D]


def _task() -> tuple[Tensor, Tensor, Tensor]:
    """Supports of two tasks with a 1 at the end, of unequal classes, their labels, and queries."""
    random = torch.Generator().manual_seed(1)
    support, query = (torch.randn(2, n, D, generator=random, dtype=torch.float64) for n in (8, 4))
    labels = torch.tensor([[0, 1, 2, 2, 1, 0, 0, 0], [2, 2, 0, 0, 1, 1, 1, 1]])
    return functional.pad(support, (0, 1), value=1.0), labels, functional.pad(query, (0, 1), value=1.0)


def _most_probable(support: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Weights `[WAY, D + 1]` that maximise log likelihood plus log prior, its mean and all, by LBFGS."""
    rows = torch.cat([weight, bias[:, None]], dim=1)
    mean, variance = rows.mean(0), rows.var(0, correction=0).mean()
    weights = mean.repeat(WAY, 1).requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-12, tolerance_change=0.0, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        likelihood = sum(functional.log_softmax(weights @ image, 0)[label] for image, label in zip(support, labels, strict=True))
        prior = torch.distributions.Normal(mean, variance.sqrt()).log_prob(weights).sum()
        loss = -(likelihood + prior)
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_answers_with_the_most_probable_weights(backbone: Backbone, monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    precise = partial(fit_logistic_regression, tolerance=1e-9)
    monkeypatch.setattr("fewshot_nsl.strategies.k_shot.fit_logistic_regression", precise)
    strategy = DiscriminativeKShot(backbone)
    strategy.learn_classifier(*_classifier(scale))
    support, labels, query = _task()
    found = strategy.fit(support, labels)(query).log_softmax(-1)
    for task in range(2):
        expected = (query[task] @ _most_probable(support[task], labels[task], *_classifier(scale)).T).log_softmax(-1)
        torch.testing.assert_close(found[task], expected, rtol=1e-6, atol=1e-6)


def test_the_priors_mean_means_nothing_and_its_spread_does(backbone: Backbone) -> None:
    support, labels, query = _task()
    strategy, logits = DiscriminativeKShot(backbone), {}
    weight, bias = _classifier()
    for name, rows in {"given": (weight, bias), "moved": (weight + 5.0, bias - 2.0), "wider": (3 * weight, 3 * bias)}.items():
        strategy.learn_classifier(*rows)
        logits[name] = strategy.fit(support, labels)(query)
    torch.testing.assert_close(logits["moved"], logits["given"], rtol=1e-6, atol=1e-6)
    assert logits["wider"].norm() > 1.2 * logits["given"].norm()


def test_features_are_the_backbones_with_a_one_for_the_bias(backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = DiscriminativeKShot(backbone.train())
    assert isinstance(strategy, FeatureStrategy)
    features = strategy.encode(batch.support[0])
    assert not features.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(features, functional.pad(backbone.eval()(batch.support[0]), (0, 1), value=1.0))


def test_it_asks_for_the_classifier_and_others_do_not(backbone: Backbone) -> None:
    assert isinstance(DiscriminativeKShot(backbone), LearnsClassifier)
    assert not isinstance(RetrainedClassifier(backbone), LearnsClassifier)


def test_without_a_classifier_nothing_is_fitted(backbone: Backbone) -> None:
    support, labels, _ = _task()
    with pytest.raises(
        CheckpointError, match=r"^k-shot takes its prior from the base classes' classifier, .*; call learn_classifier first$"
    ):
        DiscriminativeKShot(backbone).fit(support, labels)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_classifier_whose_classes_do_not_differ_is_refused(backbone: Backbone, classes: int) -> None:
    with pytest.raises(CheckpointError, match=f"^k-shot fits its prior to how .* differ from class to class, got {classes} alike; give"):
        DiscriminativeKShot(backbone).learn_classifier(torch.ones(classes, D), torch.zeros(classes))
