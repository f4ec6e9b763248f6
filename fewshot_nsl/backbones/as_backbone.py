"""Any torch module as a backbone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.normalise import Normalise
from fewshot_nsl.errors import ConfigurationError

PIXELS_AT_ONCE = 64 * 224 * 224
"""A network out of training takes so many at a time: a few hundred enlarged images would fill many gigabytes."""


class ModuleBackbone(Backbone):
    """Images resized and normalised as a module wants them, then the module; see `as_backbone`."""

    def __init__(self, module: nn.Module, *, features: int, mean: Sequence[float], std: Sequence[float], image_size: int | None) -> None:
        super().__init__()
        self.features, self.image_size, self.channels = features, image_size, len(mean)
        self.normalise = Normalise(mean, std)
        self.module = module

    def forward(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Take uint8 or floating images, 0-255, of any size; give the module's features.

        Raises:
            ConfigurationError: the images have another number of channels, or the module gives something else than features.
        """
        if images.shape[1] not in (1, self.channels):
            raise ConfigurationError(
                f"{type(self.module).__name__} takes images of {self.channels} channels, got {images.shape[1]}; give as_backbone a mean "
                f"and a std for each channel"
            )
        height, width = images.shape[2:] if self.image_size is None else (self.image_size, self.image_size)
        # While BN takes the statistics of a batch, the batch must stay whole.
        at_once = len(images) if self.training else max(1, PIXELS_AT_ONCE // (height * width))
        return torch.cat([self._encode(part) for part in images.split(at_once)])

    def _encode(self, images: Tensor) -> Tensor:
        images = images.to(self.normalise.mean.dtype)
        size = self.image_size
        if size is not None and images.shape[2:] != (size, size):
            images = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
        features = self.module(self.normalise(images.expand(-1, self.channels, -1, -1)))
        if not isinstance(features, Tensor) or features.shape != (len(images), self.features):
            got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ConfigurationError(
                f"{type(self.module).__name__} is to give features [{len(images)}, {self.features}], got {got}; "
                f"pool and flatten them in a module of your own, or correct features="
            )
        return features


def as_backbone(
    module: nn.Module, *, features: int, mean: Sequence[float], std: Sequence[float], image_size: int | None = None
) -> ModuleBackbone:
    """A module that somebody brings, as a backbone: every strategy on frozen features takes it.

    Grey images are given to every channel. The module is not copied, and keeps its device and precision.

    Args:
        module: from normalised images `[n, c, h, w]` to features `[n, features]`.
        features: how many.
        mean: of each channel that the module takes, in pixel units 0-255; what it was trained with.
        std: the same. A module that takes values from 0 to 1 has mean 0 and std 255.
        image_size: images are resized to this many pixels on a side, by bilinear interpolation with antialiasing, where they have
            others; by default they stay as they are.

    Raises:
        ConfigurationError: no feature, no pixel, not one mean and std a channel, or a std that is not in pixel units.
    """
    if features < 1 or (image_size is not None and image_size < 1):
        raise ConfigurationError(
            f"as_backbone: expected at least 1 feature and an image size of at least 1, got {features} and {image_size}"
        )
    if not 0 < len(mean) == len(std):
        raise ConfigurationError(f"as_backbone: expected a mean and a std for each channel, got {len(mean)} and {len(std)}")
    if min(std) < 1:
        raise ConfigurationError(f"as_backbone: std is in pixel units, 0-255, got {min(std):g}; multiply mean and std by 255")
    backbone = ModuleBackbone(module, features=features, mean=mean, std=std, image_size=image_size)
    # The pixels' units go where the module is.
    placed = next(module.parameters(), None)
    if placed is not None:
        backbone.normalise.to(placed.device, placed.dtype)
    return backbone
