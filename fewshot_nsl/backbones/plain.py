"""The plain nets of generic recognition (Liu et al. 2019, section 7.1)."""

from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.blocks import Convolution, block, check_sizes, stages
from fewshot_nsl.backbones.normalise import Normalise


class PlainCIFAR(Backbone):
    """The net of the authors' CIFAR code: a root block, then three stages of three blocks, a 2x2 max-pooling after each; flattened.

    A block is a 3x3 convolution, BN and ReLU. The authors' classifier, a 4x4 convolution without padding, is `nn.Linear` on the flattened
    4x4 map of a 32x32 image (theirs has no bias). They leave the root plain: `convert(..., where=lambda name, _: name != "root.0")`. At
    width 32 there are 490,720 parameters, and 20,480 in their classifier of CIFAR-10.

    Args:
        image_size: pixels on a side, at least 8; features number `4 * width * (image_size // 8) ** 2`.
        channels: of the images.
        width: filters of the root and of the first stage, 32 in the authors' code; the others have 2 and 4 times as many.
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
        check_sizes("plain-cifar", image_size, width, halvings=3)
        self.normalise = Normalise(mean, std)
        self.root = nn.Sequential(*block(channels, width, convolution))
        self.blocks = stages(width, [width, 2 * width, 4 * width], [3, 3, 3], convolution)
        self.features = 4 * width * (image_size // 8) ** 2

    def forward(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of uint8 or floating images, 0-255."""
        return self.blocks(self.root(self.normalise(images))).flatten(1)


class PlainImageNet(Backbone):
    """A VGG-like net of ten layers: nine blocks in stages of 2, 1, 3 and 3, a 2x2 max-pooling after each, and the mean over places.

    A block is a 3x3 convolution, BN and ReLU; the tenth layer is the linear classifier. The paper gives no more than "VGG-like 10-layer
    plain CNN" and 8.00 M parameters: the widths are VGG's (Simonyan and Zisserman 2015), the mean over places is He et al.'s (2016), and
    the depths are those that come to 8.00 M. All of this is inferred. At width 64 there are 7,490,240 parameters, 8,003,240 with a linear
    classifier of 1000 classes.

    Args:
        image_size: pixels on a side, at least 16; 224 for ImageNet.
        channels: of the images.
        width: filters of the first stage; the others have 2, 4 and 8 times as many, and features number `8 * width`.
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
        check_sizes("plain-imagenet", image_size, width, halvings=4)
        self.normalise = Normalise(mean, std)
        self.blocks = stages(channels, [width, 2 * width, 4 * width, 8 * width], [2, 1, 3, 3], convolution)
        self.features = 8 * width

    def forward(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of uint8 or floating images, 0-255."""
        return self.blocks(self.normalise(images)).mean((2, 3))
