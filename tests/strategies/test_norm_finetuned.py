import pytest
from torch import nn

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies import NormFinetuned


def test_scale_and_shift_of_every_bn_move_and_no_filter(backbone: Backbone) -> None:
    moving = NormFinetuned(backbone).moving()
    assert moving.keys() == {f"blocks.{i}.1.{name}" for i in range(4) for name in ("weight", "bias")}
    assert all(value.shape == (6,) for value in moving.values())


def test_a_network_without_bn_is_refused() -> None:
    class Bare(Backbone):
        features = 4

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False))

    with pytest.raises(ConfigurationError, match=r"^Bare has no BN of which scale and shift could move; use strategy finetuned$"):
        NormFinetuned(Bare())
