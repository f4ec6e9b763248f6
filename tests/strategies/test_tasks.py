import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.inner_loop import GroupedNetwork, LoopedNetwork, Parameters, TaskNetwork
from fewshot_nsl.kernels import PlainKernels
from fewshot_nsl.similarity import convert, similarity_parameters
from fewshot_nsl.strategies.tasks import CLASSIFIER, cross_entropies, expand, task_features, task_logits


@pytest.fixture
def network(backbone: Backbone) -> nn.Module:
    return convert(backbone, "static")


@pytest.fixture
def own(network: nn.Module) -> Parameters:
    """Each task's."""
    random = torch.Generator().manual_seed(0)
    similar = {
        name: torch.randn(2, *value.shape, generator=random, dtype=torch.float64) for name, value in similarity_parameters(network).items()
    }
    return {**similar, CLASSIFIER: torch.randn(2, 3, 6, generator=random, dtype=torch.float64)}


@pytest.fixture(params=["looped", "grouped"])
def many(network: nn.Module, request: pytest.FixtureRequest) -> TaskNetwork:
    return LoopedNetwork(network) if request.param == "looped" else GroupedNetwork(network, PlainKernels())


def test_each_task_sees_its_own_parameters(network: nn.Module, many: TaskNetwork, own: Parameters, batch: EpisodeBatch) -> None:
    query = many.prepare(batch.query)
    features = task_features(many, own, query)
    for task in range(2):
        single = copy.deepcopy(network)
        single.load_state_dict({name: value[task] for name, value in own.items() if name != CLASSIFIER}, strict=False)
        expected = functional.normalize(single(batch.query[task]), dim=-1)
        torch.testing.assert_close(features[task], expected.detach(), check_stride=False)
        logits = task_logits(many, own, query)[task]
        torch.testing.assert_close(logits, (expected @ own[CLASSIFIER][task].T).detach())
        loss = cross_entropies(task_logits(many, own, query), batch.query_labels)[task]
        torch.testing.assert_close(loss, functional.cross_entropy(logits, batch.query_labels[task]))
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2, 12, dtype=torch.float64))
    assert not torch.allclose(features[0], functional.normalize(network(batch.query[0]), dim=-1))


def test_the_network_keeps_its_own_parameters(network: nn.Module, many: TaskNetwork, own: Parameters, batch: EpisodeBatch) -> None:
    before = copy.deepcopy(network.state_dict())
    task_features(many, own, many.prepare(batch.query))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_expanded_parameters_collect_the_gradients_of_all_tasks() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    expanded = expand({"p": parameter}, 3)["p"]
    assert expanded.tolist() == [[1, 2]] * 3
    (expanded * torch.tensor([[1.0], [10.0], [100.0]])).sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [111, 111]
