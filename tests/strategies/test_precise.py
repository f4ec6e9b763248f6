from collections.abc import Callable

import pytest
import torch

from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.precision import Precision
from fewshot_nsl.strategies import FeatureStrategy, NearestMean, PreciseEncoder, Strategy

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["nearest-mean", "retrained", "nearest-neighbour", "cosine", "ridge", "dynamic"])
def test_features_are_rounded_and_everything_after_is_the_strategys_own(
    build: Callable[[str], Strategy], batch: EpisodeBatch, name: str
) -> None:
    strategy = build(name)
    assert isinstance(strategy, FeatureStrategy)
    strategy.backbone.float()  # type: ignore[attr-defined]
    precise = PreciseEncoder(strategy, Precision("bfloat16", CPU))
    images = batch.support.flatten(0, 1)
    exact, rounded = strategy.encode(images), precise.encode(images)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert torch.linalg.norm(rounded - exact) < 0.03 * torch.linalg.norm(exact)
    assert precise.transductive is strategy.transductive
    features = exact.unflatten(0, batch.support.shape[:2])
    assert torch.equal(precise.fit(features, batch.support_labels)(features), strategy.fit(features, batch.support_labels)(features))


def test_float32_changes_nothing(build: Callable[[str], Strategy], batch: EpisodeBatch) -> None:
    strategy = build("nearest-mean")
    assert isinstance(strategy, NearestMean)
    strategy.backbone.float()
    images = batch.support.flatten(0, 1)
    assert torch.equal(PreciseEncoder(strategy, Precision("float32", CPU)).encode(images), strategy.encode(images))
