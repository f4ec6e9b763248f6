"""What strategies share that learn where the inner loop starts, on a pretrained backbone that for the most part stays as it is."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.inner_loop import Engine, Parameters, TaskNetwork
from fewshot_nsl.strategies.meta_learner import MetaLearner
from fewshot_nsl.strategies.tasks import CLASSIFIER, task_logits


class MetaPretrained(MetaLearner):
    """A classifier moves in both loops, and of the backbone what a subclass lets move; BN uses the pretrained statistics.

    So queries do not see each other (not transductive, unlike MAML's published figure). The classifier is that of `RetrainedClassifier`:
    linear, without bias, on features of length 1; it starts at 0, where no label is preferred.

    Args:
        backbone: pretrained; left as it is.
        n_way: ways of the learned classifier.
        steps: inner steps in training.
        test_steps: inner steps in `fit`.
        lr_classifier: inner step size of the classifier.
        first_order: leave out second derivatives in training.
        engine: of the inner loop; by default the fast one on torch's operators.
    """

    transductive = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_way: int,
        steps: int,
        test_steps: int,
        lr_classifier: float,
        first_order: bool,
        engine: Engine | None,
    ) -> None:
        super().__init__(n_way=n_way, steps=steps, test_steps=test_steps, first_order=first_order, engine=engine)
        self.backbone = copy.deepcopy(backbone).eval().requires_grad_(requires_grad=False)
        self.classifier = nn.Parameter(torch.zeros(n_way, backbone.features))
        self.moving = {CLASSIFIER: self.classifier}
        self.rates = {CLASSIFIER: lr_classifier}

    def let_move(self, parameters: dict[str, nn.Parameter], lr: float) -> None:
        """Let these of `backbone`, by its names, move too, inside by this step size."""
        for parameter in parameters.values():
            parameter.requires_grad_()
        self.moving = parameters | self.moving
        self.rates = dict.fromkeys(parameters, lr) | self.rates

    def train(self, mode: bool = True) -> "MetaPretrained":
        """As `nn.Module.train`, but the backbone keeps its pretrained statistics."""
        super().train(mode)
        self.backbone.eval()
        return self

    def logits(self, network: TaskNetwork, parameters: Parameters, prepared: Tensor) -> Float[Tensor, "tasks n way"]:
        """Features of length 1 times classifier."""
        return task_logits(network, parameters, prepared)
