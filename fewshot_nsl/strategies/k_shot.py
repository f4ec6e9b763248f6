"""Discriminative k-shot learning: the pretrained classifier says how large the weights of new classes may be (Bauer et al. 2017)."""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.strategies.frozen import FrozenFeatures
from fewshot_nsl.strategies.logistic import fit_logistic_regression
from fewshot_nsl.strategies.strategy import Classifier


class DiscriminativeKShot(FrozenFeatures):
    """The most probable weights of the new classes, under a Gaussian prior fitted to the weights of the base classes.

    Weights w of a class, its bias among them (features have a 1 at the end), come from `N(mean, variance * I)`: the variant "iso" of the
    paper, with maximum a posteriori in place of sampling. Mean and variance are those of the pretrained classifier's rows. The mean is the
    same for all classes, so softmax cannot see it, and what the prior adds is a penalty of `1 / (2 * variance)` on squared weights: a
    logistic regression on unscaled features, of which nothing is left to be chosen.

    The classifier is needed once, by `learn_classifier`; a `LearnsClassifier`.

    Args:
        backbone: pretrained; nothing of it moves.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.variance: float | None = None

    def learn_classifier(self, weight: Float[Tensor, "classes d"], bias: Float[Tensor, " classes"]) -> None:
        """Fit the prior's variance, by maximum likelihood, to a classifier of the base classes.

        Raises:
            CheckpointError: fewer than two classes, or their weights do not differ.
        """
        rows = torch.cat([weight, bias[:, None]], dim=1).double()
        variance = float((rows - rows.mean(0)).square().mean())
        if not variance > 0:
            raise CheckpointError(
                f"k-shot fits its prior to how a classifier's weights differ from class to class, got {len(rows)} alike; give that of "
                f"several trained classes"
            )
        self.variance = variance

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The backbone's features, and a 1 for the bias."""
        features = super().encode(images)
        return torch.cat([features, features.new_ones(len(features), 1)], dim=1)

    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Find the most probable weights of each task.

        Raises:
            CheckpointError: no classifier was given.
        """
        if self.variance is None:
            raise CheckpointError(
                "k-shot takes its prior from the base classes' classifier, which it was not given; call learn_classifier first"
            )
        # The likelihood is a sum over images, the regression's cross entropy their mean.
        weights = fit_logistic_regression(support, support_labels, penalty=1 / (self.variance * support.shape[1]))
        return lambda query: query @ weights.mT
