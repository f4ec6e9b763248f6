"""Relation networks: a learned comparison of feature maps (Sung et al. 2018)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies.metric_learner import MetricLearner
from fewshot_nsl.strategies.relation import Relation
from fewshot_nsl.strategies.strategy import Classifier


class RelationNet(MetricLearner):
    """A way's map is the sum of its supports' maps; a network scores how each query's map relates to it (section 3.2, equation 1).

    Logits are the scores before the sigmoid. The loss is the squared distance of scores to 1 for a query's own way and to 0 for the
    others, averaged over queries and ways (equation 2). The relation network has as many filters as the maps, and the backbone's
    similarity.

    Args:
        backbone: where training starts; its features are a map.
        similarity: of the relation network's convolutions: "plain", "static" or "dynamic".
        structure: of their M; by default what is usual.
        hidden: units of the relation network's hidden layer.

    Raises:
        ConfigurationError: the backbone's features are no map, or an unknown similarity or structure.
    """

    name = "relation-net"

    def __init__(self, backbone: Backbone, *, similarity: str = "plain", structure: str | None = None, hidden: int = 8) -> None:
        super().__init__(backbone)
        if backbone.map_shape is None:
            raise ConfigurationError(
                f"relation-net compares maps, and features of {type(backbone).__name__} are none; use one of cnn4-maps, cnn4, cnn9"
            )
        self.map_shape = backbone.map_shape
        self.relation = Relation(*self.map_shape, hidden=hidden, similarity=similarity, structure=structure)

    def compare(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """See `MetricLearner`."""
        members = functional.one_hot(support_labels).to(support.dtype).mT
        ways = members @ support

        def classify(query: Float[Tensor, "tasks n_query d"]) -> Float[Tensor, "tasks n_query way"]:
            maps = [each.unflatten(-1, self.map_shape) for each in (ways, query)]
            # In training BN sees the pairs of all tasks; with fixed statistics one task's pairs at a time are enough to hold.
            parts = [maps] if self.training else zip(*(each.split(1) for each in maps), strict=True)
            with self.precision.network():
                scores = torch.cat([self.relation(*part) for part in parts])
            return scores.to(query.dtype)

        return classify

    def loss(self, batch: EpisodeBatch) -> Float[Tensor, " tasks"]:
        """Mean squared error of the scores of each task's queries."""
        support, query = self.embed_batch(batch)
        scores = self.compare(support, batch.support_labels)(query).sigmoid()
        return (scores - functional.one_hot(batch.query_labels, scores.shape[-1])).square().mean((1, 2))
