"""Label-preserving changes of training images, on the device, a batch at a time."""

from collections.abc import Collection

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.episodes.colour import change_colour

JITTER = 0.4
"""How far a factor of "colour" may be from 1 (Chen et al. 2019)."""


def augment(images: UInt8[Tensor, "n c h w"], kinds: Collection[str], generator: torch.Generator) -> UInt8[Tensor, "n c h w"]:
    """Change each image at random; `generator` is on the CPU, so the choices are the same on every device.

    Args:
        images: 0-255.
        kinds: "crop": a window of the same size out of the image padded by an eighth with zeros; "flip": left and right exchanged, for half
            of the images; "colour": brightness, contrast and saturation, in this order, each scaled by a factor from 0.6 to 1.4, before
            the padding.
        generator: source of the choices. Those of "crop" and "flip" are the same with "colour" and without.
    """
    n, _, height, width = images.shape
    rows, columns = torch.arange(height).expand(n, -1), torch.arange(width).expand(n, -1)
    if "flip" in kinds:
        flipped = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    margin = height // 8 if "crop" in kinds else 0
    if "crop" in kinds:
        shift = torch.randint(0, 2 * margin + 1, (2, n, 1), generator=generator)
        rows, columns = rows + shift[0], columns + shift[1]
    if "colour" in kinds:
        images = change_colour(images, 1 + JITTER * (2 * torch.rand(n, 3, generator=generator) - 1))
    images = functional.pad(images, (margin, margin, margin, margin))
    where = torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]
    # Advanced indexing puts channels last, as the network wants them in memory.
    return images.movedim(1, -1)[tuple(index.to(images.device) for index in where)].movedim(-1, 1)
