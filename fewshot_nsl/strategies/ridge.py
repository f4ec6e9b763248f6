"""Ridge regression on frozen features, in closed form: the head of R2-D2 without its meta-learning (Bertinetto et al. 2019)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.precision import full_products
from fewshot_nsl.strategies.frozen import UnitFeatures
from fewshot_nsl.strategies.strategy import Classifier


@full_products()
def fit_ridge_regression(
    features: Float[Tensor, "tasks n d"], labels: Int64[Tensor, "tasks n"], *, penalty: float
) -> Float[Tensor, "tasks way d"]:
    """Weights w of each task that minimise `|x w' - y|^2 + penalty * |w|^2`, y being 1 for an image's own way and 0 for the others.

    Solved in the span of the features, `w = y' (x x' + penalty)^-1 x`, so that the system has a row an image, however large d is.

    Args:
        features: of the support images.
        labels: 0 ... way-1.
        penalty: more than 0.
    """
    targets = functional.one_hot(labels).to(features.dtype)
    gram = features @ features.mT + penalty * torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    return torch.linalg.solve(gram, targets).mT @ features


class RidgeClassifier(UnitFeatures):
    """Ridge regression of the ways on features of length 1.

    Args:
        backbone: pretrained; nothing of it moves.
        penalty: of the regression, see `fit_ridge_regression`.
    """

    def __init__(self, backbone: Backbone, *, penalty: float = 1.0) -> None:
        super().__init__(backbone)
        self.penalty = penalty

    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Solve for the classifier of each task."""
        weights = fit_ridge_regression(support, support_labels, penalty=self.penalty)
        return lambda query: query @ weights.mT
