import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import (
    BACKBONES,
    CNN4,
    Backbone,
    Modulation,
    ResNet12,
    conditioned,
    conditioned_layers,
    modulating,
)
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import convert

MEAN, STD = (120.0,) * 3, (60.0,) * 3


def _images(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def _network(kind: type[CNN4] | type[ResNet12] = CNN4, width: int = 4) -> Backbone:
    """With weights and statistics of BN that are no identity, some weights negative."""
    torch.manual_seed(0)
    network = kind(16, 3, width=width, mean=MEAN, std=STD).double()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
            assert layer.running_mean is not None
            nn.init.normal_(layer.running_mean)
    return network


def _modulations(network: nn.Module, tasks: int) -> list[Modulation]:
    random = torch.Generator().manual_seed(5)
    sizes = [layer.channels for layer in conditioned_layers(network)]
    return [Modulation(*(torch.randn(tasks, size, generator=random, dtype=torch.float64) for _ in range(2))) for size in sizes]


@pytest.mark.parametrize("kind", [CNN4, ResNet12])
@pytest.mark.parametrize("training", [False, True])
def test_without_a_modulation_it_is_the_backbone_itself(kind: type[CNN4] | type[ResNet12], training: bool) -> None:
    network = _network(kind).train(training)
    changeable = conditioned(network)
    assert torch.equal(changeable(_images(6)), network(_images(6)))
    zeros = [Modulation(torch.zeros_like(gamma), torch.zeros_like(beta)) for gamma, beta in _modulations(changeable, 2)]
    with modulating(changeable, zeros):
        torch.testing.assert_close(changeable(_images(6)), network(_images(6)))


def test_each_layer_of_cnn4_is_scaled_and_shifted_between_bn_and_relu() -> None:
    network = _network().eval()
    changeable, images = conditioned(network), _images(6)
    modulations = _modulations(changeable, 2)
    assert len(modulations) == 4
    with modulating(changeable, modulations):
        found = changeable(images)
    for number, image in enumerate(images):
        hidden = network.get_submodule("normalise")(image[None])
        for stage, (gamma, beta) in enumerate(modulations):
            convolution, norm = (network.get_submodule(f"blocks.{stage}.{place}") for place in (0, 1))
            normed = nn.BatchNorm2d.forward(norm, convolution(hidden))  # type: ignore[arg-type]
            task = number // 3
            changed = [(1 + gamma[task, c]) * normed[:, c] + beta[task, c] for c in range(4)]
            hidden = torch.stack(changed, dim=1).clamp(min=0).unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
        torch.testing.assert_close(found[number], hidden.flatten())


def test_a_residual_network_is_changed_beside_its_shortcuts() -> None:
    network = conditioned(_network(ResNet12))
    assert [layer.channels for layer in conditioned_layers(network)] == 3 * [4] + 3 * [10] + 3 * [20] + 3 * [40]
    assert not any(conditioned_layers(network.get_submodule(f"blocks.{i}.shortcut")) for i in range(4))
    seen: list[Tensor] = []
    conditioned_layers(network)[0].register_forward_hook(lambda *call: seen.append(call[2].clone()))
    network.eval()(_images(2))
    gamma, beta = torch.full((1, 4), 2.0, dtype=torch.float64), torch.full((1, 4), 5.0, dtype=torch.float64)
    others = [Modulation(torch.zeros_like(g), torch.zeros_like(b)) for g, b in _modulations(network, 1)[1:]]
    with modulating(network, [Modulation(gamma, beta), *others]):
        network(_images(2))
    torch.testing.assert_close(seen[1], 3 * seen[0] + 5)


@pytest.mark.parametrize("kind", [CNN4, ResNet12])
def test_each_task_is_seen_as_if_it_were_alone_where_statistics_are_fixed(kind: type[CNN4] | type[ResNet12]) -> None:
    network = conditioned(_network(kind)).eval()
    modulations, images = _modulations(network, 3), _images(12)
    with modulating(network, modulations):
        together = network(images)
    for task in range(3):
        own = [Modulation(gamma[task : task + 1], beta[task : task + 1]) for gamma, beta in modulations]
        with modulating(network, own):
            torch.testing.assert_close(network(images[4 * task : 4 * task + 4]), together[4 * task : 4 * task + 4])


def test_outside_nothing_is_changed_whatever_happened_inside() -> None:
    network = conditioned(_network()).eval()
    before = network(_images(2))
    with pytest.raises(RuntimeError, match="size of tensor"), modulating(network, _modulations(network, 1)):
        network(torch.zeros(2, 7, 16, 16))
    assert torch.equal(network(_images(2)), before)
    with pytest.raises(ValueError, match="zip"), modulating(network, _modulations(network, 1)[:3]):
        raise AssertionError("too few modulations")
    assert torch.equal(network(_images(2)), before)


def test_the_backbone_given_stays_as_it_was() -> None:
    network = _network()
    names = list(network.state_dict())
    changeable = conditioned(network)
    assert list(network.state_dict()) == names
    next(changeable.parameters()).data.zero_()
    assert next(network.parameters()).any()


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_can_be_changed(name: str) -> None:
    changeable = conditioned(BACKBONES[name](32, 3, width=2, mean=MEAN, std=STD).double()).eval()
    plain = changeable(torch.zeros(2, 3, 32, 32))
    with modulating(changeable, _modulations(changeable, 2)):
        assert not torch.allclose(changeable(torch.zeros(2, 3, 32, 32)), plain)


def test_what_predicts_similarity_is_no_layer_of_the_network() -> None:
    network = convert(_network(), "dynamic")
    assert isinstance(network, Backbone)
    assert len(conditioned_layers(conditioned(network))) == 4


def test_half_precision_stays_half_and_near() -> None:
    network = conditioned(_network().float()).eval()
    modulations = [Modulation(gamma.float(), beta.float()) for gamma, beta in _modulations(network, 2)]
    kinds = []
    conditioned_layers(network)[0].register_forward_hook(lambda *call: kinds.append(call[2].dtype))
    with modulating(network, modulations):
        exact = network(_images(4))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(_images(4))
    assert kinds == [torch.float32, torch.bfloat16]
    assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_a_backbone_without_bn_is_refused() -> None:
    class Bare(Backbone):
        features = 2

    with pytest.raises(ConfigurationError, match=r"^Bare has no nn\.BatchNorm2d after a convolution, .*; use another backbone$"):
        conditioned(Bare())
