"""A frozen backbone and a classifier retrained on the support set: with a dynamic backbone, the paper's dynamic NSN (section 7.2)."""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.strategies.logistic import fit_logistic_regression
from fewshot_nsl.strategies.strategy import Classifier


class RetrainedClassifier:
    """Logistic regression on features of length 1. On a plain backbone it is the control; a dynamic one needs no more to adapt.

    Args:
        backbone: pretrained; nothing of it moves.
        penalty: of the regression, see `fit_logistic_regression`.
    """

    transductive = False

    def __init__(self, backbone: Backbone, *, penalty: float = 0.01) -> None:
        self.backbone, self.penalty = backbone.eval(), penalty

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The backbone's features, scaled to length 1."""
        return functional.normalize(self.backbone(images), dim=-1)

    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Fit the classifier of each task."""
        weights = fit_logistic_regression(support, support_labels, penalty=self.penalty)
        return lambda query: query @ weights.mT
