"""The first module of every backbone: pixels in, zero-mean unit-variance channels out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


class Normalise(nn.Module):
    """`(image - mean) / std` per channel, in pixel units 0-255; mean and std travel in the checkpoint, so nobody can forget them.

    Images come as uint8, one byte a value, and become floats only here, on the device, laid out channels last.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Take uint8 or floating images, 0-255; give them in the dtype of the network."""
        return ((images.to(self.mean.dtype) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
