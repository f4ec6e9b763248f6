"""TADAM: against ProtoNet and explicit loops, and what it learns."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone, conditioned_layers
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.strategies import TADAM, CoTrains, ProtoNet

WAY, SHOT, QUERIES = 3, 2, 4


class Colours(Backbone):
    """A convolution of 3x3, BN and ReLU, and the mean over places."""

    def __init__(self, features: int = 6) -> None:
        super().__init__()
        self.features = features
        self.convolution = nn.Conv2d(WAY, features, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(features)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.convolution(images.to(self.convolution.weight.dtype) / 100)
        return self.norm(hidden).relu().mean((2, 3))


def _backbone() -> Colours:
    torch.manual_seed(0)
    backbone = Colours().double()
    assert backbone.norm.running_mean is not None
    nn.init.normal_(backbone.norm.running_mean)
    nn.init.normal_(backbone.norm.bias)
    return backbone


def _learner(factor: float = 0.7, scale: float = 1.0) -> TADAM:
    """With all post-multipliers at `factor`."""
    learner = TADAM(_backbone(), scale=scale, base_classes=WAY).double()
    nn.init.constant_(learner.embedding.gamma_0, factor)
    nn.init.constant_(learner.embedding.beta_0, factor)
    return learner


def _batch(random: torch.Generator) -> EpisodeBatch:
    """Two tasks; the classes are told apart by their colour."""

    def draw(shots: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(WAY).repeat(2, shots)
        images = torch.randint(0, 120, (2, WAY * shots, WAY, 4, 4), generator=random)
        images[torch.arange(2)[:, None], torch.arange(WAY * shots), labels] += 100
        return images.to(torch.uint8), labels

    (support, support_labels), (query, query_labels) = draw(SHOT), draw(QUERIES)
    nowhere = torch.full((2, 1), -1)
    return EpisodeBatch(
        support=support,
        support_labels=support_labels,
        query=query,
        query_labels=query_labels,
        support_rows=nowhere.expand(2, WAY * SHOT),
        query_rows=nowhere.expand(2, WAY * QUERIES),
        classes=nowhere.expand(2, WAY),
    )


@pytest.fixture
def batch() -> EpisodeBatch:
    return _batch(torch.Generator().manual_seed(0))


def _logits(learner: TADAM, batch: EpisodeBatch) -> Tensor:
    return learner.fit(batch.support, batch.support_labels)(batch.query)


def test_logits_are_those_of_the_formula(batch: EpisodeBatch) -> None:
    learner, backbone = _learner(scale=3.0), _backbone().eval()
    logits = _logits(learner, batch)

    def features(image: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        normed = backbone.norm(backbone.convolution(image[None].double() / 100))[0]
        return torch.stack([((1 + gamma[c]) * normed[c] + beta[c]).clamp(min=0).mean() for c in range(6)])

    def means(task: int, gamma: Tensor, beta: Tensor) -> list[Tensor]:
        members = [
            [image for image, label in zip(batch.support[task], batch.support_labels[task], strict=True) if label == way]
            for way in range(WAY)
        ]
        return [torch.stack([features(image, gamma, beta) for image in images]).mean(0) for images in members]

    nothing = torch.zeros(6, dtype=torch.float64)
    for task in range(2):
        representation = torch.stack(means(task, nothing, nothing)).mean(0)
        [(gamma, beta)] = learner.embedding(representation[None])
        own = means(task, gamma[0], beta[0])
        for i, image in enumerate(batch.query[task]):
            seen = features(image, gamma[0], beta[0])
            expected = [-3 * sum((a - b) ** 2 for a, b in zip(seen.tolist(), mean.tolist(), strict=True)) for mean in own]
            torch.testing.assert_close(logits[task, i], torch.tensor(expected, dtype=torch.float64))


def test_with_post_multipliers_of_nothing_it_is_protonet_times_the_scale(batch: EpisodeBatch) -> None:
    plain = ProtoNet(_backbone())
    support, query = (plain.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]) for images in (batch.support, batch.query))
    expected = plain.fit(support, batch.support_labels)(query)
    torch.testing.assert_close(_logits(_learner(0.0, scale=5.0), batch), 5 * expected)
    torch.testing.assert_close(_learner(0.0).loss(batch), plain.loss(batch))
    assert not torch.allclose(_logits(_learner(), batch), expected, rtol=0.1)


def test_a_task_is_changed_by_its_own_supports_alone(batch: EpisodeBatch) -> None:
    learner = _learner()
    together = _logits(learner, batch)
    for task in range(2):
        torch.testing.assert_close(_logits(learner, batch.split(1)[task])[0], together[task])
    other = replace(batch, support=batch.support.flip(0))
    assert not torch.allclose(_logits(learner, other), together, rtol=0.01)
    by_one = [learner.fit(batch.support, batch.support_labels)(batch.query[:, i : i + 1]) for i in range(WAY * QUERIES)]
    torch.testing.assert_close(torch.cat(by_one, dim=1), together)


def test_neither_the_order_of_supports_nor_that_of_classes_means_anything(batch: EpisodeBatch) -> None:
    learner, order, renamed = _learner(), torch.randperm(WAY * SHOT, generator=torch.Generator().manual_seed(2)), torch.tensor([2, 0, 1])
    expected = _logits(learner, batch)
    mixed = replace(batch, support=batch.support[:, order], support_labels=batch.support_labels[:, order])
    torch.testing.assert_close(_logits(learner, mixed), expected)
    torch.testing.assert_close(_logits(learner, replace(batch, support_labels=renamed[batch.support_labels]))[..., renamed], expected)


def test_learns_a_separable_toy() -> None:
    torch.manual_seed(0)
    learner, random = TADAM(Colours(), base_classes=WAY).double(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(learner.parameters(), 0.03)
    losses = []
    for _ in range(60):
        loss = learner.loss(_batch(random)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert learner.embedding.gamma_0.all()
    batch = _batch(random)
    assert (_logits(learner, batch).argmax(-1) == batch.query_labels).double().mean() > 0.95


def test_base_classes_are_learned_by_a_classifier_of_their_own() -> None:
    torch.manual_seed(0)
    learner, random = TADAM(Colours(), base_classes=WAY).double(), torch.Generator().manual_seed(0)
    assert isinstance(learner, CoTrains)
    assert (learner.base_classes, learner.base_batch) == (WAY, 64)
    optimizer = torch.optim.Adam(learner.parameters(), 0.03)
    for _ in range(60):
        batch = _batch(random)
        logits = learner.base_logits(batch.query.flatten(0, 1))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, batch.query_labels.flatten()).backward()
        optimizer.step()
    assert (logits.argmax(1) == batch.query_labels.flatten()).double().mean() > 0.95
    assert all(parameter.grad is None for parameter in [*learner.embedding.parameters(), learner.log_scale])


def test_base_classes_are_seen_through_the_unchanged_backbone(batch: EpisodeBatch) -> None:
    learner, backbone, images = _learner(), _backbone().train(), batch.query.flatten(0, 1)
    expected = learner.base_classifier(backbone(images))
    torch.testing.assert_close(learner.base_logits(images), expected)


def test_the_share_of_base_classes_falls_in_twenty_stages() -> None:
    learner = _learner()
    shares = [learner.base_share(step, 60) for step in range(60)]
    assert shares == pytest.approx([0.9 * 0.9 ** math.floor(20 * step / 60) for step in range(60)])
    assert shares[:4] == pytest.approx([0.9, 0.9, 0.9, 0.81])
    assert shares[-1] == pytest.approx(0.9**20)


def test_the_penalty_counts_once_for_every_task(batch: EpisodeBatch) -> None:
    losses = []
    for penalty in (0.0, 0.1):
        learner = _learner(0.7)
        learner.penalty = penalty
        losses.append(learner.loss(batch))
    torch.testing.assert_close(losses[1] - losses[0], torch.full((2,), 0.1 * 0.7**2, dtype=torch.float64))


def test_the_gradient_of_the_loss_is_that_of_finite_differences(batch: EpisodeBatch) -> None:
    learner = _learner()
    parameters = [value for name, value in learner.named_parameters() if not name.startswith("base_classifier.")]
    gradients = torch.autograd.grad(learner.loss(batch).sum(), parameters)
    random = torch.Generator().manual_seed(2)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=random, dtype=parameter.dtype)
        values = []
        for shift in (1e-6, -2e-6):
            with torch.no_grad():
                parameter.add_(direction, alpha=shift)
                values.append(learner.loss(batch).sum())
        with torch.no_grad():
            parameter.add_(direction, alpha=1e-6)
        torch.testing.assert_close((values[0] - values[1]) / 2e-6, (gradient * direction).sum(), rtol=1e-5, atol=1e-7)


def test_statistics_follow_in_training_and_stay_at_test(batch: EpisodeBatch) -> None:
    learner = _learner()
    [layer] = conditioned_layers(learner.backbone)
    norm = layer.norm
    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    _logits(learner, batch)
    assert torch.equal(norm.running_mean, before)
    learner.loss(batch)
    assert not torch.equal(norm.running_mean, before)
