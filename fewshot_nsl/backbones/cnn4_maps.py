"""CNN-4 whose last two blocks do not pool, for what compares maps (Sung et al. 2018, figure 2)."""

from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.blocks import Convolution, block, check_sizes, stage
from fewshot_nsl.backbones.normalise import Normalise


class CNN4Maps(Backbone):
    """Four blocks of 3x3 convolution, BN and ReLU, the first two with 2x2 max-pooling, flattened.

    All convolutions keep the size of their input; those of Sung et al.'s first two blocks lose a rim of one pixel.

    Args:
        image_size: pixels on a side, at least 16: what follows halves twice more.
        channels: of the images.
        width: filters of every block; 64 in RelationNet.
        mean: per channel, pixel units 0-255.
        std: per channel, pixel units 0-255.
        convolution: what the blocks are made of.

    Raises:
        ConfigurationError: images too small to be halved four times, or no filters.
    """

    channels_apart = True

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
        check_sizes("CNN-4 of maps", image_size, width, halvings=4)
        self.normalise = Normalise(mean, std)
        self.blocks = nn.Sequential(
            stage(channels, width, 1, convolution),
            stage(width, width, 1, convolution),
            nn.Sequential(*block(width, width, convolution)),
            nn.Sequential(*block(width, width, convolution)),
        )
        self.map_shape = width, image_size // 4, image_size // 4
        self.features = width * (image_size // 4) ** 2

    def forward(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of uint8 or floating images, 0-255."""
        return self.blocks(self.normalise(images)).flatten(1)
