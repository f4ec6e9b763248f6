"""Meta-learned static NSN: MAML in which only the similarity and the classifier move (Liu et al. 2019, section 7.2)."""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import EpisodeError
from fewshot_nsl.inner_loop import Engine, Parameters, TaskNetwork, fast
from fewshot_nsl.similarity import convert, similarity_parameters
from fewshot_nsl.strategies.strategy import Classifier
from fewshot_nsl.strategies.tasks import CLASSIFIER, expand, task_logits, task_loss


class MetaStatic(nn.Module):
    """The initial M and classifier are learned in an outer loop, through an inner loop on them (Finn et al. 2017, algorithm 2).

    Filters, BN's affine part and BN's statistics stay as pretrained, so queries do not see each other (not transductive, unlike MAML's
    published figure). The classifier is that of `RetrainedClassifier`: linear, without bias, on features of length 1; it starts at 0, where
    no label is preferred. The parameters that ask for a gradient are what the outer loop moves.

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
        super().__init__()
        self.engine = engine or fast()
        self.n_way, self.steps, self.test_steps, self.first_order = n_way, steps, test_steps, first_order
        self.backbone = convert(backbone, "static", structure=structure).eval().requires_grad_(requires_grad=False)
        self.classifier = nn.Parameter(torch.zeros(n_way, backbone.features))
        self._moving = {**similarity_parameters(self.backbone), CLASSIFIER: self.classifier}
        for parameter in self._moving.values():
            parameter.requires_grad_()
        self.rates = dict.fromkeys(self._moving, lr) | {CLASSIFIER: lr_classifier}

    def train(self, mode: bool = True) -> "MetaStatic":
        """As `nn.Module.train`, but the backbone keeps its pretrained statistics."""
        super().train(mode)
        self.backbone.eval()
        return self

    def fit(self, support: UInt8[Tensor, "tasks n_support c h w"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Adapt M and the classifier to each task with `test_steps` steps.

        Raises:
            EpisodeError: the tasks have another number of ways than the learned classifier.
        """
        way = int(support_labels.max()) + 1
        if way != self.n_way:
            raise EpisodeError(f"meta-static learned a {self.n_way}-way classifier, the episodes have {way} ways; use --n-way {self.n_way}")
        network = self.engine.network(self.backbone)
        start = {name: value.detach() for name, value in expand(self._moving, len(support)).items()}
        adapted = self._adapt(network, start, network.prepare(support), support_labels, self.test_steps, first_order=True)
        adapted = {name: value.detach() for name, value in adapted.items()}
        return torch.no_grad()(lambda query: task_logits(network, adapted, network.prepare(query)))

    def loss(self, batch: EpisodeBatch) -> Float[Tensor, " tasks"]:
        """Mean cross entropy on each task's queries after adapting to its supports; differentiable through the inner loop."""
        network = self.engine.network(self.backbone)
        start = expand(self._moving, len(batch.support))
        support = network.prepare(batch.support)
        adapted = self._adapt(network, start, support, batch.support_labels, self.steps, first_order=self.first_order)
        return task_loss(network, adapted, network.prepare(batch.query), batch.query_labels)

    def _adapt(
        self, network: TaskNetwork, start: Parameters, support: Tensor, labels: Tensor, steps: int, *, first_order: bool
    ) -> Parameters:
        def inner(parameters: Parameters) -> Tensor:
            return task_loss(network, parameters, support, labels)

        return self.engine.adapt(inner, start, steps=steps, lr=self.rates, first_order=first_order)
