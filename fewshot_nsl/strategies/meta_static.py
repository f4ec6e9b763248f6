"""Meta-learned static NSN: MAML in which only the similarity and the classifier move (Liu et al. 2019, section 7.2)."""

from typing import Self

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import EpisodeError
from fewshot_nsl.inner_loop import Parameters, TaskLoss, adapt
from fewshot_nsl.similarity import convert, similarity_parameters
from fewshot_nsl.strategies.strategy import Classifier
from fewshot_nsl.strategies.tasks import expand, task_features


class MetaStatic(nn.Module):
    """The initial M and classifier are learned in an outer loop, through an inner loop on them (Finn et al. 2017, algorithm 2).

    Filters, BN's affine part and BN's statistics stay as pretrained, so queries do not see each other (not transductive, unlike MAML's
    published figure). The parameters that ask for a gradient are what the outer loop moves.

    Args:
        backbone: pretrained, of plain convolutions.
        n_way: ways of the learned classifier.
        structure: of M.
        steps: inner steps in training; 5 in MAML.
        test_steps: inner steps in `fit`; 10 in MAML.
        lr: step size of the inner loop; 0.01 in MAML.
        first_order: leave out second derivatives in training.
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
        first_order: bool = False,
    ) -> None:
        super().__init__()
        self.n_way, self.steps, self.test_steps, self.lr, self.first_order = n_way, steps, test_steps, lr, first_order
        self.backbone = convert(backbone, "static", structure=structure).eval().requires_grad_(requires_grad=False)
        self._similarity = similarity_parameters(self.backbone)
        for parameter in self._similarity.values():
            parameter.requires_grad_()
        self.classifier = nn.Linear(backbone.features, n_way)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def train(self, mode: bool = True) -> Self:
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
        start = {name: value.detach() for name, value in expand(self._moving(), len(support)).items()}
        adapted = adapt(self._loss(support, support_labels), start, steps=self.test_steps, lr=self.lr, first_order=True)
        adapted = {name: value.detach() for name, value in adapted.items()}
        return torch.no_grad()(lambda query: self._logits(adapted, query))

    def loss(self, batch: EpisodeBatch) -> Float[Tensor, " tasks"]:
        """Mean cross entropy on each task's queries after adapting to its supports; differentiable through the inner loop."""
        inner = self._loss(batch.support, batch.support_labels)
        adapted = adapt(inner, expand(self._moving(), len(batch.support)), steps=self.steps, lr=self.lr, first_order=self.first_order)
        return self._loss(batch.query, batch.query_labels)(adapted)

    def _moving(self) -> dict[str, nn.Parameter]:
        return {**self._similarity, **dict(self.classifier.named_parameters(prefix="classifier"))}

    def _loss(self, images: Tensor, labels: Tensor) -> TaskLoss:
        def loss(parameters: Parameters) -> Tensor:
            entropy = functional.cross_entropy(self._logits(parameters, images).flatten(0, 1), labels.flatten(), reduction="none")
            return entropy.view(labels.shape).mean(1)

        return loss

    def _logits(self, parameters: Parameters, images: Tensor) -> Float[Tensor, "tasks n way"]:
        features = task_features(self.backbone, {name: parameters[name] for name in self._similarity}, images)
        return features @ parameters["classifier.weight"].mT + parameters["classifier.bias"][:, None]
