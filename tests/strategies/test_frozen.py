import pytest
import torch

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.strategies import CosineClassifier, FeatureStrategy, NearestMean, NearestNeighbour, RetrainedClassifier, RidgeClassifier
from fewshot_nsl.strategies.frozen import FrozenFeatures

UNIT = (CosineClassifier, NearestNeighbour, RetrainedClassifier, RidgeClassifier)


@pytest.mark.parametrize("kind", [NearestMean, *UNIT])
def test_encodes_with_the_backbone_in_evaluation_mode(backbone: Backbone, batch: EpisodeBatch, kind: type[FrozenFeatures]) -> None:
    strategy = kind(backbone.train())
    assert isinstance(strategy, FeatureStrategy)
    assert not strategy.transductive
    features = strategy.encode(batch.support[0])
    assert features.shape == (12, backbone.features)
    assert not features.requires_grad
    expected = backbone.eval()(batch.support[0]).detach()
    torch.testing.assert_close(features, expected / expected.norm(dim=1, keepdim=True) if kind in UNIT else expected)
    torch.testing.assert_close(strategy.encode(batch.support[0, :1]), features[:1])  # not of the batch's statistics
