"""ProtoNet, MatchingNet, R2-D2 and RelationNet: against formulas by loops, and what they learn."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.strategies import R2D2, MatchingNet, MetricLearner, ProtoNet, RelationNet

BUILD: dict[str, Callable[[Backbone], MetricLearner]] = {
    "protonet": ProtoNet,
    "matching-net": MatchingNet,
    "full context": lambda backbone: MatchingNet(backbone, full_context=True, reads=2),
    "r2d2": R2D2,
    "relation-net": RelationNet,
}
EVERY = pytest.mark.parametrize("name", BUILD)
WAY, SHOT, D = 3, 2, 4


class Flat(Backbone):
    """Features are the pixels, scaled; BN over them, so that statistics can be seen to move."""

    def __init__(self, features: int = D) -> None:
        super().__init__()
        self.features = features
        self.map_shape = features // 4, 2, 2
        self.norm = nn.BatchNorm1d(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(images.flatten(1).to(self.norm.weight.dtype) / 100)


def _learner(name: str) -> MetricLearner:
    torch.manual_seed(0)
    return BUILD[name](Flat()).double()


def _features() -> tuple[Tensor, Tensor, Tensor]:
    """Supports of two tasks, their labels, queries."""
    random = torch.Generator().manual_seed(1)
    support, query = (torch.randn(2, n, D, generator=random, dtype=torch.float64) for n in (WAY * SHOT, 5))
    return support, torch.tensor([[0, 1, 2, 2, 1, 0], [2, 2, 0, 0, 1, 1]]), query


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def _by_hand(name: str, support: Tensor, labels: Tensor, query: Tensor) -> list[float]:
    """Logits of one query of one task."""
    if name == "protonet":
        means = [support[labels == way].mean(0) for way in range(WAY)]
        return [-sum((float(q) - float(m)) ** 2 for q, m in zip(query, mean, strict=True)) for mean in means]
    if name == "matching-net":
        attention = [math.exp(10 * _cosine(query, each)) for each in support]
        return [math.log(sum(a for a, label in zip(attention, labels, strict=True) if label == way) / sum(attention)) for way in range(WAY)]
    # The primal problem, where the strategy solves the dual one.
    unit = torch.stack([each / each.norm() for each in support])
    targets = torch.tensor([[float(label == way) for way in range(WAY)] for label in labels], dtype=torch.float64)
    weights = torch.linalg.inv(unit.T @ unit + torch.eye(D, dtype=torch.float64)) @ unit.T @ targets
    return (10.0 * (query / query.norm()) @ weights).tolist()


@pytest.mark.parametrize("name", ["protonet", "matching-net", "r2d2"])
def test_logits_are_those_of_the_formula(name: str) -> None:
    support, labels, query = _features()
    logits = _learner(name).fit(support, labels)(query)
    for task in range(2):
        for i in range(5):
            expected = torch.tensor(_by_hand(name, support[task], labels[task], query[task, i]), dtype=torch.float64)
            torch.testing.assert_close(logits[task, i], expected, rtol=1e-6, atol=1e-6)


def test_full_context_makes_probabilities_that_depend_on_all_supports() -> None:
    support, labels, query = _features()
    learner = _learner("full context")
    logits = learner.fit(support, labels)(query)
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 5, dtype=torch.float64))
    assert not torch.allclose(logits, _learner("matching-net").fit(support, labels)(query), atol=1e-3)
    order = torch.randperm(WAY * SHOT, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(learner.fit(support[:, order], labels[:, order])(query), logits)


def _batch(random: torch.Generator) -> EpisodeBatch:
    """Two tasks; the classes are told apart by which of the pixels is bright."""

    def draw(shots: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(WAY).repeat(2, shots)
        images = torch.randint(0, 60, (2, WAY * shots, D), generator=random)
        images.scatter_add_(2, labels[..., None], torch.full_like(images[..., :1], 150))
        return images.to(torch.uint8).view(2, -1, 1, 2, 2), labels

    (support, support_labels), (query, query_labels) = draw(SHOT), draw(4)
    nowhere = torch.full((2, 1), -1)
    return EpisodeBatch(
        support=support,
        support_labels=support_labels,
        query=query,
        query_labels=query_labels,
        support_rows=nowhere.expand(2, WAY * SHOT),
        query_rows=nowhere.expand(2, WAY * 4),
        classes=nowhere.expand(2, WAY),
    )


@EVERY
def test_learns_a_separable_toy(name: str) -> None:
    learner, random = _learner(name), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(learner.parameters(), 0.03)
    losses = []
    for _ in range(60):
        loss = learner.loss(_batch(random)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    batch = _batch(random)
    support, query = (learner.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]) for images in (batch.support, batch.query))
    predicted = learner.fit(support, batch.support_labels)(query).argmax(-1)
    assert (predicted == batch.query_labels).double().mean() > 0.95


@EVERY
def test_the_gradient_of_the_loss_is_that_of_finite_differences(name: str) -> None:
    learner, batch = _learner(name), _batch(torch.Generator().manual_seed(0))
    parameters = list(learner.parameters())
    gradients = torch.autograd.grad(learner.loss(batch).sum(), parameters)
    random = torch.Generator().manual_seed(2)
    directions = [torch.randn(value.shape, generator=random, dtype=value.dtype) for value in parameters]
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=sign * 1e-6)
            values.append(learner.loss(batch).sum())
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(direction, alpha=sign * 1e-6)
    expected = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
    torch.testing.assert_close((values[0] - values[1]) / 2e-6, expected, rtol=1e-5, atol=1e-7)


@EVERY
def test_statistics_follow_in_training_and_stay_at_test(name: str) -> None:
    learner, batch = _learner(name), _batch(torch.Generator().manual_seed(0))
    norm = learner.backbone.get_submodule("norm")
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    learner.loss(batch)
    moved = norm.running_mean.clone()
    assert moved.any()
    learner.fit(learner.encode(batch.support.flatten(0, 1)).unflatten(0, (2, -1)), batch.support_labels)
    assert torch.equal(norm.running_mean, moved)
