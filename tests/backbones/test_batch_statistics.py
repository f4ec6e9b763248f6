from typing import cast

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import BACKBONES, Backbone, with_batch_statistics
from fewshot_nsl.similarity import SpherePredictor, convert


def _backbone(name: str) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES[name](32, 3, width=4, mean=(120.0, 110.0, 100.0), std=(60.0, 61.0, 62.0))


def _images(seed: int = 0, n: int = 6) -> Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_computes_as_in_training_and_keeps_nothing(name: str, *, training: bool) -> None:
    backbone = _backbone(name)
    own = with_batch_statistics(backbone).train(training)
    before = {key: value.clone() for key, value in own.state_dict().items()}
    assert torch.equal(own(_images()), backbone.train()(_images()))
    assert all(torch.equal(value, before[key]) for key, value in own.state_dict().items())
    assert not [key for key in own.state_dict() if "running" in key or "tracked" in key]


def test_the_given_network_is_left_as_it_is() -> None:
    backbone = _backbone("cnn4")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    own = with_batch_statistics(backbone)
    own(_images())
    assert backbone.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert [name for name, _ in own.named_parameters()] == [name for name, _ in backbone.named_parameters()]
    assert own.features == backbone.features
    assert not {id(parameter) for parameter in own.parameters()} & {id(parameter) for parameter in backbone.parameters()}


def test_an_output_depends_on_the_other_images() -> None:
    own = with_batch_statistics(_backbone("cnn4")).eval()
    images, others = _images(), _images(1)
    mixed = torch.cat([images[:3], others[3:]])
    assert not torch.allclose(own(images)[:3], own(mixed)[:3], rtol=1e-2, atol=1e-2)


def test_predictors_of_dynamic_similarity_have_them_too() -> None:
    network = cast(Backbone, convert(_backbone("cnn4"), "dynamic"))
    for layer in network.modules():
        if isinstance(layer, SpherePredictor):
            nn.init.constant_(layer.gain, 0.5)
    own = with_batch_statistics(network).eval()
    assert torch.equal(own(_images()), network.train()(_images()))
    assert not [key for key in own.state_dict() if "running" in key]


def test_state_travels_to_another() -> None:
    own = with_batch_statistics(_backbone("cnn4"))
    torch.manual_seed(1)
    fresh = with_batch_statistics(BACKBONES["cnn4"](32, 3, width=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    fresh.load_state_dict(own.state_dict())
    assert torch.equal(fresh(_images()), own(_images()))
