import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.errors import TrainingError
from fewshot_nsl.strategies.logistic import fit_logistic_regression


@pytest.fixture
def problem() -> tuple[Tensor, Tensor]:
    """Two tasks, 4 ways, 12 examples of 5 features, classes of unequal size."""
    random = torch.Generator().manual_seed(0)
    labels = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3], [3, 2, 2, 1, 1, 1, 0, 0, 0, 0, 0, 0]])
    return torch.randn(2, 12, 5, generator=random, dtype=torch.float64), labels


def _objective(weights: np.ndarray, features: np.ndarray, labels: np.ndarray, penalty: float) -> float:
    logits = features @ weights.reshape(4, -1).T
    entropy = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return float(entropy.mean() + penalty / 2 * np.square(weights).sum())


@pytest.mark.parametrize("penalty", [1.0, 0.1, 0.001])
def test_finds_the_minimum(problem: tuple[Tensor, Tensor], penalty: float) -> None:
    features, labels = problem
    weights = fit_logistic_regression(features, labels, penalty=penalty, tolerance=1e-9)
    assert weights.shape == (2, 4, 5)
    for task in range(2):
        arguments = features[task].numpy(), labels[task].numpy(), penalty
        found = minimize(_objective, np.zeros(20), arguments, method="BFGS", options={"gtol": 1e-8, "xrtol": 1e-12})
        assert _objective(weights[task].numpy().ravel(), *arguments) <= found.fun + 1e-12
        np.testing.assert_allclose(weights[task].numpy().ravel(), found.x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("penalty", [1.0, 0.01])
@pytest.mark.parametrize("features", [5, 40])
@pytest.mark.parametrize("way", [3, 5])
def test_is_scikit_learns_answer(way: int, features: int, penalty: float) -> None:
    images, labels = torch.randn(2, 20, features, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.arange(20) % way
    weights = fit_logistic_regression(images, labels.expand(2, 20), penalty=penalty, tolerance=1e-8)
    for found, task in zip(weights, images, strict=True):
        theirs = LogisticRegression(C=1 / (20 * penalty), fit_intercept=False, tol=1e-9, max_iter=10_000).fit(task.numpy(), labels.numpy())
        np.testing.assert_allclose(found.numpy(), theirs.coef_, rtol=1e-4, atol=1e-6)


def test_of_two_ways_scikit_learn_has_the_difference() -> None:
    images, labels = torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.arange(20)[None] % 2
    first, second = fit_logistic_regression(images, labels, penalty=0.1, tolerance=1e-8)[0]
    theirs = LogisticRegression(C=2 / (20 * 0.1), fit_intercept=False, tol=1e-9, max_iter=10_000).fit(images[0].numpy(), labels[0].numpy())
    np.testing.assert_allclose((second - first).numpy(), theirs.coef_[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5, 1e-8])
def test_the_gradient_at_the_answer_is_within_the_tolerance(problem: tuple[Tensor, Tensor], tolerance: float) -> None:
    features, labels = problem

    def gradient(weights: Tensor) -> Tensor:
        weights = weights.requires_grad_()
        entropy = torch.stack([functional.cross_entropy(features[t] @ weights[t].T, labels[t]) for t in range(2)])
        return torch.autograd.grad((entropy + 0.05 * weights.square().sum((1, 2))).sum(), weights)[0].flatten(1).norm(dim=1)

    answer = fit_logistic_regression(features, labels, penalty=0.1, tolerance=tolerance)
    assert (gradient(answer) <= tolerance * gradient(torch.zeros(2, 4, 5, dtype=torch.float64)) * (1 + 1e-6)).all()


def test_a_larger_penalty_gives_smaller_weights(problem: tuple[Tensor, Tensor]) -> None:
    norms = [fit_logistic_regression(*problem, penalty=penalty).norm().item() for penalty in (0.001, 0.01, 0.1, 1.0, 1000.0)]
    assert norms == sorted(norms, reverse=True)
    assert norms[0] > 10 * norms[3]
    assert norms[-1] < 1e-2


def test_features_that_do_not_differ_leave_all_weights_at_nothing() -> None:
    # As of a network that has died, or of images of one colour.
    features = torch.rand(4, generator=torch.Generator().manual_seed(0)).expand(2, 25, 4)
    weights = fit_logistic_regression(features, torch.arange(25).expand(2, 25) % 5, penalty=0.01)
    torch.testing.assert_close(weights, torch.zeros(2, 5, 4), rtol=0.0, atol=1e-4)


def test_labels_beyond_the_first_task_count(problem: tuple[Tensor, Tensor]) -> None:
    features, labels = problem
    weights = fit_logistic_regression(features, labels, penalty=0.01, tolerance=1e-8)
    swapped = fit_logistic_regression(features.flip(0), labels.flip(0), penalty=0.01, tolerance=1e-8)
    torch.testing.assert_close(swapped.flip(0), weights, rtol=1e-5, atol=1e-6)


def test_a_tolerance_below_the_precision_is_refused(problem: tuple[Tensor, Tensor]) -> None:
    message = r"logistic regression did not reach tolerance 1e-12 in 10000 iterations; raise it, or the penalty 0\.01"
    with pytest.raises(TrainingError, match=message):
        fit_logistic_regression(problem[0].float(), problem[1], penalty=0.01, tolerance=1e-12)
