"""CNN-4 as the peers' own users write it: plain torch layers, contiguous. What moves are parameters, all else are buffers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.bench.work import MetaWork


class PeerNetwork(nn.Module):
    """A network that any peer can train.

    Args:
        body: from normalised images to features.
        classifier: on these.
    """

    def __init__(self, body: nn.Sequential, classifier: nn.Linear) -> None:
        super().__init__()
        self.body, self.classifier = body, classifier

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n way"]:
        """Logits of normalised images."""
        return self.classifier(self.body(images))


def plain_cnn4(work: MetaWork) -> PeerNetwork:
    """For MAML: every weight moves, BN has the statistics of its batch."""
    body = nn.Sequential(*(_plain_block(c, work.width) for c in _inputs(work)), nn.Flatten())
    return PeerNetwork(body, nn.Linear(_features(work), work.n_way))


def static_cnn4(work: MetaWork) -> PeerNetwork:
    """For meta-static: each layer's M and a classifier of features of length 1 move; filters and BN are as pretrained.

    Those are buffers, since torchopt asks for the gradient of every parameter, and the others copy or skip them all the same.
    """
    body = nn.Sequential(*(_StaticBlock(c, work.width) for c in _inputs(work)), nn.Flatten(), _UnitLength())
    return PeerNetwork(body, nn.Linear(_features(work), work.n_way, bias=False))


def _plain_block(in_channels: int, out_channels: int) -> nn.Sequential:
    # BN subtracts whatever a bias would add. Without running statistics: no task may see another's, and torch.func cannot update them.
    norm = nn.BatchNorm2d(out_channels, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), norm, nn.ReLU(), nn.MaxPool2d(2))


class _StaticBlock(nn.Module):
    """3x3 convolution under one M of all taps, BN with fixed statistics, ReLU, 2x2 max-pooling."""

    weight: Tensor
    gamma: Tensor
    beta: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.M = nn.Parameter(torch.eye(9))
        affine = {"gamma": torch.ones(out_channels), "beta": torch.zeros(out_channels)}
        statistics = {"mean": torch.zeros(out_channels), "variance": torch.ones(out_channels)}
        weight = nn.Conv2d(in_channels, out_channels, 3).weight.detach()
        for name, value in {"weight": weight, **affine, **statistics}.items():
            self.register_buffer(name, value)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h//2 w//2"]:
        kernel = (self.weight.flatten(2) @ self.M).view_as(self.weight)
        output = functional.conv2d(input, kernel, padding=1)
        output = functional.batch_norm(output, self.mean, self.variance, self.gamma, self.beta)
        return functional.max_pool2d(functional.relu(output), 2)


class _UnitLength(nn.Module):
    def forward(self, input: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return functional.normalize(input, dim=-1)


def _inputs(work: MetaWork) -> list[int]:
    """Input channels of the four blocks."""
    return [work.channels, *3 * [work.width]]


def _features(work: MetaWork) -> int:
    return work.width * (work.image_size // 16) ** 2
