"""RelationNet: against pairs taken one by one with the channels side by side, as in the paper."""

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import CNN4Maps, ResNet12
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import DynamicSimilarityConv2d, StaticSimilarityConv2d
from fewshot_nsl.strategies import RelationNet
from fewshot_nsl.strategies.relation import Relation

SIMILARITIES = pytest.mark.parametrize("similarity", ["plain", "static", "dynamic"])
C = 3


def _relation(height: int = 4, width: int = 4, similarity: str = "plain") -> Relation:
    torch.manual_seed(0)
    relation = Relation(C, height, width, hidden=5, similarity=similarity).double()
    with torch.no_grad():
        for name, value in relation.named_parameters():
            value.add_(torch.randn_like(value), alpha=0.3 if "gain" not in name else 0.7)
        for buffer in relation.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
    return relation.eval()


def _maps(height: int = 4, width: int = 4) -> tuple[Tensor, Tensor]:
    """Of two tasks: 3 ways, 4 queries."""
    random = torch.Generator().manual_seed(1)
    way, query = (torch.randn(2, n, C, height, width, generator=random, dtype=torch.float64) for n in (3, 4))
    return way, query


def _side_by_side(relation: Relation) -> nn.Module:
    """The plain first convolution, of the channels of both maps."""
    assert isinstance(relation.of_way, nn.Conv2d)
    assert isinstance(relation.of_query, nn.Conv2d)
    both = nn.Conv2d(2 * C, C, 3, padding=1, bias=False).double()
    both.weight = nn.Parameter(torch.cat([relation.of_way.weight, relation.of_query.weight], dim=1))
    return both


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 6), (2, 2), (1, 1), (3, 2)])
def test_a_pair_is_scored_as_its_channels_side_by_side(height: int, width: int) -> None:
    relation, (way, query) = _relation(height, width), _maps(height, width)
    found, convolution = relation(way, query), _side_by_side(relation)
    for task in range(2):
        for i in range(4):
            for j in range(3):
                pair = torch.cat([way[task, j], query[task, i]])[None]
                maps = relation.second(relation.first(convolution(pair)))
                torch.testing.assert_close(found[task, i, j], relation.score(maps.flatten(1))[0, 0], rtol=1e-9, atol=1e-9)


@SIMILARITIES
def test_a_pair_does_not_depend_on_the_others(similarity: str) -> None:
    relation, (way, query) = _relation(similarity=similarity), _maps()
    found = relation(way, query)
    for task in range(2):
        for i in range(4):
            for j in range(3):
                alone = relation(way[task : task + 1, j : j + 1], query[task : task + 1, i : i + 1])
                torch.testing.assert_close(found[task, i, j], alone[0, 0, 0], rtol=1e-9, atol=1e-9)


def test_pooling_halves_twice_where_it_can() -> None:
    for height, inputs in ((8, C * 4), (4, C), (2, C), (1, C), (21, C * 25)):
        layer = Relation(C, height, height).score[0]
        assert isinstance(layer, nn.Linear)
        assert layer.in_features == inputs


@pytest.fixture
def learner(tiny_store: ImageStore) -> RelationNet:
    torch.manual_seed(0)
    return RelationNet(CNN4Maps(16, 3, width=4, mean=tiny_store.mean, std=tiny_store.std)).double()


def _encoded(learner: RelationNet, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
    support, query = (learner.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]) for images in (batch.support, batch.query))
    return support, query


def test_logits_are_relations_to_the_sums_of_the_supports_maps(learner: RelationNet, batch: EpisodeBatch) -> None:
    support, query = _encoded(learner, batch)
    logits = learner.fit(support, batch.support_labels)(query)
    for task in range(2):
        maps = support[task].unflatten(-1, learner.map_shape)
        ways = torch.stack([maps[batch.support_labels[task] == way].sum(0) for way in range(3)])
        expected = learner.relation(ways[None], query[task].unflatten(-1, learner.map_shape)[None])
        torch.testing.assert_close(logits[task], expected[0])


def test_the_loss_is_the_squared_distance_to_one_for_the_own_way_and_to_zero(learner: RelationNet, batch: EpisodeBatch) -> None:
    losses = learner.loss(batch).detach()
    learner.train()
    support, query = learner.embed_batch(batch)
    scores = learner.compare(support, batch.support_labels)(query).sigmoid().detach()
    for task in range(2):
        errors = [
            (float(scores[task, i, way]) - float(label == way)) ** 2 for i, label in enumerate(batch.query_labels[task]) for way in range(3)
        ]
        assert losses[task].item() == pytest.approx(sum(errors) / len(errors))


def test_the_order_of_supports_and_classes_means_nothing(learner: RelationNet, batch: EpisodeBatch) -> None:
    support, query = _encoded(learner, batch)
    logits = learner.fit(support, batch.support_labels)(query)
    order, names = torch.randperm(12), torch.tensor([2, 0, 1])
    again = learner.fit(support[:, order], names[batch.support_labels[:, order]])(query)
    torch.testing.assert_close(again[..., names], logits)


def test_in_training_statistics_are_of_the_pairs_of_all_tasks(learner: RelationNet, batch: EpisodeBatch) -> None:
    whole = learner.loss(batch)
    alone = torch.cat([learner.loss(part) for part in batch.split(1)])
    assert not torch.allclose(whole, alone, rtol=1e-3)


@SIMILARITIES
def test_similarity_is_in_the_relation_network_too(similarity: str) -> None:
    layers = [module for module in Relation(C, 4, 4, similarity=similarity).modules() if isinstance(module, nn.Conv2d)]
    kind = {"plain": nn.Conv2d, "static": StaticSimilarityConv2d, "dynamic": DynamicSimilarityConv2d}[similarity]
    assert sum(type(layer) is kind for layer in layers) >= 3
    torch.manual_seed(0)
    plain = Relation(C, 4, 4).eval()
    torch.manual_seed(0)
    similar = Relation(C, 4, 4, similarity=similarity).eval()
    similar.load_state_dict(plain.state_dict(), strict=False)
    way, query = (maps.float() for maps in _maps())
    torch.testing.assert_close(similar(way, query), plain(way, query))  # every M starts as the identity


def test_features_that_are_no_map_are_refused(tiny_store: ImageStore) -> None:
    message = "^relation-net compares maps, and features of ResNet12 are none; use one of cnn4-maps, cnn4, cnn9$"
    with pytest.raises(ConfigurationError, match=message):
        RelationNet(ResNet12(16, 3, width=2, mean=tiny_store.mean, std=tiny_store.std))
