"""Nearest neighbour on frozen features, a baseline of the paper's table (Ravi and Larochelle 2017)."""

from jaxtyping import Float, Int64
from torch import Tensor

from fewshot_nsl.strategies.frozen import UnitFeatures
from fewshot_nsl.strategies.strategy import Classifier


class NearestNeighbour(UnitFeatures):
    """A way's logit is the cosine between a query's features and those of the way's nearest support image."""

    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Keep the supports; nothing is learned of them."""
        way = int(support_labels.max()) + 1

        def classify(query: Float[Tensor, "tasks n_query d"]) -> Float[Tensor, "tasks n_query way"]:
            cosines = query @ support.mT
            nearest = cosines.new_full((*cosines.shape[:2], way), -1.0)
            return nearest.scatter_reduce(-1, support_labels[:, None].expand_as(cosines), cosines, "amax", include_self=False)

        return classify
