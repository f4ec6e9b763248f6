import torch

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.strategies import RetrainedClassifier
from fewshot_nsl.strategies.logistic import fit_logistic_regression


def test_logits_are_those_of_a_regression_on_the_support(backbone: Backbone, batch: EpisodeBatch) -> None:
    strategy = RetrainedClassifier(backbone, penalty=0.05)
    support, query = (strategy.encode(images.flatten(0, 1)).unflatten(0, (2, 12)) for images in (batch.support, batch.query))
    weights = fit_logistic_regression(support, batch.support_labels, penalty=0.05)
    expected = torch.einsum("tnd,twd->tnw", query, weights)
    torch.testing.assert_close(strategy.fit(support, batch.support_labels)(query), expected)
