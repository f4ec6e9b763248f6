import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import Backbone, ResNet12
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import StaticSimilarityConv2d


def _resnet12(size: int, channels: int = 3, width: int = 2) -> ResNet12:
    return ResNet12(size, channels, width=width, mean=[127.5] * channels, std=[64.0] * channels)


def test_number_of_weights() -> None:
    backbone = _resnet12(84, width=64)
    assert isinstance(backbone, Backbone)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 12_424_320
    widths = [layer.out_channels for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == 4 * [64] + 4 * [160] + 4 * [320] + 4 * [640]


@pytest.mark.parametrize(("size", "channels", "width"), [(16, 3, 2), (28, 1, 4), (32, 3, 2), (84, 3, 2)])
def test_number_of_features(size: int, channels: int, width: int) -> None:
    backbone = _resnet12(size, channels, width).eval()
    assert backbone.features == 10 * width
    assert backbone(torch.zeros(2, channels, size, size, dtype=torch.uint8)).shape == (2, 10 * width)


def test_four_residual_blocks() -> None:
    torch.manual_seed(0)
    backbone = _resnet12(36)
    images = torch.randint(0, 256, (4, 3, 36, 36), dtype=torch.uint8)

    def normed(hidden: Tensor, weight: Tensor) -> Tensor:
        hidden = functional.conv2d(hidden, weight, padding=weight.shape[-1] // 2)
        return (hidden - hidden.mean((0, 2, 3), keepdim=True)) / (hidden.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()

    weights = [layer.weight for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    hidden = (images.float() - 127.5) / 64
    for first, second, third, shortcut in zip(*(weights[i::4] for i in range(4)), strict=True):
        residual = functional.leaky_relu(normed(hidden, first), 0.1)
        residual = functional.leaky_relu(normed(residual, second), 0.1)
        hidden = functional.leaky_relu(normed(residual, third) + normed(hidden, shortcut), 0.1)
        hidden = functional.max_pool2d(hidden, 2)
    assert hidden.shape == (4, 20, 2, 2)
    torch.testing.assert_close(backbone.train()(images), hidden.mean((2, 3)), rtol=1e-4, atol=1e-4)


def test_its_3x3_convolutions_are_what_it_is_handed() -> None:
    backbone = ResNet12(16, 1, width=2, mean=[0.0], std=[1.0], convolution=StaticSimilarityConv2d)
    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    assert [(type(layer), layer.kernel_size) for layer in layers] == 4 * (3 * [(StaticSimilarityConv2d, (3, 3))] + [(nn.Conv2d, (1, 1))])


@pytest.mark.parametrize(
    ("size", "width", "message"),
    [
        (15, 64, "ResNet-12 halves its images four times: expected at least 16 pixels, got 15"),
        (32, 0, "ResNet-12's width is its number of filters: expected at least 1, got 0"),
        (32, 7, "ResNet-12's second block has 2.5 times its width: expected an even width, got 7"),
    ],
)
def test_impossible_sizes_are_refused(size: int, width: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _resnet12(size, width=width)
