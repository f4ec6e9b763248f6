"""Nearest class mean on frozen features: the control that needs no training at test (Snell et al. 2017; Chen et al. 2019)."""

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.strategies.frozen import FrozenFeatures
from fewshot_nsl.strategies.strategy import Classifier


class NearestMean(FrozenFeatures):
    """Logits are the cosines between a query's features and each class's mean support features."""

    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Average the features of each class."""
        members = functional.one_hot(support_labels).to(support.dtype).mT
        # A class's sum points where its mean points, and only directions count.
        means = functional.normalize(members @ support, dim=-1)
        return lambda query: functional.normalize(query, dim=-1) @ means.mT
