import copy
from collections import Counter
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import CNN9
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import DynamicSimilarityConv2d, SharedPredictor, added_parameters, convert, share_predictors

IMAGES = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0)).double()


def _cnn9(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return CNN9(16, 3, width=width, mean=[127.5] * 3, std=[64.0] * 3).double()


def _shared(width: int = 8, *, structure: str = "diagonal") -> nn.Module:
    return share_predictors(convert(_cnn9(width), "dynamic", structure=structure), IMAGES[:1])


def _layers(model: nn.Module) -> dict[str, DynamicSimilarityConv2d]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, DynamicSimilarityConv2d)}


def _predictors(model: nn.Module) -> list[SharedPredictor]:
    found = [layer.predictor for layer in _layers(model).values()]
    predictors = [predictor for predictor in found if isinstance(predictor, SharedPredictor)]
    assert len(predictors) == len(found)
    return predictors


def _added(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in added_parameters(model).values())


def _wake(model: nn.Module) -> None:
    random = torch.Generator().manual_seed(2)
    for predictor in _predictors(model):
        nn.init.normal_(predictor.gain, std=0.3, generator=random)


def test_sharing_saves_about_half_of_what_disjoint_predictors_add() -> None:
    disjoint = convert(_cnn9(32), "dynamic")
    saved = 1 - _added(share_predictors(disjoint, IMAGES[:1])) / _added(disjoint)
    assert 0.4 < saved < 0.6


def test_number_of_shared_parameters() -> None:
    channels = [3, 32, 32, 64, 64, 128]  # of an adaptation's input, at each resolution those before and after the first layer
    adaptations = sum(32 * c * 9 for c in channels)
    generator, own = 9 * 32 * 9, 9 * (2 * 32 + 9)
    assert _added(_shared(32)) == adaptations + generator + own


def test_all_layers_of_one_kernel_size_have_one_generator() -> None:
    predictors = _predictors(_shared())
    assert len(predictors) == 9
    assert len({id(predictor.generator) for predictor in predictors}) == 1


def test_layers_of_equal_channels_and_resolution_and_only_those_share_an_adaptation_network() -> None:
    layers = _layers(_shared())
    inputs = dict(zip(layers, [(3, 16), (8, 16), (8, 16), (8, 8), (16, 8), (16, 8), (16, 4), (32, 4), (32, 4)], strict=True))
    for one, other in combinations(layers, 2):
        first, second = layers[one].predictor, layers[other].predictor
        assert isinstance(first, SharedPredictor)
        assert isinstance(second, SharedPredictor)
        assert (first.adaptation is second.adaptation) == (inputs[one] == inputs[other])
        assert first.norm is not second.norm
        assert first.gain is not second.gain


class _Two(nn.Module):
    """Two kernel sizes; layers of equal input, with geometries of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.three = nn.Conv2d(4, 4, 3, padding=1)
        self.same = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.wide = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.five = nn.Conv2d(4, 4, 5, padding=2)
        self.mirrored = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.strided = nn.Conv2d(4, 6, (3, 2), stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.three, self.same, self.wide, self.five, self.mirrored, self.strided):
            x = layer(x).relu()
        return x


X = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_each_kernel_size_has_a_generator_of_its_own() -> None:
    layers = _layers(share_predictors(convert(_Two().double(), "dynamic"), X))
    generators = {name: layer.predictor.get_submodule("generator") for name, layer in layers.items()}
    assert [generators["three"] is generators[name] for name in ("same", "wide", "mirrored", "five", "strided")] == 3 * [True] + 2 * [False]
    assert generators["five"] is not generators["strided"]
    shapes = {name: tuple(generators[name].get_parameter("weight").shape) for name in ("three", "five", "strided")}
    assert shapes == {"three": (9, 32, 3, 3), "five": (25, 32, 3, 3), "strided": (6, 32, 3, 3)}


def test_each_number_of_outputs_has_a_generator_of_its_own() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)).double()
    mixed = convert(convert(net, "dynamic", where=lambda name, _: name == "0"), "dynamic", structure="unconstrained")
    shared = share_predictors(mixed, X)
    first, second = _predictors(shared)
    assert (len(first.generator.weight), len(second.generator.weight)) == (9, 81)
    assert first.adaptation is second.adaptation
    torch.testing.assert_close(shared(X), net(X), rtol=1e-12, atol=1e-12)


def test_only_layers_of_one_geometry_share_an_adaptation_network() -> None:
    layers = _layers(share_predictors(convert(_Two().double(), "dynamic"), X))
    adaptations = {name: layer.predictor.get_submodule("adaptation") for name, layer in layers.items()}
    assert adaptations["three"] is adaptations["same"]
    assert Counter(Counter(map(id, adaptations.values())).values()) == {2: 1, 1: 4}


@pytest.mark.parametrize("hidden_channels", [4, 32])
def test_adaptation_networks_bring_every_input_to_one_size(hidden_channels: int) -> None:
    shared = share_predictors(convert(_cnn9(), "dynamic"), IMAGES[:1], hidden_channels=hidden_channels)
    for predictor in _predictors(shared):
        assert len(predictor.adaptation.weight) == predictor.generator.weight.shape[1] == hidden_channels


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("structure", ["diagonal", "unconstrained", "symmetric", "psd"])
def test_sharing_starts_at_the_plain_network(structure: str, *, train: bool) -> None:
    plain = _cnn9().train(train)
    shared = share_predictors(convert(plain, "dynamic", structure=structure), IMAGES[:1])
    for layer in _layers(shared).values():
        similarity = layer.predict(torch.randn(1, layer.in_channels, 4, 4, dtype=torch.float64))
        expected = torch.ones(9) if structure == "diagonal" else torch.eye(9)
        assert torch.equal(similarity, expected[..., None, None].expand_as(similarity).double())
    torch.testing.assert_close(shared(IMAGES), plain(IMAGES), rtol=1e-10, atol=1e-10)


def test_sharing_of_any_geometry_starts_at_the_plain_network() -> None:
    plain = _Two().double()
    torch.testing.assert_close(share_predictors(convert(plain, "dynamic"), X)(X), plain(X), rtol=1e-12, atol=1e-12)


def test_a_trained_similarity_starts_anew() -> None:
    disjoint = convert(_cnn9(), "dynamic").eval()
    for name, value in disjoint.named_parameters():
        if name.endswith("gain"):
            nn.init.constant_(value, 0.5)
    shared = share_predictors(disjoint, IMAGES[:1])
    torch.testing.assert_close(shared(IMAGES), _cnn9().eval()(IMAGES), rtol=1e-10, atol=1e-10)


def test_the_prediction_is_gain_times_generator_of_adaptation() -> None:
    shared = _shared().eval()
    _wake(shared)
    predictor = _predictors(shared)[1]
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    hidden = (predictor.adaptation(x) / (1 + predictor.norm.eps) ** 0.5).relu()
    torch.testing.assert_close(predictor(x), predictor.gain[:, None, None] * predictor.generator(hidden))


def test_a_gradient_reaches_everything() -> None:
    shared = _shared()
    _wake(shared)
    shared(IMAGES).square().mean().backward()
    assert [name for name, value in shared.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_training_changes_everything_from_the_second_step_on() -> None:
    shared = _shared()
    optimiser = torch.optim.SGD(shared.parameters(), lr=0.01)
    states = [{name: value.clone() for name, value in shared.named_parameters()}]
    for _ in range(2):
        optimiser.zero_grad()
        shared(IMAGES).square().mean().backward()
        optimiser.step()
        states.append({name: value.clone() for name, value in shared.named_parameters()})
    start, once, twice = states
    still = {name for name in start if torch.equal(start[name], once[name])}
    assert still == {name for name in start if ".predictor." in name and not name.endswith("gain")}
    assert not [name for name in start if torch.equal(once[name], twice[name])]


def test_a_saved_state_makes_another_shared_model_the_same() -> None:
    shared, other = _shared().eval(), _shared().eval()
    _wake(shared)
    for value in added_parameters(shared).values():
        nn.init.normal_(value, std=0.3)
    assert (other(IMAGES) - shared(IMAGES)).abs().max() > 0.01 * shared(IMAGES).abs().max()
    other.load_state_dict(shared.state_dict())
    assert torch.equal(other(IMAGES), shared(IMAGES))


def test_a_shared_parameter_stands_once_among_the_parameters() -> None:
    shared = _shared()
    generators = [name for name in shared.state_dict() if name.endswith("generator.weight")]
    assert len(generators) == 9
    assert len([name for name, _ in shared.named_parameters() if name in generators]) == 1


def test_a_copy_keeps_the_sharing() -> None:
    shared = _shared()
    copied = copy.deepcopy(shared)
    assert _added(copied) == _added(shared)
    ours, theirs = ({id(value) for value in model.parameters()} for model in (shared, copied))
    assert not ours & theirs
    assert len({id(predictor.generator) for predictor in _predictors(copied)}) == 1


def test_the_given_model_is_left_as_it_is() -> None:
    disjoint = convert(_cnn9(), "dynamic")
    disjoint.get_submodule("blocks.0").eval()
    training = [module.training for module in disjoint.modules()]
    state = {name: value.clone() for name, value in disjoint.state_dict().items()}
    share_predictors(disjoint, IMAGES[:1])
    assert [module.training for module in disjoint.modules()] == training
    assert list(disjoint.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in disjoint.state_dict().items())
    assert not any(module._forward_pre_hooks for module in disjoint.modules())


def test_training_flags_and_running_statistics_are_kept() -> None:
    disjoint = convert(_cnn9(), "dynamic")
    disjoint.get_submodule("blocks.0").eval()
    shared = share_predictors(disjoint, IMAGES[:1])
    for name, module in shared.named_modules():
        if ".predictor" not in name:
            assert module.training == disjoint.get_submodule(name).training
    for layer in _layers(shared).values():
        assert all(module.training == layer.training for module in (layer.predictor, layer.predictor.get_submodule("norm")))
    for name, value in shared.state_dict().items():
        if ".predictor." not in name:
            assert torch.equal(value, disjoint.state_dict()[name])
    assert not any(module._forward_pre_hooks for module in shared.modules())


def test_predictors_have_the_layers_precision() -> None:
    assert {value.dtype for value in _shared().parameters()} == {torch.float64}


class _Detour(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle, self.spare = (nn.Conv2d(4, 4, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Conv2d(4, 4, 3), r"Conv2d has no dynamic similarity layer; make some first: convert\(model, 'dynamic'\)"),
        (
            lambda: convert(nn.Sequential(nn.Conv2d(4, 4, 3)), "static"),
            r"Sequential has no dynamic similarity layer; make some first: convert\(model, 'dynamic'\)",
        ),
        (
            lambda: convert(_Detour(), "dynamic"),
            "the example does not reach the dynamic similarity layers idle, spare; give one that does",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(model: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        share_predictors(model(), X.float())


def test_a_single_layer_may_have_a_shared_predictor() -> None:
    layer = nn.Conv2d(4, 2, 3).double()
    shared = share_predictors(convert(layer, "dynamic"), X)
    assert isinstance(shared, DynamicSimilarityConv2d)
    assert isinstance(shared.predictor, SharedPredictor)
    torch.testing.assert_close(shared(X), layer(X), rtol=1e-12, atol=1e-12)
