import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.inner_loop import choose_engine
from fewshot_nsl.kernels import compiler
from fewshot_nsl.strategies import Adapting, FeatureLearner, Finetuned, NormFinetuned, RetrainedClassifier, StaticFinetuned, Strategy
from fewshot_nsl.strategies.logistic import fit_logistic_regression

Predict = Callable[[Strategy, Tensor, Tensor, Tensor], Tensor]

KINDS = pytest.mark.parametrize("kind", [Finetuned, NormFinetuned, StaticFinetuned])
ENGINES = pytest.mark.parametrize(
    "engine", ["higher", "plain", pytest.param("fast", marks=pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"))]
)
LR, LR_CLASSIFIER, PENALTY = 0.1, 0.3, 0.05


def _by_hand(strategy: Finetuned, batch: EpisodeBatch, task: int, steps: int) -> Tensor:
    """Logits of one task's queries after plain gradient steps on a copy of the network."""
    network, images, labels = copy.deepcopy(strategy.network), batch.support[task], batch.support_labels[task]
    moving = [parameter.requires_grad_() for name, parameter in network.named_parameters() if name in strategy.moving()]
    unit = functional.normalize(network(images), dim=1).detach()
    classifier = fit_logistic_regression(unit[None], labels[None], penalty=PENALTY)[0].requires_grad_()

    def logits(of: Tensor) -> Tensor:
        features = network(of)
        return features / features.norm(dim=1, keepdim=True) @ classifier.T

    for _ in range(steps):
        loss = functional.cross_entropy(logits(images), labels) + PENALTY / 2 * classifier.square().sum()
        gradients = torch.autograd.grad(loss, [*moving, classifier])
        with torch.no_grad():
            for parameter, gradient in zip([*moving, classifier], gradients, strict=True):
                assert gradient.abs().max() > 0
                parameter.sub_(gradient, alpha=LR_CLASSIFIER if parameter is classifier else LR)
    return logits(batch.query[task]).detach()


@KINDS
@ENGINES
def test_logits_are_those_of_plain_gradient_steps(backbone: Backbone, batch: EpisodeBatch, kind: type[Finetuned], engine: str) -> None:
    strategy = kind(backbone, steps=3, lr=LR, lr_classifier=LR_CLASSIFIER, penalty=PENALTY, engine=choose_engine(engine))
    logits = strategy.fit(batch.support, batch.support_labels)(batch.query)
    still = kind(backbone, steps=0, penalty=PENALTY).fit(batch.support, batch.support_labels)(batch.query)
    assert (logits - still).abs().max() > 0.01
    for task in range(2):
        # Where the steps begin is known to the tolerance of a regression, and that of two tasks may end later than that of one.
        torch.testing.assert_close(logits[task], _by_hand(strategy, batch, task, 3), rtol=1e-3, atol=1e-3)


@KINDS
def test_without_steps_it_is_the_retrained_classifier(
    backbone: Backbone, batch: EpisodeBatch, predict: Predict, kind: type[Finetuned]
) -> None:
    sets = batch.support, batch.support_labels, batch.query
    expected = predict(RetrainedClassifier(backbone, penalty=0.02), *sets)
    torch.testing.assert_close(predict(kind(backbone, steps=0, penalty=0.02), *sets), expected)


@KINDS
def test_with_the_network_held_the_classifier_is_at_its_best_already(
    backbone: Backbone, batch: EpisodeBatch, predict: Predict, kind: type[Finetuned]
) -> None:
    sets = batch.support, batch.support_labels, batch.query
    expected = predict(RetrainedClassifier(backbone, penalty=0.1), *sets)
    held = predict(kind(backbone, steps=20, lr=0.0, lr_classifier=1.0, penalty=0.1), *sets)
    torch.testing.assert_close(held, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "lr"), [(Finetuned, 0.002), (NormFinetuned, 0.02)])
def test_each_step_lowers_the_loss_on_the_support(backbone: Backbone, batch: EpisodeBatch, kind: type[Finetuned], lr: float) -> None:
    def loss(steps: int) -> float:
        logits = kind(backbone, steps=steps, lr=lr).fit(batch.support, batch.support_labels)(batch.support)
        return functional.cross_entropy(logits.flatten(0, 1), batch.support_labels.flatten()).item()

    losses = [loss(steps) for steps in (0, 1, 2, 4, 8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.99 * losses[0]


@KINDS
def test_the_classifier_can_be_asked_again(backbone: Backbone, batch: EpisodeBatch, kind: type[Finetuned]) -> None:
    strategy = kind(backbone, steps=3)
    first = strategy.fit(batch.support, batch.support_labels)
    logits = first(batch.query)
    strategy.fit(batch.query, batch.query_labels)(batch.query)
    assert torch.equal(first(batch.query), logits)


@KINDS
def test_it_takes_steps_and_needs_images(backbone: Backbone, kind: type[Finetuned]) -> None:
    assert isinstance(kind(backbone), Adapting)
    assert not isinstance(kind(backbone), FeatureLearner)


@KINDS
def test_statistics_are_the_pretrained_ones_and_the_given_backbone_is_left_as_it_is(
    backbone: Backbone, batch: EpisodeBatch, kind: type[Finetuned]
) -> None:
    before = {name: value.clone() for name, value in backbone.train().state_dict().items()}
    strategy = kind(backbone)
    assert not any(module.training for module in strategy.network.modules())
    strategy.fit(batch.support, batch.support_labels)(batch.query)
    assert backbone.training
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_all_weights_move(backbone: Backbone) -> None:
    assert Finetuned(backbone).moving().keys() == {name for name, _ in backbone.named_parameters()}


def test_a_network_of_any_layers_can_be_finetuned(batch: EpisodeBatch) -> None:
    class Small(Backbone):
        features = 4

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images.to(self.layer.weight.dtype).mean((2, 3)) / 255).tanh()

    torch.manual_seed(0)
    strategy = Finetuned(Small().double(), steps=5)
    predicted = strategy.fit(batch.support, batch.support_labels)(batch.query).argmax(-1)
    assert (predicted == batch.query_labels).double().mean() > 0.8  # mean colours tell classes apart
