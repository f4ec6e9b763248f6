import numpy as np
import pytest
import torch

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.strategies import NearestNeighbour


@pytest.mark.parametrize("shots", [(1, 1, 1), (4, 4, 4), (5, 1, 2)], ids=str)
def test_a_ways_logit_is_the_largest_cosine_to_its_supports(backbone: Backbone, shots: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([rng.permutation(np.repeat(range(3), shots)) for _ in range(2)])
    support, query = rng.normal(size=(2, sum(shots), 7)), rng.normal(size=(2, 5, 7))
    unit_support, unit_query = (torch.from_numpy(each / np.linalg.norm(each, axis=-1, keepdims=True)) for each in (support, query))
    logits = NearestNeighbour(backbone).fit(unit_support, torch.from_numpy(labels))(unit_query)
    for task in range(2):
        for i, x in enumerate(query[task]):
            cosines = [x @ s / np.linalg.norm(x) / np.linalg.norm(s) for s in support[task]]
            largest = [max(c for c, label in zip(cosines, labels[task], strict=True) if label == way) for way in range(3)]
            np.testing.assert_allclose(logits[task, i].numpy(), largest, rtol=1e-10, atol=1e-12)


def test_a_support_is_its_own_nearest_neighbour(backbone: Backbone) -> None:
    support = torch.nn.functional.normalize(torch.randn(2, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = torch.arange(9).remainder(3).repeat(2, 1)
    logits = NearestNeighbour(backbone).fit(support, labels)(support)
    assert torch.equal(logits.argmax(-1), labels)
    torch.testing.assert_close(logits.amax(-1), torch.ones(2, 9, dtype=torch.float64))
