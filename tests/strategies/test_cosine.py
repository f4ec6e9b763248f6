from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.strategies import CosineClassifier


@pytest.fixture
def episodes() -> tuple[Tensor, Tensor, Tensor]:
    """Supports and queries of length 1 of two 3-way tasks of unequal shots, with the supports' labels in the middle."""
    generator = torch.Generator().manual_seed(0)
    support, query = (functional.normalize(torch.rand(2, n, 7, dtype=torch.float64, generator=generator), dim=-1) for n in (8, 5))
    return support, torch.tensor([[0, 2, 1, 0, 0, 1, 2, 0], [2, 1, 1, 1, 0, 2, 2, 2]]), query


def _cosines(weights: Tensor, images: Tensor) -> Tensor:
    """One by one."""
    return torch.stack([torch.stack([(x @ w) / (x.norm() * w.norm()) for w in weights]) for x in images])


def _by_hand(support: Tensor, labels: Tensor, *, scale: float, steps: int, lr: float) -> Tensor:
    """Weights of one task, by autograd."""
    means = torch.stack([support[labels == way].mean(0) for way in range(3)])
    weights = means / means.norm(dim=1, keepdim=True)
    for _ in range(steps):
        weights = weights.detach().requires_grad_()
        loss = functional.cross_entropy(scale * _cosines(weights, support), labels)
        (gradient,) = torch.autograd.grad(loss, weights)
        weights = weights - lr * gradient
    return weights.detach()


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": 1}, {"steps": 7}, {"scale": 10.0, "steps": 20, "lr": 0.1}, {}], ids=str)
def test_logits_are_those_of_autograds_steps(backbone: Backbone, episodes: tuple[Tensor, Tensor, Tensor], settings: dict[str, Any]) -> None:
    support, labels, query = episodes
    full = {"scale": 2.0, "steps": 100, "lr": 1.0} | settings
    logits = CosineClassifier(backbone, **settings).fit(support, labels)(query)
    for task in range(2):
        expected = full["scale"] * _cosines(_by_hand(support[task], labels[task], **full), query[task])
        torch.testing.assert_close(logits[task], expected, rtol=1e-9, atol=1e-10)


def test_more_steps_lower_the_loss_on_the_support(backbone: Backbone, episodes: tuple[Tensor, Tensor, Tensor]) -> None:
    support, labels, _ = episodes

    def loss(steps: int) -> float:
        logits = CosineClassifier(backbone, steps=steps).fit(support, labels)(support)
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()

    losses = [loss(steps) for steps in (0, 1, 3, 10, 100)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
