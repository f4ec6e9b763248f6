"""CNN-4, the field's small backbone (Vinyals et al. 2016; Finn et al. 2017, with 32 filters; Liu et al. 2019, section 7.2)."""

from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.blocks import Convolution, check_sizes, stages
from fewshot_nsl.backbones.normalise import Normalise


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

    channels_apart = True

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
        check_sizes("CNN-4", image_size, width, halvings=4)
        self.normalise = Normalise(mean, std)
        self.blocks = stages(channels, 4 * [width], 4 * [1], convolution)
        self.map_shape = width, image_size // 16, image_size // 16
        self.features = width * (image_size // 16) ** 2

    def forward(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of uint8 or floating images, 0-255."""
        return self.blocks(self.normalise(images)).flatten(1)
