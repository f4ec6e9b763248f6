"""Finetuning: on a new task a pretrained network and its classifier take gradient steps (Liu et al. 2019, table 6)."""

import copy

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.inner_loop import Engine, Parameters, fast
from fewshot_nsl.strategies.logistic import fit_logistic_regression
from fewshot_nsl.strategies.strategy import Classifier
from fewshot_nsl.strategies.tasks import CLASSIFIER, cross_entropies, expand, task_features, task_logits


class Finetuned:
    """The classifier that fits the pretrained features best, then gradient descent on it and on all weights, on the same objective.

    At 0 steps this is `RetrainedClassifier`: what the steps add is what a moving network adds. BN uses the pretrained statistics. A
    subclass may let less of the network move.

    Args:
        backbone: pretrained; left as it is.
        steps: of gradient descent.
        lr: step size of what moves of the network.
        lr_classifier: step size of the classifier.
        penalty: of the regression, see `fit_logistic_regression`.
        engine: of the steps; by default the fast one on torch's operators.
    """

    transductive = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        steps: int = 10,
        lr: float = 0.01,
        lr_classifier: float = 0.1,
        penalty: float = 0.01,
        engine: Engine | None = None,
    ) -> None:
        self.engine = engine or fast()
        self.network = copy.deepcopy(backbone).eval().requires_grad_(requires_grad=False)
        self.steps, self.penalty = steps, penalty
        self.rates = dict.fromkeys(self.moving(), lr) | {CLASSIFIER: lr_classifier}

    def moving(self) -> dict[str, nn.Parameter]:
        """What moves of the network, by its names."""
        return dict(self.network.named_parameters())

    def fit(self, support: UInt8[Tensor, "tasks n_support c h w"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Finetune each task on its support set."""
        network = self.engine.network(self.network)
        start, images = expand(self.moving(), len(support)), network.prepare(support)
        with torch.no_grad():
            features = task_features(network, start, images)
        start[CLASSIFIER] = fit_logistic_regression(features, support_labels, penalty=self.penalty)

        def loss(parameters: Parameters) -> Tensor:
            decay = self.penalty / 2 * parameters[CLASSIFIER].square().sum((1, 2))
            return cross_entropies(task_logits(network, parameters, images), support_labels) + decay

        tuned = self.engine.adapt(loss, start, steps=self.steps, lr=self.rates, first_order=True)
        tuned = {name: value.detach() for name, value in tuned.items()}
        return torch.no_grad()(lambda query: task_logits(network, tuned, network.prepare(query)))
