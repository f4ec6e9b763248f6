"""LEO: against the steps written out by loops, and what its networks make of numbers."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.strategies import LEO
from fewshot_nsl.strategies.leo_network import LatentCodes, draw_noise

WAY, SHOT, D, LATENTS = 3, 2, 4, 2


class Flat(Backbone):
    """Features are the pixels."""

    features = D

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.01))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).to(self.scale.dtype) * self.scale


def _leo(**settings: float) -> LEO:
    torch.manual_seed(0)
    return LEO(Flat(), latents=LATENTS, **settings).double()  # type: ignore[arg-type]


def _batch(random: torch.Generator, tasks: int = 2, queries: int = 4) -> EpisodeBatch:
    """The classes are told apart by which of the pixels is bright."""

    def draw(shots: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(WAY).repeat(tasks, shots)
        images = torch.randint(0, 60, (tasks, WAY * shots, D), generator=random)
        images.scatter_add_(2, labels[..., None], torch.full_like(images[..., :1], 150))
        return images.to(torch.uint8).view(tasks, -1, 1, 2, 2), labels

    (support, support_labels), (query, query_labels) = draw(SHOT), draw(queries)
    return EpisodeBatch(
        support=support,
        support_labels=support_labels,
        query=query,
        query_labels=query_labels,
        support_rows=torch.randint(1000, support_labels.shape, generator=random),
        query_rows=torch.randint(1000, query_labels.shape, generator=random),
        classes=torch.arange(WAY).expand(tasks, WAY),
    )


@pytest.fixture
def batch() -> EpisodeBatch:
    return _batch(torch.Generator().manual_seed(0))


def _features(leo: LEO, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
    support, query = (leo.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]) for images in (batch.support, batch.query))
    return support, query


def _cross_entropy(support: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Of one task, written out."""
    total = torch.zeros((), dtype=support.dtype)
    for feature, label in zip(support, labels, strict=True):
        scores = [feature @ weights[way] for way in range(WAY)]
        total = total - scores[int(label)] + torch.stack(scores).exp().sum().log()
    return total / len(labels)


def test_codes_and_weights_are_those_of_the_steps_by_loops(batch: EpisodeBatch) -> None:
    leo = _leo(steps=2, finetune_steps=3, finetune_lr=0.5)
    support, query = _features(leo, batch)
    logits = leo.fit(support, batch.support_labels)(query)
    for task in range(2):
        labels = batch.support_labels[task]
        hidden = [leo.codes.encoder.weight @ feature for feature in support[task]]
        codes = []
        for way in range(WAY):
            own = [first for first, label in zip(hidden, labels, strict=True) if label == way]
            related = [leo.codes.relation(torch.cat([first, second])) for first in own for second in hidden]
            codes.append(torch.stack(related).mean(0)[:LATENTS])
        code = torch.stack(codes).detach().requires_grad_()
        for _ in range(2):
            loss = _cross_entropy(support[task], labels, (code @ leo.codes.decoder.weight.mT)[:, :D])
            code = (code - leo.lr * torch.autograd.grad(loss, code)[0]).detach().requires_grad_()
        weights = (code @ leo.codes.decoder.weight.mT)[:, :D].detach().requires_grad_()
        for _ in range(3):
            loss = _cross_entropy(support[task], labels, weights)
            weights = (weights - 0.5 * torch.autograd.grad(loss, weights)[0]).detach().requires_grad_()
        torch.testing.assert_close(logits[task], (query[task] @ weights.mT).detach())


def test_the_gradient_of_the_loss_is_that_of_finite_differences(batch: EpisodeBatch) -> None:
    leo = _leo(steps=2, finetune_steps=2, kl_weight=0.1, encoder_penalty=0.0, l2=0.01, orthogonality=0.1)
    parameters = [parameter for parameter in leo.parameters() if parameter.requires_grad]
    assert leo.lr in set(parameters)
    assert leo.finetune_lr in set(parameters)
    gradients = torch.autograd.grad(leo.loss(batch).sum(), parameters)
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        directions = [torch.randn(value.shape, generator=random, dtype=value.dtype) for value in parameters]
        values = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.add_(direction, alpha=step)
            values.append(leo.loss(batch).sum().detach())
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=1e-6)
        expected = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
        torch.testing.assert_close((values[0] - values[1]) / 2e-6, expected, rtol=1e-5, atol=1e-7)


def test_penalties_are_those_of_the_equation(batch: EpisodeBatch) -> None:
    bare = _leo(kl_weight=0.0, encoder_penalty=0.0, l2=0.0, orthogonality=0.0)
    support, _ = _features(bare, batch)
    plain = bare.loss(batch)
    squares = torch.cat([value.flatten() for value in bare.codes.parameters()]).square().sum() / 2
    weighed = _leo(kl_weight=0.0, encoder_penalty=0.0, l2=3.0, orthogonality=0.0).loss(batch)
    torch.testing.assert_close(weighed - plain, (3 * squares).expand(2))
    whole = _leo(kl_weight=1.0, encoder_penalty=0.0, l2=0.0, orthogonality=0.0).loss(batch)
    rows = torch.cat([batch.support_rows, batch.query_rows], dim=1)
    noise = draw_noise(rows, WAY * SHOT, WAY, D, LATENTS, dropout=0.3, like=support)
    torch.testing.assert_close(whole - plain, bare.codes.encode(support, batch.support_labels, noise)[1])
    adapted = bare.adapt(support, batch.support_labels, noise)
    moved = _leo(kl_weight=0.0, encoder_penalty=2.0, l2=0.0, orthogonality=0.0).loss(batch) - plain
    torch.testing.assert_close(moved, 2 * (adapted.ended - adapted.begun).square().mean((1, 2)))


def test_divergence_is_that_of_normal_distributions(batch: EpisodeBatch) -> None:
    leo = _leo()
    support, _ = _features(leo, batch)
    captured: list[Tensor] = []
    leo.codes.relation.register_forward_hook(lambda _module, _inputs, output: captured.append(output))
    _, divergence = leo.codes.encode(support, batch.support_labels, None)
    for task in range(2):
        found = []
        for way in range(WAY):
            numbers = captured[0][task, batch.support_labels[task] == way].mean((0, 1))
            own = torch.distributions.Normal(numbers[:LATENTS], numbers[LATENTS:].exp())
            found.append(torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)))
        torch.testing.assert_close(divergence[task], torch.stack(found).mean())


def test_decoded_weights_have_their_mean_and_about_the_usual_spread() -> None:
    torch.manual_seed(0)
    codes = LatentCodes(features=400, latents=8).double()
    way = torch.zeros(1, 5, 8, dtype=torch.float64)
    rows = torch.arange(30)[None]
    noise = draw_noise(rows, 25, 5, 400, 8, dropout=0.0, like=way)
    drawn = codes.decode(way, noise)
    assert torch.equal(codes.decode(way, None), torch.zeros_like(drawn))
    assert drawn.std().item() == pytest.approx(math.sqrt(2 / 405), rel=0.1)
    assert abs(drawn.mean().item()) < 0.01
    assert torch.equal(noise.inputs, torch.ones_like(noise.inputs))


def test_correlations_are_of_what_the_numbers_of_a_code_are_decoded_to() -> None:
    codes = LatentCodes(features=3, latents=2)
    with torch.no_grad():
        codes.decoder.weight.zero_()
        codes.decoder.weight[0, 0] = codes.decoder.weight[1, 1] = 5.0
    assert codes.correlation().item() == 0
    with torch.no_grad():
        codes.decoder.weight[1, 0] = 5.0  # 45 degrees between the two
    assert codes.correlation().item() == pytest.approx(2 * 0.5 / 4)


def test_noise_belongs_to_the_episode() -> None:
    rows = torch.tensor([[1, 2, 3], [4, 5, 6]])
    like = torch.zeros(1, dtype=torch.float64)

    def draw(rows: Tensor) -> Iterator[Tensor]:
        noise = draw_noise(rows, 6, WAY, D, LATENTS, dropout=0.5, like=like)
        return iter((noise.inputs, noise.codes, noise.weights))

    for together, turned, alone in zip(draw(rows), draw(rows.flip(0)), draw(rows[1:]), strict=True):
        assert torch.equal(together, turned.flip(0))
        assert torch.equal(together[1:], alone)
        assert not torch.equal(together[0], together[1])
    assert set(next(draw(rows)).unique().tolist()) == {0.0, 2.0}


def test_a_loss_is_its_tasks_own(batch: EpisodeBatch) -> None:
    leo = _leo()
    torch.testing.assert_close(torch.cat([leo.loss(part) for part in batch.split(1)]), leo.loss(batch))


def test_learns_a_separable_toy() -> None:
    leo, random = _leo(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([parameter for parameter in leo.parameters() if parameter.requires_grad], 0.01)
    losses = []
    for _ in range(60):
        loss = leo.loss(_batch(random)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    batch = _batch(random, tasks=10)
    support, query = _features(leo, batch)
    predicted = leo.fit(support, batch.support_labels)(query).argmax(-1)
    assert (predicted == batch.query_labels).double().mean() > 0.97


def test_nothing_of_the_backbone_moves(batch: EpisodeBatch) -> None:
    leo = _leo().train()
    leo.loss(batch).sum().backward()
    assert not leo.backbone.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in leo.backbone.parameters())
    assert all(parameter.grad is not None for parameter in leo.codes.parameters())


def test_features_have_length_one(batch: EpisodeBatch) -> None:
    leo = _leo()
    images = batch.support[0]
    torch.testing.assert_close(leo.encode(images), functional.normalize(leo.backbone(images), dim=-1).detach())
