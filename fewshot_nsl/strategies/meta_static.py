"""Meta-learned static NSN: MAML in which only the similarity and the classifier move (Liu et al. 2019, section 7.2)."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.inner_loop import Engine, Parameters, TaskNetwork
from fewshot_nsl.similarity import convert, similarity_parameters
from fewshot_nsl.strategies.meta_learner import MetaLearner
from fewshot_nsl.strategies.tasks import CLASSIFIER, task_logits


class MetaStatic(MetaLearner):
    """The initial M and classifier are learned in an outer loop, through an inner loop on them (Finn et al. 2017, algorithm 2).

    Filters, BN's affine part and BN's statistics stay as pretrained, so queries do not see each other (not transductive, unlike MAML's
    published figure). The classifier is that of `RetrainedClassifier`: linear, without bias, on features of length 1; it starts at 0, where
    no label is preferred.

    Args:
        backbone: pretrained, of plain convolutions.
        n_way: ways of the learned classifier.
        structure: of M.
        steps: inner steps in training; 5 in MAML.
        test_steps: inner steps in `fit`; 10 in MAML.
        lr: inner step size of M; 0.01 in MAML.
        lr_classifier: inner step size of the classifier; large, since features of length 1 give it small gradients.
        first_order: leave out second derivatives in training.
        engine: of the inner loop; by default the fast one on torch's operators.
    """

    name = "meta-static"
    transductive = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_way: int = 5,
        structure: str = "unconstrained",
        steps: int = 5,
        test_steps: int = 10,
        lr: float = 0.01,
        lr_classifier: float = 10.0,
        first_order: bool = False,
        engine: Engine | None = None,
    ) -> None:
        super().__init__(n_way=n_way, steps=steps, test_steps=test_steps, first_order=first_order, engine=engine)
        self.backbone = cast(Backbone, convert(backbone, "static", structure=structure).eval().requires_grad_(requires_grad=False))
        self.classifier = nn.Parameter(torch.zeros(n_way, backbone.features))
        self.moving = {**similarity_parameters(self.backbone), CLASSIFIER: self.classifier}
        for parameter in self.moving.values():
            parameter.requires_grad_()
        self.rates = dict.fromkeys(self.moving, lr) | {CLASSIFIER: lr_classifier}

    def train(self, mode: bool = True) -> "MetaStatic":
        """As `nn.Module.train`, but the backbone keeps its pretrained statistics."""
        super().train(mode)
        self.backbone.eval()
        return self

    def logits(self, network: TaskNetwork, parameters: Parameters, prepared: Tensor) -> Float[Tensor, "tasks n way"]:
        """Features of length 1 times classifier."""
        return task_logits(network, parameters, prepared)
