import numpy as np
import pytest
import torch

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.strategies import NearestMean


@pytest.mark.parametrize("shots", [(1, 1, 1), (4, 4, 4), (5, 1, 2)], ids=str)
def test_logits_are_cosines_to_the_means(backbone: Backbone, shots: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([rng.permutation(np.repeat(range(3), shots)) for _ in range(2)])
    support, query = rng.normal(size=(2, sum(shots), 7)), rng.normal(size=(2, 5, 7))
    logits = NearestMean(backbone).fit(torch.from_numpy(support), torch.from_numpy(labels))(torch.from_numpy(query))
    for task in range(2):
        for way in range(3):
            mean = support[task][labels[task] == way].mean(0)
            cosines = [x @ mean / np.linalg.norm(x) / np.linalg.norm(mean) for x in query[task]]
            np.testing.assert_allclose(logits[task, :, way].numpy(), cosines, rtol=1e-10, atol=1e-12)
