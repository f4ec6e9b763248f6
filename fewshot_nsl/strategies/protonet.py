"""Prototypical networks: the nearest class mean in a space learned for it (Snell et al. 2017)."""

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.strategies.metric_learner import MetricLearner
from fewshot_nsl.strategies.strategy import Classifier


class ProtoNet(MetricLearner):
    """Logits are minus the squared Euclidean distances to the class means (equations 1 and 2); nothing is learned beside the backbone.

    Args:
        backbone: where training starts.
    """

    name = "protonet"

    def compare(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """See `MetricLearner`."""
        members = functional.one_hot(support_labels).to(support.dtype).mT
        prototypes = members @ support / members.sum(-1, keepdim=True)

        def classify(query: Float[Tensor, "tasks n_query d"]) -> Float[Tensor, "tasks n_query way"]:
            # Written out as squares and a product: differences of all pairs would be `[tasks, n_query, way, d]`.
            squares = query.square().sum(-1, keepdim=True) + prototypes.square().sum(-1)[:, None]
            return 2 * query @ prototypes.mT - squares

        return classify
