"""The networks of LEO: features to a distribution of codes, and a code to a distribution of a classifier's weights (Rusu et al. 2019)."""

import hashlib
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

SMALLEST = 1e-10
"""Of a standard deviation."""


@dataclass(frozen=True)
class Noise:
    """What is drawn for the tasks of a batch."""

    inputs: Float[Tensor, "tasks n d"]
    """0 for what is dropped of the encoder's inputs, and for the rest what makes up for it."""
    codes: Float[Tensor, "tasks way latents"]
    """Standard normal, like the next."""
    weights: Float[Tensor, "tasks way d"]


def draw_noise(rows: Int64[Tensor, "tasks images"], n: int, way: int, d: int, latents: int, *, dropout: float, like: Tensor) -> Noise:
    """The noise of episodes; the images of each, by their row numbers, are the seed of its own.

    So an episode has the same noise again, whatever was drawn before and whichever are beside it: a resumed run goes on as it would have.
    """
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    for each in rows.cpu():
        seed = int.from_bytes(hashlib.blake2b(each.numpy().tobytes(), digest_size=8).digest())
        generator = torch.Generator().manual_seed(seed)
        kept = (torch.rand(n, d, generator=generator) >= dropout) / (1 - dropout)
        drawn.append((kept, torch.randn(way, latents, generator=generator), torch.randn(way, d, generator=generator)))
    return Noise(*(torch.stack(parts).to(like) for parts in zip(*drawn, strict=True)))


class LatentCodes(nn.Module):
    """Encoder, relation network and decoder; all without bias.

    Args:
        features: numbers of a feature, and weights of a way's classifier.
        latents: numbers of a code.
    """

    def __init__(self, features: int, latents: int) -> None:
        super().__init__()
        wide = 2 * latents
        self.features, self.latents = features, latents
        self.encoder = nn.Linear(features, latents, bias=False)
        self.relation = nn.Sequential(
            nn.Linear(wide, wide, bias=False), nn.ReLU(), nn.Linear(wide, wide, bias=False), nn.ReLU(), nn.Linear(wide, wide, bias=False)
        )
        self.decoder = nn.Linear(latents, 2 * features, bias=False)
        for weight in self.parameters():
            nn.init.xavier_uniform_(weight)

    def encode(
        self, support: Float[Tensor, "tasks n d"], labels: Int64[Tensor, "tasks n"], noise: Noise | None
    ) -> tuple[Float[Tensor, "tasks way latents"], Float[Tensor, " tasks"]]:
        """A code for each way, and its distribution's divergence from the standard normal, averaged over numbers (equations 2 and 3).

        Every support is related to every support of its task; a way's distribution is the mean of its own supports' relations.
        Without noise a code is the distribution's mean.
        """
        hidden = self.encoder(support if noise is None else support * noise.inputs)
        n = hidden.shape[1]
        pairs = torch.cat([hidden[:, :, None].expand(-1, -1, n, -1), hidden[:, None].expand(-1, n, -1, -1)], dim=-1)
        related = self.relation(pairs).mean(2)
        members = functional.one_hot(labels).to(related.dtype).mT
        mean, log_spread = (members @ related / members.sum(-1, keepdim=True)).chunk(2, dim=-1)
        spread = log_spread.exp().clamp(min=SMALLEST)
        divergence = ((mean.square() + spread.square() - 1) / 2 - spread.log()).mean((1, 2))
        return (mean if noise is None else mean + spread * noise.codes), divergence

    def decode(self, codes: Float[Tensor, "tasks way latents"], noise: Noise | None) -> Float[Tensor, "tasks way d"]:
        """The weights of each way's classifier (equation 4); without noise their distribution's mean.

        At first the spread is about that of a layer of Glorot and Bengio's, as in the authors' code.
        """
        mean, log_spread = self.decoder(codes).chunk(2, dim=-1)
        if noise is None:
            return mean
        usual = math.sqrt(2 / (self.features + codes.shape[1]))
        return mean + (log_spread.exp() - (1 - usual)).clamp(min=SMALLEST) * noise.weights

    def correlation(self) -> Float[Tensor, ""]:
        """Mean squared distance of the correlations between what single numbers of a code are decoded to from the identity (equation 6)."""
        rows = functional.normalize(self.decoder.weight.mT, dim=-1)
        return (rows @ rows.mT - torch.eye(self.latents, dtype=rows.dtype, device=rows.device)).square().mean()
