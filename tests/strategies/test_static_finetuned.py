import pytest
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.similarity import STRUCTURES
from fewshot_nsl.strategies import StaticFinetuned


def test_every_similarity_moves_and_nothing_else(backbone: Backbone) -> None:
    assert StaticFinetuned(backbone).moving().keys() == {f"blocks.{i}.0.M" for i in range(4)}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_each_step_lowers_the_loss_on_the_support(backbone: Backbone, batch: EpisodeBatch, structure: str) -> None:
    def loss(steps: int) -> float:
        strategy = StaticFinetuned(backbone, structure=structure, steps=steps, lr=0.02)
        logits = strategy.fit(batch.support, batch.support_labels)(batch.support)
        return functional.cross_entropy(logits.flatten(0, 1), batch.support_labels.flatten()).item()

    losses = [loss(steps) for steps in (0, 1, 2, 4, 8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.99 * losses[0]
