import pytest
import torch
from torch import nn

from fewshot_nsl.inner_loop import FrozenNetwork, LoopedNetwork, TaskNetwork


def test_a_frozen_network_encodes_when_it_prepares_and_never_again() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double()
    calls: list[int] = []
    network.register_forward_hook(lambda _module, _images, output: calls.append(len(output)))
    images = torch.rand(2, 3, 3, 2, 2, dtype=torch.float64)
    frozen = FrozenNetwork(LoopedNetwork(network))
    assert isinstance(frozen, TaskNetwork)
    prepared = frozen.prepare(images)
    assert calls == [3, 3]
    features = frozen.features({}, prepared)
    assert calls == [3, 3]
    assert not features.requires_grad
    torch.testing.assert_close(features, torch.stack([network(task) for task in images]).detach())


def test_a_frozen_network_has_no_parameters_of_a_task() -> None:
    network = FrozenNetwork(LoopedNetwork(nn.Flatten()))
    with pytest.raises(AssertionError, match="weight"):
        network.features({"weight": torch.ones(2, 3)}, network.prepare(torch.rand(2, 3, 3, 2, 2)))
