"""A frozen backbone and a classifier retrained on the support set: with a dynamic backbone, the paper's dynamic NSN (section 7.2)."""

from jaxtyping import Float, Int64
from torch import Tensor

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.strategies.frozen import UnitFeatures
from fewshot_nsl.strategies.logistic import fit_logistic_regression
from fewshot_nsl.strategies.strategy import Classifier


class RetrainedClassifier(UnitFeatures):
    """Logistic regression on features of length 1. On a plain backbone it is the control; a dynamic one needs no more to adapt.

    Args:
        backbone: pretrained; nothing of it moves.
        penalty: of the regression, see `fit_logistic_regression`.
    """

    def __init__(self, backbone: Backbone, *, penalty: float = 0.01) -> None:
        super().__init__(backbone)
        self.penalty = penalty

    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Fit the classifier of each task."""
        weights = fit_logistic_regression(support, support_labels, penalty=self.penalty)
        return lambda query: query @ weights.mT
