import pytest
import torch
from torch import nn

from fewshot_nsl.backbones import CNN9, Backbone
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import StaticSimilarityConv2d, convert


def _cnn9(size: int, channels: int = 3, width: int = 4) -> CNN9:
    return CNN9(size, channels, width=width, mean=[127.5] * channels, std=[64.0] * channels)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("width", "plain", "dynamic"), [(32, 481_440, 662_961), (64, 1_921_344, 2_259_537)])
def test_number_of_weights(width: int, plain: int, dynamic: int) -> None:
    backbone = _cnn9(84, width=width)
    assert isinstance(backbone, Backbone)
    assert _count(backbone) == plain
    assert _count(convert(backbone, "dynamic", structure="diagonal")) == dynamic


def test_widths_nearest_to_the_rebuttals_25_4_million() -> None:
    with torch.device("meta"):
        counts = {}
        for width in range(192, 240, 8):
            backbone = _cnn9(84, width=width)
            alone = _count(convert(backbone, "dynamic", structure="diagonal"))
            counts[width] = (alone, alone + _count(nn.Linear(backbone.features, 64)))
    alone, whole = (min(counts, key=lambda width: abs(counts[width][part] - 25.4e6)) for part in (0, 1))
    assert (alone, counts[alone][0]) == (224, 24_619_377)
    assert (whole, counts[whole][1]) == (200, 24_857_913)


@pytest.mark.parametrize(("size", "channels", "features"), [(8, 3, 16), (15, 1, 16), (28, 1, 144), (32, 3, 256), (84, 3, 1600)])
def test_number_of_features(size: int, channels: int, features: int) -> None:
    backbone = _cnn9(size, channels).eval()
    assert backbone.features == features
    assert backbone(torch.zeros(2, channels, size, size, dtype=torch.uint8)).shape == (2, features)


def test_three_stages_of_three_convolutions_and_a_pooling() -> None:
    torch.manual_seed(0)
    backbone = _cnn9(17)
    images = torch.randint(0, 256, (4, 3, 17, 17), dtype=torch.uint8)
    hidden = (images.float() - 127.5) / 64
    weights = [layer.weight for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    assert [weight.shape[0] for weight in weights] == [4, 4, 4, 8, 8, 8, 16, 16, 16]
    for number, weight in enumerate(weights, 1):
        hidden = nn.functional.conv2d(hidden, weight, padding=1)
        hidden = (hidden - hidden.mean((0, 2, 3), keepdim=True)) / (hidden.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
        hidden = hidden.relu()
        if number % 3 == 0:
            hidden = nn.functional.max_pool2d(hidden, 2)
    torch.testing.assert_close(backbone.train()(images), hidden.flatten(1), rtol=1e-4, atol=1e-5)


def test_is_made_of_the_convolution_it_is_handed() -> None:
    backbone = CNN9(8, 1, width=2, mean=[0.0], std=[1.0], convolution=StaticSimilarityConv2d)
    assert sum(isinstance(module, StaticSimilarityConv2d) for module in backbone.modules()) == 9
    assert backbone(torch.zeros(2, 1, 8, 8)).shape == (2, 8)


@pytest.mark.parametrize(
    ("size", "width", "message"),
    [
        (7, 32, "CNN-9 halves its images three times: expected at least 8 pixels, got 7"),
        (32, 0, "CNN-9's width is its number of filters: expected at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(size: int, width: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _cnn9(size, width=width)
