"""LEO: gradient steps on a code of few numbers, from which a classifier's weights are decoded (Rusu et al. 2019)."""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.precision import Precision
from fewshot_nsl.strategies.episode_learner import EpisodeLearner
from fewshot_nsl.strategies.leo_network import LatentCodes, Noise, draw_noise
from fewshot_nsl.strategies.strategy import Classifier
from fewshot_nsl.strategies.tasks import cross_entropies


@dataclass(frozen=True)
class Adapted:
    """What the inner loop comes to."""

    weights: Float[Tensor, "tasks way d"]
    begun: Float[Tensor, "tasks way latents"]
    """The codes before the first step."""
    ended: Float[Tensor, "tasks way latents"]
    divergence: Float[Tensor, " tasks"]
    """Of the codes' distribution from the standard normal, averaged over numbers."""


class LEO(EpisodeLearner):
    """A way's classifier is decoded from a code that is found in the supports; first the codes move, then the weights (algorithm 1).

    Features are those of the pretrained backbone, scaled to length 1, and nothing of it moves. In training codes and weights are drawn
    from their distributions and inputs of the encoder are dropped; the noise belongs to the episode and is the same in all steps. At
    test their means are taken. Both step sizes are learned. The loss is the queries' cross entropy and four penalties (equation 6):
    divergence of the codes' distribution, distance of where codes end to where they begin, squared weights, and correlations between
    rows of the decoder.

    Args:
        backbone: pretrained; left as it is.
        latents: numbers of a code.
        steps: on the codes.
        finetune_steps: on the weights.
        lr: step size on the codes, where it starts.
        finetune_lr: step size on the weights, where it starts.
        dropout: share of the encoder's inputs that is dropped in training.
        kl_weight: of the divergence.
        encoder_penalty: of the distance.
        l2: of half the squared weights.
        orthogonality: of the correlations.
    """

    name = "leo"
    transductive = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        latents: int = 64,
        steps: int = 5,
        finetune_steps: int = 5,
        lr: float = 1.0,
        finetune_lr: float = 0.001,
        dropout: float = 0.3,
        kl_weight: float = 0.001,
        encoder_penalty: float = 1e-9,
        l2: float = 1e-8,
        orthogonality: float = 0.001,
    ) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone).eval().requires_grad_(requires_grad=False)
        self.codes = LatentCodes(backbone.features, latents)
        self.lr, self.finetune_lr = nn.Parameter(torch.tensor(lr)), nn.Parameter(torch.tensor(finetune_lr))
        self.steps, self.finetune_steps, self.dropout = steps, finetune_steps, dropout
        self.kl_weight, self.encoder_penalty, self.l2, self.orthogonality = kl_weight, encoder_penalty, l2, orthogonality
        self.precision = Precision("float32", torch.device("cpu"))

    def train(self, mode: bool = True) -> "LEO":
        """As `nn.Module.train`, but the backbone keeps its pretrained statistics."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The backbone's features, scaled to length 1."""
        with self.precision.network():
            features: Tensor = self.backbone(images)
        return functional.normalize(features.to(self.lr.dtype), dim=-1)

    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Adapt to tasks whose images are encoded, without noise."""
        with torch.enable_grad():
            weights = self.adapt(support, support_labels).weights.detach()
        return lambda query: query @ weights.mT

    def loss(self, batch: EpisodeBatch) -> Float[Tensor, " tasks"]:
        """Of each task, on its queries, with all penalties."""
        support, query = (self.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]) for images in (batch.support, batch.query))
        rows = torch.cat([batch.support_rows, batch.query_rows], dim=1)
        (_, n, d), way = support.shape, batch.classes.shape[1]
        noise = draw_noise(rows, n, way, d, self.codes.latents, dropout=self.dropout, like=support)
        adapted = self.adapt(support, batch.support_labels, noise)
        moved = (adapted.ended.detach() - adapted.begun).square().mean((1, 2))
        own = cross_entropies(query @ adapted.weights.mT, batch.query_labels)
        return own + self.kl_weight * adapted.divergence + self.encoder_penalty * moved + self.penalty()

    def penalty(self) -> Float[Tensor, ""]:
        """What does not depend on a task."""
        squares = torch.stack([weight.square().sum() for weight in self.codes.parameters()]).sum() / 2
        return self.l2 * squares + self.orthogonality * self.codes.correlation()

    def adapt(
        self,
        support: Float[Tensor, "tasks n_support d"],
        support_labels: Int64[Tensor, "tasks n_support"],
        noise: Noise | None = None,
    ) -> Adapted:
        """The inner loop; with noise it can be differentiated, without it stands by itself."""
        codes, divergence = self.codes.encode(support, support_labels, noise)
        if noise is None:
            codes = codes.detach().requires_grad_()
        begun = codes

        def gradient(weights: Tensor, moving: Tensor) -> Tensor:
            loss = cross_entropies(support @ weights.mT, support_labels).sum()
            return torch.autograd.grad(loss, moving, create_graph=noise is not None)[0]

        for _ in range(self.steps):
            codes = codes - self.lr * gradient(self.codes.decode(codes, noise), codes)
        weights = self.codes.decode(codes, noise)
        for _ in range(self.finetune_steps):
            weights = weights - self.finetune_lr * gradient(weights, weights)
        return Adapted(weights, begun, codes, divergence)
