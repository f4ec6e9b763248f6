"""Prototypical networks: the nearest class mean in a space learned for it (Snell et al. 2017)."""

from jaxtyping import Float, Int64
from torch import Tensor

from fewshot_nsl.strategies.metric_learner import MetricLearner
from fewshot_nsl.strategies.prototypes import class_means, squared_distances
from fewshot_nsl.strategies.strategy import Classifier


class ProtoNet(MetricLearner):
    """Logits are minus the squared Euclidean distances to the class means (equations 1 and 2); nothing is learned beside the backbone.

    Args:
        backbone: where training starts.
    """

    name = "protonet"

    def compare(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """See `MetricLearner`."""
        prototypes = class_means(support, support_labels)
        return lambda query: -squared_distances(query, prototypes)
