import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import DataError
from fewshot_nsl.strategies import FeatureStrategy, LearnsBase, NearestMean, SimpleShot


@pytest.fixture
def strategy(backbone: Backbone, base_images: Tensor) -> SimpleShot:
    strategy = SimpleShot(backbone)
    strategy.learn_base(base_images.split(32))
    return strategy


def test_features_are_centred_by_the_base_images_and_scaled(
    strategy: SimpleShot, backbone: Backbone, base_images: Tensor, batch: EpisodeBatch
) -> None:
    with torch.no_grad():
        base = np.stack([backbone(image[None])[0].numpy() for image in base_images])
        raw = backbone(batch.query[0]).numpy()
    centred = raw - base.mean(0)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    features = strategy.encode(batch.query[0])
    assert not features.requires_grad
    np.testing.assert_allclose(features.numpy(), expected, rtol=1e-9, atol=1e-10)


def test_batches_may_be_of_any_size(strategy: SimpleShot, backbone: Backbone, base_images: Tensor, batch: EpisodeBatch) -> None:
    other = SimpleShot(backbone)
    other.learn_base(iter(base_images.split([1, 70, 9])))
    torch.testing.assert_close(other.encode(batch.query[0]), strategy.encode(batch.query[0]), rtol=1e-10, atol=1e-10)


def test_base_images_that_are_seen_later_take_the_place_of_the_first(
    strategy: SimpleShot, base_images: Tensor, batch: EpisodeBatch
) -> None:
    before = strategy.encode(batch.query[0])
    strategy.learn_base([base_images[:20]])
    assert not torch.allclose(strategy.encode(batch.query[0]), before, atol=1e-3)
    strategy.learn_base(base_images.split(32))
    assert torch.equal(strategy.encode(batch.query[0]), before)


@pytest.mark.parametrize("shots", [(1, 1, 1), (4, 4, 4), (5, 1, 2)], ids=str)
def test_logits_are_minus_the_squared_distances_to_the_means(backbone: Backbone, shots: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([rng.permutation(np.repeat(range(3), shots)) for _ in range(2)])
    support, query = rng.normal(size=(2, sum(shots), 7)), rng.normal(size=(2, 5, 7))
    logits = SimpleShot(backbone).fit(torch.from_numpy(support), torch.from_numpy(labels))(torch.from_numpy(query))
    for task in range(2):
        for way in range(3):
            mean = support[task][labels[task] == way].mean(0)
            distances = [sum((x - mean) ** 2) for x in query[task]]
            np.testing.assert_allclose(logits[task, :, way].numpy(), -np.array(distances), rtol=1e-9)


def test_without_base_images_nothing_is_encoded(backbone: Backbone, batch: EpisodeBatch) -> None:
    with pytest.raises(DataError, match=r"^simple-shot centres features by their mean over base images, .*; call learn_base first$"):
        SimpleShot(backbone).encode(batch.query[0])
    with pytest.raises(DataError, match=r"^simple-shot centres features by their mean over base images, got no image; give .*$"):
        SimpleShot(backbone).learn_base([])


def test_a_large_mean_costs_features_in_float32_no_digits(backbone: Backbone, base_images: Tensor, batch: EpisodeBatch) -> None:
    strategy = SimpleShot(backbone)
    strategy.learn_base([base_images])
    exact = strategy.encode(batch.query[0])
    backbone.float()
    rough = SimpleShot(backbone)
    rough.learn_base([base_images])
    features = rough.encode(batch.query[0])
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.double(), exact, rtol=1e-4, atol=1e-5)


def test_it_asks_for_base_images_and_others_do_not(backbone: Backbone) -> None:
    strategy = SimpleShot(backbone)
    assert isinstance(strategy, LearnsBase)
    assert isinstance(strategy, FeatureStrategy)
    assert not isinstance(NearestMean(backbone), LearnsBase)
