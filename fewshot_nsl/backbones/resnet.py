"""ResNet-18 and ResNet-50 (He et al. 2016), with torchvision's layout and names."""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.blocks import Convolution, check_width
from fewshot_nsl.backbones.normalise import Normalise
from fewshot_nsl.errors import ConfigurationError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: `[n, c, h, w]` to `[n, width, h / stride, w / stride]`, rounded up."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, convolution: Convolution) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h_out w_out"]:
        """ReLU of the sum."""
        hidden = self.relu(self.bn1(self.conv1(input)))
        return self.relu(self.bn2(self.conv2(hidden)) + self.downsample(input))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside a shortcut: `[n, c, h, w]` to `[n, 4 * width, h / stride, w / stride]`, rounded up.

    The stride is that of the 3x3 convolution, as in torchvision ("v1.5"); He et al. have it in the first.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, convolution: Convolution) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, 4 * width, stride)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h_out w_out"]:
        """ReLU of the sum."""
        hidden = self.relu(self.bn1(self.conv1(input)))
        hidden = self.relu(self.bn2(self.conv2(hidden)))
        return self.relu(self.bn3(self.conv3(hidden)) + self.downsample(input))


class ResNet(Backbone):
    """A 7x7 convolution of stride 2 and a 3x3 max-pooling of stride 2, four stages of residual blocks, and the mean over places.

    Subclasses say how many blocks, and which. Parameters and buffers have torchvision's names, but for `normalise`, and but for `fc`, which
    is not here: `backbone.load_state_dict(weights, strict=False)` takes torchvision's weights, with mean (123.675, 116.28, 103.53) and std
    (58.395, 57.12, 57.375) in units 0-255.

    Args:
        image_size: pixels on a side, at least 17: the last stage has nothing left to halve in smaller ones.
        channels: of the images.
        width: filters of the stem and of the first stage, 64 in the paper; the others have 2, 4 and 8 times as many.
        mean: per channel, pixel units 0-255.
        std: per channel, pixel units 0-255.
        convolution: what the 7x7 and 3x3 convolutions are; a 1x1 kernel has no taps to compare, and is always `nn.Conv2d`.

    Raises:
        ConfigurationError: images too small to be halved five times, or no filters.
    """

    title: ClassVar[str]
    block: ClassVar[type[BasicBlock | Bottleneck]]
    depths: ClassVar[tuple[int, int, int, int]]

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
        if image_size < 17:
            raise ConfigurationError(
                f"{self.title} halves its images five times, rounded up: expected at least 17 pixels, got {image_size}"
            )
        check_width(self.title, width)
        self.normalise = Normalise(mean, std)
        self.conv1 = convolution(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(width, width, self.depths[0], 1, convolution)
        self.layer2 = self._stage(width * self.block.expansion, 2 * width, self.depths[1], 2, convolution)
        self.layer3 = self._stage(2 * width * self.block.expansion, 4 * width, self.depths[2], 2, convolution)
        self.layer4 = self._stage(4 * width * self.block.expansion, 8 * width, self.depths[3], 2, convolution)
        self.features = 8 * width * self.block.expansion

    def forward(self, images: Shaped[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of uint8 or floating images, 0-255."""
        hidden = self.maxpool(self.relu(self.bn1(self.conv1(self.normalise(images)))))
        return self.layer4(self.layer3(self.layer2(self.layer1(hidden)))).mean((2, 3))

    def _stage(self, in_channels: int, width: int, depth: int, stride: int, convolution: Convolution) -> nn.Sequential:
        first = self.block(in_channels, width, stride, convolution)
        rest = (self.block(width * self.block.expansion, width, 1, convolution) for _ in range(depth - 1))
        return nn.Sequential(first, *rest)


class ResNet18(ResNet):
    """`ResNet` of 2, 2, 2, 2 basic blocks: 512 features, 11,176,512 parameters at width 64, 11,689,512 with a classifier of 1000."""

    title = "ResNet-18"
    block = BasicBlock
    depths = (2, 2, 2, 2)


class ResNet50(ResNet):
    """`ResNet` of 3, 4, 6, 3 bottlenecks: 2048 features, 23,508,032 parameters at width 64, 25,557,032 with a classifier of 1000."""

    title = "ResNet-50"
    block = Bottleneck
    depths = (3, 4, 6, 3)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The identity where sizes are equal: an empty module, which has no names of its own, as torchvision's None."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels))
