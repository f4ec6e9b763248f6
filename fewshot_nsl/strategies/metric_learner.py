"""What strategies share that learn a backbone on episodes and take no steps on a task."""

from abc import abstractmethod

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.precision import Precision
from fewshot_nsl.strategies.episode_learner import EpisodeLearner
from fewshot_nsl.strategies.strategy import Classifier
from fewshot_nsl.strategies.tasks import cross_entropies


class MetricLearner(EpisodeLearner):
    """Supports and queries are compared in the space of a backbone that is trained for it, from one episode to the next.

    In training BN takes the statistics of all images of the meta-batch, and its running statistics follow. At test those are used, so that
    queries do not see each other. A subclass says how features become a classifier; what it learns beside the backbone are its own modules.

    Args:
        backbone: where training starts.
    """

    transductive = False

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.precision = Precision("float32", torch.device("cpu"))

    @abstractmethod
    def compare(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """From features of each task's supports to logits of features of queries; differentiable."""
        ...

    def embed(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The backbone's features."""
        with self.precision.network():
            features: Tensor = self.backbone(images)
        return features.to(next(self.backbone.parameters()).dtype)

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The same, with running statistics."""
        self.eval()
        return self.embed(images)

    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Classifiers of tasks whose images are encoded."""
        self.eval()
        with torch.no_grad():
            classifier = self.compare(support, support_labels)
        return torch.no_grad()(classifier)

    def loss(self, batch: EpisodeBatch) -> Float[Tensor, " tasks"]:
        """Mean cross entropy on each task's queries."""
        support, query = self.embed_batch(batch)
        return cross_entropies(self.compare(support, batch.support_labels)(query), batch.query_labels)

    def embed_batch(self, batch: EpisodeBatch) -> tuple[Float[Tensor, "tasks n_support d"], Float[Tensor, "tasks n_query d"]]:
        """Features of supports and queries in training: of all images of the meta-batch at once."""
        self.train()
        images = torch.cat([batch.support, batch.query], dim=1)
        features = self.embed(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return features[:, : batch.support.shape[1]], features[:, batch.support.shape[1] :]
