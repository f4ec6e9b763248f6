import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import CNN4, Backbone
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.inner_loop import choose_engine
from fewshot_nsl.similarity import PREDICTORS, DynamicSimilarityConv2d, SpherePredictor, convert
from fewshot_nsl.strategies import MetaDynamic

PARTS = ("first.weight", "norm.weight", "norm.bias", "second.weight", "gain")
MOVING = {*(f"backbone.blocks.{i}.0.predictor.{part}" for i in range(4) for part in PARTS), "classifier"}
RATES: dict[str, Any] = {"lr": 0.1, "lr_classifier": 0.7}
"""Of the inner loop."""


def _strategy(backbone: Backbone, **settings: Any) -> MetaDynamic:
    """Away from its start, where half of the derivatives are 0."""
    torch.manual_seed(4)
    strategy = MetaDynamic(backbone, n_way=3, **RATES, **settings).double()
    with torch.no_grad():
        for parameter in strategy.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return strategy


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_an_outer_step_moves_predictors_and_classifier_and_nothing_else(dynamic_backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = _strategy(dynamic_backbone)
    asking = [parameter for parameter in strategy.parameters() if parameter.requires_grad]
    before = _state(strategy.train())
    assert any("predictor.norm.running_mean" in name for name in before)
    optimizer = torch.optim.SGD(asking, 1.0)
    strategy.loss(batch).mean().backward()
    optimizer.step()
    assert {name for name, value in strategy.state_dict().items() if not torch.equal(value, before[name])} == MOVING
    assert len(asking) == len(strategy.moving) == len(MOVING)
    assert set(strategy.rates) == set(strategy.moving)


def test_statistics_are_the_pretrained_ones_in_every_mode(dynamic_backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = _strategy(dynamic_backbone.train())
    for mode in (True, False):
        assert strategy.train(mode).training is mode
        assert not any(module.training for module in strategy.backbone.modules())
    before = _state(strategy)
    strategy.fit(batch.support, batch.support_labels)(batch.query)
    assert all(torch.equal(value, before[name]) for name, value in strategy.state_dict().items())


def test_the_given_backbone_is_left_as_it_is(dynamic_backbone: Backbone, batch: EpisodeBatch) -> None:
    before = _state(dynamic_backbone)
    _strategy(dynamic_backbone).loss(batch)
    assert all(torch.equal(value, before[name]) for name, value in dynamic_backbone.state_dict().items())
    assert all(parameter.requires_grad for parameter in dynamic_backbone.parameters())


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_all_of_any_predictor_moves(backbone: Backbone, predictor: str) -> None:
    network = cast(Backbone, convert(backbone, "dynamic", predictor=predictor, shape_threshold=0.5))
    expected = {name for name, _ in network.named_parameters() if ".predictor." in name} | {"classifier"}
    assert MetaDynamic(network, n_way=3).moving.keys() == expected


def test_a_gain_that_is_fixed_stays(dynamic_backbone: Backbone) -> None:
    fixed = "blocks.1.0.predictor.gain"
    dynamic_backbone.get_parameter(fixed).requires_grad = False
    strategy = MetaDynamic(dynamic_backbone, n_way=3)
    asking = {name for name, parameter in strategy.named_parameters() if parameter.requires_grad}
    assert asking == MOVING - {f"backbone.{fixed}"}
    assert fixed not in strategy.moving


def _logits(strategy: MetaDynamic, images: Tensor) -> Tensor:
    features = strategy.backbone(images)
    return features / features.norm(dim=1, keepdim=True) @ strategy.classifier.T


def _by_hand(strategy: MetaDynamic, batch: EpisodeBatch, task: int, steps: int) -> tuple[Tensor, MetaDynamic]:
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


@pytest.mark.parametrize("engine", ["higher", "plain"])
@pytest.mark.parametrize("first_order", [False, True])
def test_the_loss_is_that_of_each_tasks_queries_after_its_steps(
    dynamic_backbone: Backbone, batch: EpisodeBatch, engine: str, *, first_order: bool
) -> None:
    strategy = _strategy(dynamic_backbone, steps=3, first_order=first_order, engine=choose_engine(engine))
    expected = torch.stack([_by_hand(strategy, batch, task, 3)[0] for task in range(2)])
    torch.testing.assert_close(strategy.loss(batch), expected, rtol=1e-9, atol=1e-9)


def test_fitting_takes_the_steps_of_a_test(dynamic_backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = _strategy(dynamic_backbone, steps=1, test_steps=4)
    logits = strategy.fit(batch.support, batch.support_labels)(batch.query)
    for task in range(2):
        own = _by_hand(strategy, batch, task, 4)[1]
        torch.testing.assert_close(logits[task], _logits(own, batch.query[task]).detach(), rtol=1e-9, atol=1e-9)


def test_the_gradient_of_the_loss_equals_difference_quotients(tiny_store: ImageStore, batch: EpisodeBatch) -> None:
    torch.manual_seed(1)
    backbone = cast(Backbone, convert(CNN4(16, 3, width=2, mean=tiny_store.mean, std=tiny_store.std).double(), "dynamic"))
    strategy, rough = (_strategy(backbone, steps=2, first_order=first_order) for first_order in (False, True))
    moving = [parameter for parameter in strategy.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(strategy.loss(batch).mean(), moving)
    approximate = torch.autograd.grad(rough.loss(batch).mean(), [value for value in rough.parameters() if value.requires_grad])
    width, gaps = 1e-7, []
    for _ in range(3):
        direction = [torch.randn_like(parameter) for parameter in moving]
        losses = []
        for sign in (1, -2, 1):
            losses.append(strategy.loss(batch).mean().item())
            with torch.no_grad():
                for parameter, along in zip(moving, direction, strict=True):
                    parameter.add_(along, alpha=sign * width)
        quotient = (losses[1] - losses[2]) / (2 * width)
        slopes = [sum((g * d).sum().item() for g, d in zip(some, direction, strict=True)) for some in (gradients, approximate)]
        assert slopes[0] == pytest.approx(quotient, rel=1e-4, abs=1e-6)
        gaps.append(abs(slopes[1] - quotient))
    assert max(gaps) > 1e-3  # what first order leaves out is there


class Blind(Backbone):
    """One dynamic convolution that takes the mean of each window, and features that say how bright it is: M alone can see a pattern."""

    features = 4

    def __init__(self) -> None:
        super().__init__()
        self.convolution = DynamicSimilarityConv2d(1, 4, 3, padding=1, bias=False)
        nn.init.constant_(self.convolution.weight, 1 / 9)
        nn.init.constant_(self.convolution.get_parameter("predictor.gain"), 0.3)
        self.register_buffer("thresholds", torch.linspace(0.0, 0.5, 4))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images.to(self.convolution.weight.dtype) / 200)
        return functional.relu(maps - self.get_buffer("thresholds")[:, None, None]).mean((2, 3))


def _stripes(random: torch.Generator, tasks: int = 2) -> EpisodeBatch:
    """Rows and columns of one brightness, in noise; which is the first way is drawn for each task."""
    row, column = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    patterns = torch.stack([row, column]) % 2
    order = torch.stack([torch.randperm(2, generator=random) for _ in range(tasks)])

    def draw(shots: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(2).repeat(tasks, shots)
        shown = (patterns[order.gather(1, labels)] + torch.randint(2, (tasks, 2 * shots, 1, 1), generator=random)) % 2
        return (150 * shown + torch.randint(50, shown.shape, generator=random)).to(torch.uint8)[:, :, None], labels

    (support, support_labels), (query, query_labels) = draw(2), draw(4)
    nowhere = torch.full((tasks, 8), -1)
    return EpisodeBatch(
        support=support,
        support_labels=support_labels,
        query=query,
        query_labels=query_labels,
        support_rows=nowhere[:, :4],
        query_rows=nowhere,
        classes=nowhere[:, :2],
    )


def _accuracy(strategy: MetaDynamic) -> float:
    batch = _stripes(torch.Generator().manual_seed(99), tasks=20)
    predicted = strategy.fit(batch.support, batch.support_labels)(batch.query).argmax(-1)
    return (predicted == batch.query_labels).double().mean().item()


def test_learns_to_see_what_the_filters_cannot() -> None:
    torch.manual_seed(0)
    strategy, random = MetaDynamic(Blind(), n_way=2, test_steps=5, lr=0.05), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([parameter for parameter in strategy.parameters() if parameter.requires_grad], 0.05)
    assert _accuracy(strategy) < 0.65  # chance is a half
    for _ in range(30):
        optimizer.zero_grad()
        strategy.loss(_stripes(random)).mean().backward()
        optimizer.step()
    assert _accuracy(strategy) > 0.97


def test_a_new_one_starts_as_the_pretrained_network(dynamic_backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = MetaDynamic(dynamic_backbone, n_way=3).double()
    assert torch.equal(strategy.backbone(batch.query[0]), dynamic_backbone.eval()(batch.query[0]))
    assert sum(isinstance(module, SpherePredictor) for module in strategy.backbone.modules()) == 4
    assert not strategy.classifier.any()


def test_a_network_without_predictors_is_refused(backbone: Backbone) -> None:
    message = r"^meta-dynamic moves predictors of dynamic similarity, CNN4 has none to move; .*: convert\(backbone, 'dynamic'\)$"
    for network in (backbone, cast(Backbone, convert(backbone, "static"))):
        with pytest.raises(ConfigurationError, match=message):
            MetaDynamic(network)
