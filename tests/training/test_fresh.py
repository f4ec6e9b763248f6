from typing import Literal

import pytest
import torch

from fewshot_nsl.backbones import BackboneChoice
from fewshot_nsl.data import ImageStore
from fewshot_nsl.training.fresh import describe_backbone, initial_weights


@pytest.mark.parametrize(("similarity", "structure"), [("plain", None), ("dynamic", "diagonal")])
def test_a_backbone_is_described_for_the_store(
    tiny_store: ImageStore, similarity: Literal["plain", "dynamic"], structure: str | None
) -> None:
    assert describe_backbone(BackboneChoice(backbone="cnn9", width=6), tiny_store, similarity).model_dump() == {
        "backbone": "cnn9",
        "image_size": 16,
        "channels": 3,
        "width": 6,
        "mean": tiny_store.mean,
        "std": tiny_store.std,
        "similarity": similarity,
        "structure": structure,
    }


def test_initial_weights_are_a_function_of_the_seed() -> None:
    def built(seed: int) -> torch.Tensor:
        with initial_weights(seed):
            return torch.nn.Linear(3, 2).weight.detach()

    assert torch.equal(built(1), built(1))
    assert not torch.equal(built(1), built(2))


def test_random_numbers_outside_stay_as_they_are() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with initial_weights(7):
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected)
