from typing import Any

import pytest
import torch
from torch import nn

from fewshot_nsl.backbones import CNN4, CNN9, CNN4Maps
from fewshot_nsl.errors import ConfigurationError

CHANNELS: dict[str, Any] = {"mean": (120.0, 110.0, 100.0), "std": (60.0, 50.0, 70.0)}


@pytest.mark.parametrize(("size", "side"), [(84, 21), (32, 8), (16, 4), (19, 4)])
def test_features_are_a_map_a_quarter_as_large(size: int, side: int) -> None:
    backbone = CNN4Maps(size, 3, width=5, **CHANNELS).eval()
    assert backbone.map_shape == (5, side, side)
    assert backbone(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)).shape == (2, backbone.features)
    assert backbone.features == 5 * side * side


def test_it_is_four_blocks_by_hand() -> None:
    torch.manual_seed(0)
    backbone = CNN4Maps(16, 3, width=4, **CHANNELS).double().eval()
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    layers = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    maps = backbone.normalise(images)
    for number, layer in enumerate(layers):
        maps = torch.relu(layer(maps) / torch.tensor(1 + 1e-5).double().sqrt())  # fresh BN
        maps = torch.max_pool2d(maps, 2) if number < 2 else maps
    torch.testing.assert_close(backbone(images), maps.flatten(1))


def test_it_has_the_weights_of_cnn4() -> None:
    shapes = [[value.shape for value in net(32, 3, width=6, **CHANNELS).parameters()] for net in (CNN4, CNN4Maps)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("net", [CNN4, CNN9, CNN4Maps])
@pytest.mark.parametrize("size", [32, 84])
def test_features_of_the_plain_nets_are_the_map_that_they_say(net: type[CNN4 | CNN9 | CNN4Maps], size: int) -> None:
    backbone = net(size, 3, width=2, **CHANNELS).eval()
    images = torch.zeros(1, 3, size, size)
    assert backbone.blocks(backbone.normalise(images)).shape[1:] == backbone.map_shape


@pytest.mark.parametrize(("size", "width", "message"), [(15, 4, "CNN-4 of maps halves its images four"), (16, 0, "at least 1, got 0")])
def test_sizes_it_cannot_have_are_refused(size: int, width: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CNN4Maps(size, 3, width=width, **CHANNELS)
