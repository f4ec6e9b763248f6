"""CNN-4, the field's small backbone (Vinyals et al. 2016; Finn et al. 2017, with 32 filters; Liu et al. 2019, section 7.2)."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.normalise import Normalise
from fewshot_nsl.errors import ConfigurationError

Convolution = Callable[..., nn.Module]
"""Called with `nn.Conv2d`'s arguments: `(in_channels, out_channels, kernel_size, padding=, bias=)`."""


class CNN4(Backbone):
    """Four blocks of 3x3 convolution, BN, ReLU and 2x2 max-pooling, flattened.

    Args:
        image_size: pixels on a side, at least 16; features number `width * (image_size // 16) ** 2`.
        channels: of the images.
        width: filters of every block; 32 in MAML and the paper, 64 in ProtoNet.
        mean: per channel, pixel units 0-255.
        std: per channel, pixel units 0-255.
        convolution: what the blocks are made of.

    Raises:
        ConfigurationError: images too small to be halved four times, or no filters.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        *,
        width: int = 32,
        mean: Sequence[float],
        std: Sequence[float],
        convolution: Convolution = nn.Conv2d,
    ) -> None:
        super().__init__()
        if image_size < 16:
            raise ConfigurationError(f"CNN-4 halves its images four times: expected at least 16 pixels, got {image_size}")
        if width < 1:
            raise ConfigurationError(f"CNN-4's width is its number of filters: expected at least 1, got {width}")
        self.normalise = Normalise(mean, std)
        sizes = [channels, width, width, width, width]
        self.blocks = nn.Sequential(*(_block(i, o, convolution) for i, o in pairwise(sizes)))
        self.features = width * (image_size // 16) ** 2

    def forward(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of uint8 or floating images, 0-255."""
        return self.blocks(self.normalise(images)).flatten(1)


def _block(in_channels: int, out_channels: int, convolution: Convolution) -> nn.Sequential:
    return nn.Sequential(
        # BN subtracts whatever a bias would add.
        convolution(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )
