from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone, as_backbone
from fewshot_nsl.backbones.as_backbone import PIXELS_AT_ONCE
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch, EpisodeDataset, EpisodeSampler
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.evaluate import evaluate, read_images
from fewshot_nsl.strategies import (
    CosineClassifier,
    Finetuned,
    NearestMean,
    NearestNeighbour,
    RetrainedClassifier,
    RidgeClassifier,
    SimpleShot,
    predict,
)

CPU = torch.device("cpu")
MEAN, STD = (10.0, 120.0, 200.0), (3.0, 64.0, 50.0)


class Seen(nn.Module):
    """Gives its input back, flat, and counts its calls."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images.flatten(1)


def _net() -> nn.Module:
    """Colours and edges, at random."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*layers)


def _images(size: int, channels: int = 3, n: int = 2) -> Tensor:
    return torch.randint(0, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_a_module_gets_images_as_it_was_trained() -> None:
    images = _images(6)
    backbone = as_backbone(Seen(), features=108, mean=MEAN, std=STD)
    assert isinstance(backbone, Backbone)
    assert backbone.features == 108
    expected = (images.numpy() - np.array(MEAN).reshape(3, 1, 1)) / np.array(STD).reshape(3, 1, 1)
    np.testing.assert_allclose(backbone(images).view(2, 3, 6, 6).numpy(), expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(backbone(images.float()), backbone(images))


@pytest.mark.parametrize(("size", "wanted"), [(32, 8), (20, 48)])
def test_images_are_resized_as_pillow_does(size: int, wanted: int) -> None:
    # Pillow's bilinear filter is antialiased; it works on float images too.
    image = _images(size, n=1)
    backbone = as_backbone(Seen(), features=3 * wanted**2, mean=[0.0] * 3, std=[1.0] * 3, image_size=wanted)
    found = backbone(image).view(3, wanted, wanted).numpy()
    for channel, pixels in zip(found, image[0].numpy(), strict=True):
        expected = Image.fromarray(pixels.astype(np.float32)).resize((wanted, wanted), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(channel, np.asarray(expected), rtol=1e-4, atol=1e-2)


def test_images_of_the_right_size_stay_as_they_are() -> None:
    images = _images(8)
    kept = as_backbone(Seen(), features=192, mean=MEAN, std=STD, image_size=8)
    assert torch.equal(kept(images), as_backbone(Seen(), features=192, mean=MEAN, std=STD)(images))


def test_grey_images_are_given_to_every_channel() -> None:
    images = _images(4, channels=1)
    backbone = as_backbone(Seen(), features=48, mean=MEAN, std=STD)
    assert torch.equal(backbone(images), backbone(images.expand(2, 3, 4, 4)))


def test_many_enlarged_images_are_encoded_some_at_a_time_and_a_batch_in_training_whole() -> None:
    module = Seen()
    backbone = as_backbone(module, features=3 * 128**2, mean=MEAN, std=STD, image_size=128).eval()
    images = _images(4, n=PIXELS_AT_ONCE // 128**2 + 1)
    together = backbone(images)
    assert module.calls == 2
    torch.testing.assert_close(together[-1:], backbone(images[-1:]))
    module.calls = 0
    backbone.train()(images)
    assert module.calls == 1


def test_the_module_keeps_its_weights_and_precision() -> None:
    net = _net().double()
    backbone = as_backbone(net, features=64, mean=MEAN, std=STD)
    assert backbone.module is net
    features = backbone.eval()(_images(16))
    assert features.dtype == torch.float64
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close(features, net((_images(16) - mean) / std))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": (0.2, 0.2, 0.2)}, r"std is in pixel units, 0-255, got 0\.2; multiply mean and std by 255$"),
        ({"std": (50.0,)}, "expected a mean and a std for each channel, got 3 and 1$"),
        ({"mean": (), "std": ()}, "expected a mean and a std for each channel, got 0 and 0$"),
        ({"features": 0}, "expected at least 1 feature and an image size of at least 1, got 0 and None$"),
        ({"image_size": 0}, "expected at least 1 feature and an image size of at least 1, got 64 and 0$"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"features": 64, "mean": MEAN, "std": STD}
    with pytest.raises(ConfigurationError, match=f"^as_backbone: {message}"):
        as_backbone(_net(), **arguments | changes)


def test_a_module_that_gives_something_else_than_features_is_refused() -> None:
    maps = as_backbone(nn.Conv2d(3, 8, 3), features=8, mean=MEAN, std=STD)
    with pytest.raises(ConfigurationError, match=r"^Conv2d is to give features \[2, 8\], got \[2, 8, 4, 4\]; pool and flatten .*$"):
        maps(_images(6))
    several = as_backbone(nn.AdaptiveMaxPool2d(1, return_indices=True), features=3, mean=MEAN, std=STD)
    with pytest.raises(ConfigurationError, match=r"^AdaptiveMaxPool2d is to give features \[2, 3\], got tuple; pool and flatten .*$"):
        several(_images(6))


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^Sequential takes images of 3 channels, got 4; give as_backbone a mean and a std .*$"):
        as_backbone(_net(), features=64, mean=MEAN, std=STD)(_images(8, channels=4))


@pytest.mark.parametrize("kind", [NearestMean, NearestNeighbour, CosineClassifier, RetrainedClassifier, RidgeClassifier, SimpleShot])
def test_strategies_on_frozen_features_are_evaluated_on_it(tiny_store: ImageStore, kind: type[NearestMean]) -> None:
    backbone = as_backbone(_net(), features=64, mean=tiny_store.mean, std=tiny_store.std, image_size=24)
    strategy = kind(backbone)
    if isinstance(strategy, SimpleShot):
        strategy.learn_base(read_images(tiny_store, np.array(tiny_store.splits["train"]), CPU))
    sampler = EpisodeSampler(tiny_store.split_labels("test"), n_way=3, n_shot=5, n_query=5, seed=0)
    accuracies = evaluate(strategy, tiny_store, sampler, 20, CPU)
    assert accuracies.shape == (20,)
    assert accuracies.mean() > 0.8  # chance is a third


def test_a_network_that_is_finetuned_may_be_brought_too(tiny_store: ImageStore) -> None:
    backbone = as_backbone(_net(), features=64, mean=tiny_store.mean, std=tiny_store.std, image_size=24)
    sampler = EpisodeSampler(tiny_store.split_labels("test"), n_way=3, n_shot=5, n_query=5, seed=0)
    batch: EpisodeBatch = EpisodeDataset(tiny_store, sampler, episodes=2, tasks=2)[0]
    before = [value.clone() for value in backbone.state_dict().values()]
    predicted = predict(Finetuned(backbone, steps=2), batch).argmax(-1)
    assert (predicted == batch.query_labels).double().mean() > 0.8
    assert all(torch.equal(value, old) for value, old in zip(backbone.state_dict().values(), before, strict=True))
