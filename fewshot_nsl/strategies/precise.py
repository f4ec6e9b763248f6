"""A learner of features whose network computes in another precision."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fewshot_nsl.precision import Precision
from fewshot_nsl.strategies.strategy import Classifier, FeatureLearner, Strategy


@runtime_checkable
class FeatureStrategy(FeatureLearner, Strategy, Protocol):
    """A strategy that needs only features."""


class PreciseEncoder:
    """The same strategy with features of that precision, handed on in float32: what is fitted to them is fitted in float32.

    Args:
        strategy: whose network and classifier they are.
        precision: of the network.
    """

    def __init__(self, strategy: FeatureStrategy, precision: Precision) -> None:
        self.strategy, self.precision, self.transductive = strategy, precision, strategy.transductive

    def encode(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of images, 0-255."""
        with self.precision.network():
            return self.strategy.encode(images).float()

    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """As the strategy itself."""
        return self.strategy.fit(support, support_labels)
