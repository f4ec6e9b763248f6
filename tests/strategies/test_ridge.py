import numpy as np
import pytest
import torch

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.strategies import RidgeClassifier
from fewshot_nsl.strategies.ridge import fit_ridge_regression


@pytest.mark.parametrize("d", [4, 30])
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_logits_are_those_of_the_normal_equations(backbone: Backbone, d: int, penalty: float) -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([rng.permutation(np.repeat(range(3), (5, 1, 2))) for _ in range(2)])
    support, query = rng.normal(size=(2, 8, d)), rng.normal(size=(2, 5, d))
    strategy = RidgeClassifier(backbone, penalty=penalty)
    logits = strategy.fit(torch.from_numpy(support), torch.from_numpy(labels))(torch.from_numpy(query))
    for task in range(2):
        x, targets = support[task], np.eye(3)[labels[task]]
        weights = np.linalg.inv(x.T @ x + penalty * np.eye(d)) @ x.T @ targets  # a row a feature: the other way round
        np.testing.assert_allclose(logits[task].numpy(), query[task] @ weights, rtol=1e-8, atol=1e-10)


def test_the_weights_are_the_minimum_of_the_penalised_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(2, 8, 5, dtype=torch.float64, generator=generator), torch.arange(8).remainder(3).repeat(2, 1)
    targets = torch.stack([torch.eye(3, dtype=torch.float64)[each] for each in labels])
    weights = fit_ridge_regression(features, labels, penalty=0.3).requires_grad_()
    squares = (features @ weights.mT - targets).square().sum() + 0.3 * weights.square().sum()
    (gradient,) = torch.autograd.grad(squares, weights)
    assert gradient.abs().max() < 1e-10


def test_it_can_be_differentiated() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 4, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.tensor([[0, 1, 1, 0]])
    assert torch.autograd.gradcheck(lambda x: fit_ridge_regression(x, labels, penalty=0.5), features)
