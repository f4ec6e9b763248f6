import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import CNN4, Backbone
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import StaticSimilarityConv2d


def _cnn4(size: int, channels: int = 3, width: int = 4) -> CNN4:
    return CNN4(size, channels, width=width, mean=[127.5] * channels, std=[64.0] * channels)


@pytest.mark.parametrize(("width", "parameters"), [(32, 28_768), (64, 112_832)])
def test_number_of_weights(width: int, parameters: int) -> None:
    backbone = _cnn4(32, width=width)
    assert isinstance(backbone, Backbone)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters


@pytest.mark.parametrize(
    ("size", "channels", "width", "features"), [(16, 3, 4, 4), (28, 1, 32, 32), (31, 3, 2, 2), (32, 3, 32, 128), (84, 3, 32, 800)]
)
def test_number_of_features(size: int, channels: int, width: int, features: int) -> None:
    backbone = _cnn4(size, channels, width).eval()
    assert backbone.features == features
    assert backbone(torch.zeros(2, channels, size, size, dtype=torch.uint8)).shape == (2, features)


def test_four_blocks_of_convolution_normalisation_relu_and_pooling() -> None:
    torch.manual_seed(0)
    backbone = _cnn4(16, width=5)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    hidden = (images.float() - 127.5) / 64
    for weight in (value for name, value in backbone.named_parameters() if name.endswith("0.weight")):
        hidden = nn.functional.conv2d(hidden, weight, padding=1)
        hidden = (hidden - hidden.mean((0, 2, 3), keepdim=True)) / (hidden.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
        hidden = nn.functional.max_pool2d(hidden.relu(), 2)
    torch.testing.assert_close(backbone.train()(images), hidden.flatten(1), rtol=1e-4, atol=1e-5)


def test_bytes_and_floats_of_the_same_pixels_give_the_same_features() -> None:
    backbone = CNN4(16, 1, width=4, mean=[100.0], std=[30.0]).eval()
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    assert torch.equal(backbone(images), backbone(images.float()))


def test_is_made_of_the_convolution_it_is_handed() -> None:
    made: list[tuple[object, ...]] = []

    def convolution(*arguments: int, **options: object) -> nn.Module:
        made.append((*arguments, options))
        return StaticSimilarityConv2d(*arguments, **options)  # type: ignore[arg-type]

    backbone = CNN4(16, 3, width=4, mean=[0.0] * 3, std=[1.0] * 3, convolution=convolution)
    assert made == [(i, 4, 3, {"padding": 1, "bias": False}) for i in (3, 4, 4, 4)]
    assert sum(isinstance(module, StaticSimilarityConv2d) for module in backbone.modules()) == 4
    assert backbone(torch.zeros(2, 3, 16, 16)).shape == (2, 4)


def test_features_of_an_image_do_not_depend_on_the_others_in_evaluation() -> None:
    torch.manual_seed(0)
    backbone = _cnn4(16).eval()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8))
    alone: list[Tensor] = [backbone(image[None])[0] for image in images]
    torch.testing.assert_close(torch.stack(alone), backbone(images))


@pytest.mark.parametrize(
    ("size", "width", "message"),
    [
        (15, 32, "CNN-4 halves its images four times: expected at least 16 pixels, got 15"),
        (32, 0, "CNN-4's width is its number of filters: expected at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(size: int, width: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _cnn4(size, width=width)
