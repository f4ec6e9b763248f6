"""ResNet-12, the field's residual backbone (Oreshkin et al. 2018, TADAM; Lee et al. 2019, MetaOptNet)."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.blocks import Convolution, check_sizes
from fewshot_nsl.backbones.normalise import Normalise
from fewshot_nsl.errors import ConfigurationError

_SLOPE = 0.1


class ResNet12(Backbone):
    """Four residual blocks, a 2x2 max-pooling after each, and the mean over places.

    Widths are Lee et al.'s. They flatten the last map; the mean over places is Tian et al.'s (2020). There is no DropBlock, which both
    train with. At width 64 there are 12,424,320 parameters.

    Args:
        image_size: pixels on a side, at least 16.
        channels: of the images.
        width: filters of the first block, even; the others have 2.5, 5 and 10 times as many, and features number `10 * width`.
        mean: per channel, pixel units 0-255.
        std: per channel, pixel units 0-255.
        convolution: what the 3x3 convolutions are; a 1x1 kernel has no taps to compare, and is always `nn.Conv2d`.

    Raises:
        ConfigurationError: images too small to be halved four times, no filters, or an odd number.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        *,
        width: int = 64,
        mean: Sequence[float],
        std: Sequence[float],
        convolution: Convolution = nn.Conv2d,
    ) -> None:
        super().__init__()
        check_sizes("ResNet-12", image_size, width, halvings=4)
        if width % 2:
            raise ConfigurationError(f"ResNet-12's second block has 2.5 times its width: expected an even width, got {width}")
        self.normalise = Normalise(mean, std)
        sizes = [channels, width, 5 * width // 2, 5 * width, 10 * width]
        self.blocks = nn.Sequential(*(ResidualBlock(i, o, convolution) for i, o in pairwise(sizes)))
        self.features = 10 * width

    def forward(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of uint8 or floating images, 0-255."""
        return self.blocks(self.normalise(images)).mean((2, 3))


class ResidualBlock(nn.Module):
    """Three 3x3 convolutions, each with BN, beside a 1x1 convolution with BN; leaky ReLU of slope 0.1 between them and after the sum."""

    def __init__(self, in_channels: int, out_channels: int, convolution: Convolution) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            convolution(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(_SLOPE, inplace=True),
            convolution(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(_SLOPE, inplace=True),
            convolution(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.pool = nn.MaxPool2d(2)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h_out w_out"]:
        """Half the resolution, rounded down."""
        return self.pool(functional.leaky_relu(self.convolutions(input) + self.shortcut(input), _SLOPE))
