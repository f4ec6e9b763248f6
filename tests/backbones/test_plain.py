import pytest
import torch
from torch import nn

from fewshot_nsl.backbones import Backbone, PlainCIFAR, PlainImageNet
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import DynamicSimilarityConv2d, StaticSimilarityConv2d, convert

Plain = type[PlainCIFAR] | type[PlainImageNet]


def _net(plain: Plain, size: int, channels: int = 3, width: int = 4) -> PlainCIFAR | PlainImageNet:
    return plain(size, channels, width=width, mean=[127.5] * channels, std=[64.0] * channels)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_number_of_weights() -> None:
    cifar = PlainCIFAR(32, 3, mean=[0.0] * 3, std=[1.0] * 3)
    assert isinstance(cifar, Backbone)
    assert _count(cifar) == 490_720
    assert _count(nn.Linear(cifar.features, 10, bias=False)) == _count(nn.Conv2d(128, 10, 4, bias=False)) == 20_480
    imagenet = PlainImageNet(224, 3, mean=[0.0] * 3, std=[1.0] * 3)
    assert isinstance(imagenet, Backbone)
    assert _count(imagenet) == 7_490_240
    assert _count(imagenet) + _count(nn.Linear(imagenet.features, 1000)) == 8_003_240


@pytest.mark.parametrize(
    ("plain", "widths"),
    [
        (PlainCIFAR, [4, 4, 4, 4, 8, 8, 8, 16, 16, 16]),
        (PlainImageNet, [4, 4, 8, 16, 16, 16, 32, 32, 32]),
    ],
)
def test_filters_of_the_convolutions(plain: Plain, widths: list[int]) -> None:
    layers = [layer for layer in _net(plain, 32).modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == widths
    assert {layer.kernel_size for layer in layers} == {(3, 3)}


@pytest.mark.parametrize(
    ("plain", "size", "channels", "features"),
    [
        (PlainCIFAR, 8, 3, 16),
        (PlainCIFAR, 28, 1, 144),
        (PlainCIFAR, 32, 3, 256),
        (PlainImageNet, 16, 3, 32),
        (PlainImageNet, 28, 1, 32),
        (PlainImageNet, 64, 3, 32),
    ],
)
def test_number_of_features(plain: Plain, size: int, channels: int, features: int) -> None:
    backbone = _net(plain, size, channels).eval()
    assert backbone.features == features
    assert backbone(torch.zeros(2, channels, size, size, dtype=torch.uint8)).shape == (2, features)


def test_the_authors_classifier_is_a_linear_layer_on_the_features() -> None:
    torch.manual_seed(0)
    backbone = _net(PlainCIFAR, 32).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    classifier = nn.Linear(backbone.features, 10, bias=False)
    maps = backbone.blocks(backbone.get_submodule("root")(backbone.normalise(images)))
    assert maps.shape == (2, 16, 4, 4)
    expected = nn.functional.conv2d(maps, classifier.weight.view(10, 16, 4, 4)).flatten(1)
    torch.testing.assert_close(classifier(backbone(images)), expected)


def test_imagenet_features_are_means_over_places() -> None:
    torch.manual_seed(0)
    backbone = _net(PlainImageNet, 48).eval()
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    maps = backbone.blocks(backbone.normalise(images))
    assert maps.shape == (2, 32, 3, 3)
    torch.testing.assert_close(backbone(images), maps.flatten(2).mean(2))


def test_the_root_can_be_left_plain() -> None:
    model = convert(_net(PlainCIFAR, 8), "dynamic", where=lambda name, _: name != "root.0")
    assert type(model.get_submodule("root.0")) is nn.Conv2d
    assert sum(isinstance(module, DynamicSimilarityConv2d) for module in model.modules()) == 9


@pytest.mark.parametrize(("plain", "convolutions"), [(PlainCIFAR, 10), (PlainImageNet, 9)])
def test_is_made_of_the_convolution_it_is_handed(plain: Plain, convolutions: int) -> None:
    backbone = plain(16, 1, width=2, mean=[0.0], std=[1.0], convolution=StaticSimilarityConv2d)
    assert sum(isinstance(module, StaticSimilarityConv2d) for module in backbone.modules()) == convolutions


@pytest.mark.parametrize(
    ("plain", "size", "width", "message"),
    [
        (PlainCIFAR, 7, 32, "plain-cifar halves its images three times: expected at least 8 pixels, got 7"),
        (PlainCIFAR, 32, 0, "plain-cifar's width is its number of filters: expected at least 1, got 0"),
        (PlainImageNet, 15, 64, "plain-imagenet halves its images four times: expected at least 16 pixels, got 15"),
        (PlainImageNet, 32, 0, "plain-imagenet's width is its number of filters: expected at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(plain: Plain, size: int, width: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _net(plain, size, width=width)
