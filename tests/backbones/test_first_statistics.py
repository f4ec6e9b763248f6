import copy
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import BACKBONES, Backbone, with_batch_statistics, with_first_statistics
from fewshot_nsl.backbones.first_statistics import normalise_by_first
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import SpherePredictor, convert, share_predictors

FIRST = 4
EVERY = pytest.mark.parametrize("name", BACKBONES)
KINDS = pytest.mark.parametrize("kind", ["plain", "static", "dynamic", "dynamic, shared", "dynamic, cnn-normalised"])


def _images(seed: int = 0, n: int = 7) -> Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _backbone(name: str = "cnn4", kind: str = "plain") -> Backbone:
    """With lines that fall, and similarity away from the identity."""
    torch.manual_seed(0)
    network: nn.Module = BACKBONES[name](32, 3, width=4, mean=(120.0, 110.0, 100.0), std=(60.0, 61.0, 62.0)).double()
    similarity, _, variant = kind.partition(", ")
    if similarity != "plain":
        network = convert(network, similarity, predictor=variant if variant.startswith("cnn") else "sphere")
    if variant == "shared":
        network = share_predictors(network, _images())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        for layer in network.modules():
            if isinstance(layer, SpherePredictor):
                nn.init.constant_(layer.gain, 0.5)
            if isinstance(layer, nn.BatchNorm2d) and layer.affine:
                nn.init.normal_(layer.weight)
    return cast(Backbone, network)


def _by_running_statistics(network: Backbone, images: Tensor) -> Tensor:
    """The slow way: what the first images have at every BN becomes its running statistics, one BN after the other, then all are used."""
    network = copy.deepcopy(network).eval()
    for layer in [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]:
        seen: list[Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        network(images[:FIRST])
        hook.remove()
        (maps,) = seen
        values = maps.transpose(0, 1).flatten(1)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(values.mean(1))
        layer.running_var.copy_(values.var(1, correction=0))
    features: Tensor = network(images)
    return features


@torch.no_grad()
@EVERY
def test_every_backbone_normalises_by_the_first_images(name: str) -> None:
    network = _backbone(name)
    found = with_first_statistics(with_batch_statistics(network), FIRST)(_images())
    torch.testing.assert_close(found, _by_running_statistics(network, _images()), rtol=1e-9, atol=1e-9)


@torch.no_grad()
@KINDS
def test_similarity_of_every_kind_does_too(kind: str) -> None:
    network = _backbone(kind=kind)
    found = with_first_statistics(with_batch_statistics(network), FIRST)(_images())
    torch.testing.assert_close(found, _by_running_statistics(network, _images()), rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("count", [FIRST, FIRST + 3])
@KINDS
def test_where_there_are_no_others_these_are_batch_statistics(kind: str, count: int) -> None:
    network = with_batch_statistics(_backbone(kind=kind))
    images = _images(n=FIRST)
    torch.testing.assert_close(with_first_statistics(network, count)(images), network(images), rtol=1e-12, atol=1e-12)


@torch.no_grad()
@EVERY
def test_an_output_depends_on_the_first_images_and_on_no_other(name: str) -> None:
    network = with_first_statistics(with_batch_statistics(_backbone(name)), FIRST)
    images, others = _images(), _images(1)
    after = network(torch.cat([images[:5], others[5:]]))
    torch.testing.assert_close(after[:5], network(images)[:5], rtol=1e-9, atol=1e-9)
    before = network(torch.cat([others[:1], images[1:]]))
    assert not torch.allclose(before[5:], network(images)[5:], rtol=1e-3, atol=1e-3)


@KINDS
def test_the_tensors_are_the_networks_own_under_their_names(kind: str) -> None:
    network = with_batch_statistics(_backbone(kind=kind))
    modules = dict(network.named_modules())
    view = with_first_statistics(network, FIRST)
    assert type(view) is type(network)
    assert dict(network.named_modules()) == modules
    for theirs, mine in ((network.named_parameters(), view.named_parameters()), (network.named_buffers(), view.named_buffers())):
        assert {name: id(value) for name, value in theirs} == {name: id(value) for name, value in mine}


@torch.no_grad()
@pytest.mark.parametrize("count", [FIRST, 7])
def test_running_statistics_stay(count: int) -> None:
    network = _backbone().eval()
    assert torch.equal(with_first_statistics(network, count)(_images()), network(_images()))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with_first_statistics(network.train(), count)(_images())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("affine", [True, False])
def test_gradients_go_through_the_statistics(*, affine: bool) -> None:
    random = torch.Generator().manual_seed(2)
    images = torch.randn(5, 3, 2, 2, dtype=torch.float64, generator=random, requires_grad=True)
    line = [torch.randn(3, dtype=torch.float64, generator=random, requires_grad=True) for _ in range(2)] if affine else []

    def run(images: Tensor, *line: Tensor) -> Tensor:
        weight, bias = line or (None, None)
        return normalise_by_first(images, 2, weight, bias, 1e-5)

    assert torch.autograd.gradcheck(run, (images, *line))
    assert torch.autograd.gradgradcheck(run, (images, *line))


def test_statistics_of_half_precision_are_of_all_their_digits() -> None:
    images = 200 + torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    half = images.bfloat16()
    found = normalise_by_first(half, 4, None, None, 1e-5)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, normalise_by_first(half.float(), 4, None, None, 1e-5).bfloat16())


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)])
def test_another_batch_norm_is_refused(layer: nn.Module) -> None:
    message = (
        f"^the statistics of {type(layer).__name__} cannot be those of the supports alone: expected one of BatchNorm2d, NormReluPool2d; "
        f"use the transductive setting"
    )
    with pytest.raises(ConfigurationError, match=message):
        with_first_statistics(nn.Sequential(nn.ReLU(), layer), FIRST)
    assert with_first_statistics(nn.Sequential(nn.ReLU(), layer).eval(), FIRST)[1] is layer
