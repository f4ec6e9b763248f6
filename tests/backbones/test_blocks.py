import pytest
import torch
from torch import nn

from fewshot_nsl.backbones.blocks import block, check_sizes, stage, stages
from fewshot_nsl.errors import ConfigurationError


def test_a_block_is_convolution_normalisation_and_relu() -> None:
    convolution, norm, relu = block(3, 5, nn.Conv2d)
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.weight.shape == (5, 3, 3, 3)
    assert convolution.bias is None
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(relu, nn.ReLU)


@pytest.mark.parametrize("size", [8, 9])
def test_a_stage_is_blocks_and_one_pooling(size: int) -> None:
    layers = stage(3, 5, 2, nn.Conv2d)
    assert [type(layer).__name__ for layer in layers] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "NormReluPool2d"]
    assert {name.split(".")[0] for name in layers.state_dict()} == {"0", "1", "3", "4"}  # as of plain layers, one after another
    assert layers(torch.zeros(2, 3, size, size)).shape == (2, 5, 4, 4)


def test_each_stage_takes_what_the_one_before_it_gives() -> None:
    net = stages(1, [4, 6], [1, 2], nn.Conv2d)
    assert [tuple(layer.weight.shape[:2]) for layer in net.modules() if isinstance(layer, nn.Conv2d)] == [(4, 1), (6, 4), (6, 6)]
    assert net(torch.zeros(2, 1, 12, 12)).shape == (2, 6, 3, 3)


def test_a_depth_is_needed_for_every_width() -> None:
    with pytest.raises(ValueError, match="zip"):
        stages(1, [4, 6], [1], nn.Conv2d)


def test_sizes_are_checked() -> None:
    check_sizes("net", 8, 1, halvings=3)
    with pytest.raises(ConfigurationError, match="net halves its images three times: expected at least 8 pixels, got 7"):
        check_sizes("net", 7, 1, halvings=3)
    with pytest.raises(ConfigurationError, match="net's width is its number of filters: expected at least 1, got 0"):
        check_sizes("net", 8, 0, halvings=3)
