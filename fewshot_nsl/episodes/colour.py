"""Brightness, contrast and saturation of a batch of images."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def change_colour(images: UInt8[Tensor, "n c h w"], factors: Float[Tensor, "n 3"]) -> UInt8[Tensor, "n c h w"]:
    """Scale the brightness, then the contrast, then the saturation of each image, as PIL's `ImageEnhance` does, but round only at the end.

    Contrast is the distance from the image's mean grey, saturation that of a pixel from its own grey: a grey image has none.

    Args:
        images: 0-255, of 3 channels or 1.
        factors: of each image for the three; 1 changes nothing.
    """
    brightness, contrast, saturation = factors.to(images.device).T[..., None, None, None]
    # One copy as floating point, changed in place.
    changed = images.float().mul_(brightness).clamp_(max=255)
    mean = _grey(changed).mean((1, 2, 3), keepdim=True)
    changed.sub_(mean).mul_(contrast).add_(mean).clamp_(0, 255)
    if images.shape[1] == 3:
        grey = _grey(changed)
        changed.sub_(grey).mul_(saturation).add_(grey).clamp_(0, 255)
    return changed.round_().to(torch.uint8)


def _grey(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """ITU-R 601-2 luma, PIL's mode L."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
