"""CNN-9, the plain net of nine convolutions of the paper's strongest few-shot rows (Liu et al. 2019, section 7.2)."""

from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.blocks import Convolution, check_sizes, stages
from fewshot_nsl.backbones.normalise import Normalise


class CNN9(Backbone):
    """Three stages of three blocks of 3x3 convolution, BN and ReLU; a 2x2 max-pooling after each stage; flattened.

    The paper says "VGG-like", 3x3 and nine. The stages, their widths and the flattening are inferred, from the authors' CIFAR code.

    At width 32 there are 481,440 parameters, 662,961 with dynamic diagonal similarity. The authors' rebuttal counts about 25.4 M with
    dynamic similarity. On 84x84 images that is nearest to width 200 with the linear classifier of 64 classes (24,857,913), and to width
    224 without it (24,619,377).

    Args:
        image_size: pixels on a side, at least 8; features number `4 * width * (image_size // 8) ** 2`.
        channels: of the images.
        width: filters of the first stage; the others have 2 and 4 times as many.
        mean: per channel, pixel units 0-255.
        std: per channel, pixel units 0-255.
        convolution: what the blocks are made of.

    Raises:
        ConfigurationError: images too small to be halved three times, or no filters.
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
        check_sizes("CNN-9", image_size, width, halvings=3)
        self.normalise = Normalise(mean, std)
        self.blocks = stages(channels, [width, 2 * width, 4 * width], [3, 3, 3], convolution)
        self.map_shape = 4 * width, image_size // 8, image_size // 8
        self.features = 4 * width * (image_size // 8) ** 2

    def forward(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of uint8 or floating images, 0-255."""
        return self.blocks(self.normalise(images)).flatten(1)
