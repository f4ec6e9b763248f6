"""Static NSN, finetuned: on a new task the similarity M and the classifier move, the filters stay (Liu et al. 2019, section 7.2)."""

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.inner_loop import Engine, Parameters, fast
from fewshot_nsl.similarity import convert, similarity_parameters
from fewshot_nsl.strategies.logistic import fit_logistic_regression
from fewshot_nsl.strategies.strategy import Classifier
from fewshot_nsl.strategies.tasks import CLASSIFIER, cross_entropies, expand, task_features, task_logits


class StaticFinetuned:
    """M <- I with the classifier that fits best there, then gradient descent on both, on the retrained classifier's own objective.

    At 0 steps this is `RetrainedClassifier` on the plain backbone: what the steps add is what M adds. BN uses the pretrained statistics.

    Args:
        backbone: pretrained, of plain convolutions.
        structure: of M.
        steps: of gradient descent.
        lr: step size of M.
        lr_classifier: step size of the classifier.
        penalty: of the regression, see `fit_logistic_regression`.
        engine: of the steps; by default the fast one on torch's operators.
    """

    transductive = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        structure: str = "unconstrained",
        steps: int = 10,
        lr: float = 0.01,
        lr_classifier: float = 0.1,
        penalty: float = 0.01,
        engine: Engine | None = None,
    ) -> None:
        self.engine = engine or fast()
        self.network = convert(backbone, "static", structure=structure).eval().requires_grad_(requires_grad=False)
        self.steps, self.penalty = steps, penalty
        self.rates = dict.fromkeys(similarity_parameters(self.network), lr) | {CLASSIFIER: lr_classifier}

    def fit(self, support: UInt8[Tensor, "tasks n_support c h w"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Finetune each task on its support set."""
        network = self.engine.network(self.network)
        start, images = expand(similarity_parameters(self.network), len(support)), network.prepare(support)
        with torch.no_grad():
            features = task_features(network, start, images)
        start[CLASSIFIER] = fit_logistic_regression(features, support_labels, penalty=self.penalty)

        def loss(parameters: Parameters) -> Tensor:
            decay = self.penalty / 2 * parameters[CLASSIFIER].square().sum((1, 2))
            return cross_entropies(task_logits(network, parameters, images), support_labels) + decay

        tuned = self.engine.adapt(loss, start, steps=self.steps, lr=self.rates, first_order=True)
        tuned = {name: value.detach() for name, value in tuned.items()}
        return torch.no_grad()(lambda query: task_logits(network, tuned, network.prepare(query)))
