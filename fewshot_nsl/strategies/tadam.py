"""TADAM: class means in a space that the task itself changes (Oreshkin et al. 2018)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone, Modulation, conditioned, conditioned_layers, modulating
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.precision import Precision
from fewshot_nsl.strategies.episode_learner import EpisodeLearner
from fewshot_nsl.strategies.prototypes import class_means, squared_distances
from fewshot_nsl.strategies.strategy import Classifier
from fewshot_nsl.strategies.task_embedding import TaskEmbedding
from fewshot_nsl.strategies.tasks import cross_entropies

SHARE = 0.9
"""Of the steps that teach all base classes at once, in the first stage; each stage has this part of the share of the one before."""
STAGES = 20
"""Of training, equally long."""


class TADAM(EpisodeLearner):
    """Logits are minus the squared Euclidean distances to the class means, times a learned scale.

    A task is represented by the mean of its class means under the backbone alone. From that the task embedding network predicts a scale and
    a shift of the channels after each BN, and supports and queries are seen through the backbone so changed. Some steps of
    training teach the unchanged backbone all base classes at once, with a linear classifier of their own.

    In training BN takes the statistics of all images of a pass, and its running statistics follow every pass, changed or not. At test
    those are used, so that queries do not see each other. The backbone is copied.

    What is open in the paper is taken from the authors' code: the depth of the nets, which layers are changed, the size of the penalty, the
    share of co-training. In that code a step on the base classes comes before an episode, here in its place; there the distance is not
    squared. The scale is learned as its logarithm; that, and where it starts, is our choice.

    Args:
        backbone: where training starts.
        scale: where the scale starts; at 1 logits are those of `ProtoNet`.
        penalty: of the squares of the post-multipliers, in the loss of every task.
        base_classes: that are taught at once; how many the training data have.
        base_batch: images of a step that teaches them.

    Raises:
        ConfigurationError: the backbone has no BN that a task could change.
    """

    name = "tadam"
    transductive = False

    def __init__(
        self, backbone: Backbone, *, scale: float = 1.0, penalty: float = 0.01, base_classes: int = 64, base_batch: int = 64
    ) -> None:
        super().__init__()
        self.backbone = conditioned(backbone)
        self.embedding = TaskEmbedding(backbone.features, [layer.channels for layer in conditioned_layers(self.backbone)])
        self.base_classifier = nn.Linear(backbone.features, base_classes)
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.penalty, self.base_batch = penalty, base_batch
        self.precision = Precision("float32", torch.device("cpu"))

    def embed(self, images: UInt8[Tensor, "tasks n c h w"], modulations: Sequence[Modulation] | None = None) -> Float[Tensor, "tasks n d"]:
        """Features under the backbone as each task changes it; without modulations, under the backbone alone."""
        flat = images.flatten(0, 1)
        with self.precision.network():
            if modulations is None:
                features: Tensor = self.backbone(flat)
            else:
                with modulating(self.backbone, modulations):
                    features = self.backbone(flat)
        return features.to(self.log_scale.dtype).unflatten(0, images.shape[:2])

    def modulations(
        self, support: UInt8[Tensor, "tasks n_support c h w"], support_labels: Int64[Tensor, "tasks n_support"]
    ) -> list[Modulation]:
        """What each task does to each layer, from its supports."""
        modulations: list[Modulation] = self.embedding(class_means(self.embed(support), support_labels).mean(1))
        return modulations

    def compare(self, query: Float[Tensor, "tasks n_query d"], means: Float[Tensor, "tasks way d"]) -> Float[Tensor, "tasks n_query way"]:
        """Logits."""
        return -self.log_scale.exp() * squared_distances(query, means)

    def fit(self, support: UInt8[Tensor, "tasks n_support c h w"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Classifiers of images; they use the running statistics."""
        self.eval()
        with torch.no_grad():
            modulations = self.modulations(support, support_labels)
            means = class_means(self.embed(support, modulations), support_labels)

        @torch.no_grad()
        def classify(query: UInt8[Tensor, "tasks n_query c h w"]) -> Float[Tensor, "tasks n_query way"]:
            self.eval()
            return self.compare(self.embed(query, modulations), means)

        return classify

    def loss(self, batch: EpisodeBatch) -> Float[Tensor, " tasks"]:
        """Mean cross entropy on each task's queries, and the penalty."""
        self.train()
        modulations = self.modulations(batch.support, batch.support_labels)
        features = self.embed(torch.cat([batch.support, batch.query], dim=1), modulations)
        support, query = features.split([batch.support.shape[1], batch.query.shape[1]], dim=1)
        logits = self.compare(query, class_means(support, batch.support_labels))
        return cross_entropies(logits, batch.query_labels) + self.penalty * self.embedding.penalty()

    @property
    def base_classes(self) -> int:
        """See `CoTrains`."""
        return self.base_classifier.out_features

    def base_share(self, step: int, steps: int) -> float:
        """See `CoTrains`: falls in `STAGES` stages."""
        return SHARE ** (1 + STAGES * step // steps)

    def base_logits(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """See `CoTrains`."""
        self.train()
        logits: Tensor = self.base_classifier(self.embed(images[None])[0])
        return logits
