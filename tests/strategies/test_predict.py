from collections.abc import Callable

import pytest
import torch

from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.strategies import STRATEGIES, FeatureLearner, Strategy, predict


@pytest.mark.parametrize("name", STRATEGIES)
def test_fit_and_classifier_are_composed(build: Callable[[str], Strategy], batch: EpisodeBatch, name: str) -> None:
    strategy = build(name)
    support, query = batch.support, batch.query
    if isinstance(strategy, FeatureLearner):
        support, query = (torch.stack([strategy.encode(task) for task in images]) for images in (support, query))
    torch.testing.assert_close(predict(strategy, batch), strategy.fit(support, batch.support_labels)(query))


def test_a_learner_without_encode_gets_the_images(batch: EpisodeBatch) -> None:
    class FirstPixel:
        def fit(self, support: torch.Tensor, support_labels: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
            assert support.dtype == torch.uint8
            return lambda query: query[:, :, 0, 0, :3].double() * 0 + support_labels.max()

    assert predict(FirstPixel(), batch).shape == (2, 12, 3)
