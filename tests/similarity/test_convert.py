from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError, NotFoldable
from fewshot_nsl.similarity import (
    STRUCTURES,
    DynamicSimilarityConv2d,
    StaticSimilarityConv2d,
    convert,
    fold,
    similarity_parameters,
)

X = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class _Net(nn.Module):
    """Grouped, strided, dilated, biased, non-square and 1 x 1 convolutions, and one that serves twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1, groups=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
            nn.Conv2d(8, 4, 1),
            nn.Conv2d(4, 4, (2, 3), padding=(1, 2), dilation=(2, 2)),
        )
        self.once = nn.Conv2d(4, 4, 3, padding=1)
        self.again = self.once

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.once(self.body(x)).relu())


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(3)
    return _Net().double().eval()


def _randomise(model: nn.Module) -> None:
    random = torch.Generator().manual_seed(5)
    for value in similarity_parameters(model).values():
        nn.init.normal_(value, generator=random)


def _kinds(model: nn.Module) -> dict[str, type[nn.Module]]:
    return {name: type(layer) for name, layer in model.named_modules(remove_duplicate=False) if isinstance(layer, nn.Conv2d)}


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_converting_changes_no_output(net: nn.Module, kind: str, structure: str) -> None:
    converted = convert(net, kind, structure=structure)
    torch.testing.assert_close(converted(X), net(X), rtol=1e-12, atol=1e-12)
    similar = [layer for layer in converted.modules() if isinstance(layer, StaticSimilarityConv2d | DynamicSimilarityConv2d)]
    assert [layer.structure for layer in similar] == [structure] * 4


@pytest.mark.parametrize(("kind", "layer"), [("static", StaticSimilarityConv2d), ("dynamic", DynamicSimilarityConv2d)])
def test_every_kernel_of_more_than_one_tap_is_converted(net: nn.Module, kind: str, layer: type[nn.Module]) -> None:
    assert {name: found for name, found in _kinds(convert(net, kind)).items() if "predictor" not in name} == {
        "body.0": layer,
        "body.3": layer,
        "body.4": nn.Conv2d,
        "body.5": layer,
        "once": layer,
        "again": layer,
    }


@pytest.mark.parametrize(("kind", "structure"), [("static", "unconstrained"), ("dynamic", "diagonal")])
def test_the_structure_by_default(net: nn.Module, kind: str, structure: str) -> None:
    layer = convert(net, kind).get_submodule("once")
    assert layer.structure == structure


def test_the_given_model_is_left_as_it_is(net: nn.Module) -> None:
    kinds, state = _kinds(net), {name: value.clone() for name, value in net.state_dict().items()}
    converted = convert(net, "static")
    _randomise(converted)
    for parameter in converted.parameters():
        nn.init.zeros_(parameter)
    assert _kinds(net) == kinds
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_weights_requires_grad_and_mode_are_kept(net: nn.Module) -> None:
    net.get_parameter("body.3.weight").requires_grad_(False)
    net.get_submodule("body").train()
    converted = convert(net, "static")
    for name, parameter in net.named_parameters():
        assert torch.equal(converted.get_parameter(name), parameter)
        assert converted.get_parameter(name).requires_grad == parameter.requires_grad
    for name, layer in net.named_modules():
        assert converted.get_submodule(name).training == layer.training
    assert all(parameter.requires_grad for parameter in similarity_parameters(converted).values())


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_convolution_that_serves_twice_still_does(net: nn.Module, kind: str) -> None:
    converted = convert(net, kind)
    assert converted.get_submodule("once") is converted.get_submodule("again")


class _Shared(nn.Module):
    """A block, not a bare convolution, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.once = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.again = self.once

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.once(x))


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_block_that_serves_twice_still_does(kind: str) -> None:
    net = _Shared().double()
    converted = convert(net, kind)
    assert converted.get_submodule("once.0") is converted.get_submodule("again.0")
    torch.testing.assert_close(converted(X), net(X), rtol=1e-12, atol=1e-12)


def test_folding_a_block_that_serves_twice() -> None:
    converted = convert(_Shared().double(), "static")
    _randomise(converted)
    folded = fold(converted)
    assert set(_kinds(folded).values()) == {nn.Conv2d}
    torch.testing.assert_close(folded(X), converted(X), rtol=1e-12, atol=1e-12)


def test_a_model_may_be_a_convolution_itself() -> None:
    layer = nn.Conv2d(4, 2, 3).double()
    converted = convert(layer, "static")
    assert isinstance(converted, StaticSimilarityConv2d)
    assert list(similarity_parameters(converted)) == ["M"]
    _randomise(converted)
    folded = fold(converted)
    assert type(folded) is nn.Conv2d
    torch.testing.assert_close(folded(X), converted(X), rtol=1e-12, atol=1e-12)


def test_where_chooses_the_layers(net: nn.Module) -> None:
    seen: dict[str, nn.Conv2d] = {}

    def where(name: str, layer: nn.Conv2d) -> bool:
        seen[name] = layer
        return layer.kernel_size == (1, 1) or name == "body.0"

    converted = convert(net, "static", where=where)
    assert set(seen) == {"body.0", "body.3", "body.4", "body.5", "once", "again"}
    assert set(similarity_parameters(converted)) == {"body.0.M", "body.4.M"}
    torch.testing.assert_close(converted(X), net(X), rtol=1e-12, atol=1e-12)


class _Own(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


def test_subclasses_of_a_convolution_are_left_as_they_are() -> None:
    converted = convert(nn.Sequential(_Own(4, 4, 3), nn.Conv2d(4, 4, 3)), "static")
    assert _kinds(converted) == {"0": _Own, "1": StaticSimilarityConv2d}


def test_what_is_converted_is_not_converted_again(net: nn.Module) -> None:
    with pytest.raises(ConfigurationError, match="_Net has no plain convolution to convert"):
        convert(convert(net, "static"), "static")


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda net: convert(net, "magic"), "kind of similarity 'magic' is unknown: expected one of static, dynamic"),
        (lambda net: convert(net, "static", structure="round"), "similarity structure 'round' is unknown"),
        (lambda net: convert(net, "dynamic", predictor="oracle"), "similarity predictor 'oracle' is unknown"),
        (lambda _: convert(nn.Linear(2, 2), "static"), "Linear has no plain convolution to convert: expected one of more than one tap"),
        (lambda net: convert(net, "static", where=lambda *_: False), "_Net has no plain convolution to convert"),
        (lambda _: convert(nn.Conv2d(1, 1, 3, padding="same"), "dynamic"), "padding 'same' with mode 'zeros'"),
    ],
)
def test_what_cannot_be_converted_is_refused(net: nn.Module, attempt: Callable[[nn.Module], nn.Module], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        attempt(net)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_folding_changes_no_output(net: nn.Module, structure: str) -> None:
    converted = convert(net, "static", structure=structure)
    _randomise(converted)
    folded = fold(converted)
    torch.testing.assert_close(folded(X), converted(X), rtol=1e-12, atol=1e-12)
    assert (folded(X) - net(X)).abs().max() > 0.01
    assert set(_kinds(folded).values()) == {nn.Conv2d}
    assert folded.get_submodule("once") is folded.get_submodule("again")
    assert not folded.training
    assert len(similarity_parameters(converted)) == 4  # the given model keeps its own


def test_dynamic_layers_cannot_be_folded_and_are_named(net: nn.Module) -> None:
    mixed = convert(convert(net, "static", where=lambda name, _: name == "body.0"), "dynamic")
    message = r"layers body\.3, body\.5, once, again have a similarity that depends on the input; fold\(model, partial=True\) leaves them"
    with pytest.raises(NotFoldable, match=message):
        fold(mixed)
    with pytest.raises(NotFoldable, match="layers DynamicSimilarityConv2d have"):
        fold(convert(nn.Conv2d(1, 1, 3), "dynamic"))


def test_folding_in_part_leaves_dynamic_layers(net: nn.Module) -> None:
    mixed = convert(convert(net, "static", where=lambda name, _: name == "body.0"), "dynamic")
    _randomise(mixed)
    folded = fold(mixed, partial=True)
    kinds = _kinds(folded)
    assert kinds["body.0"] is nn.Conv2d
    assert kinds["body.3"] is DynamicSimilarityConv2d
    torch.testing.assert_close(folded(X), mixed(X), rtol=1e-12, atol=1e-12)


def test_similarity_parameters_have_the_names_of_the_model(net: nn.Module) -> None:
    converted = convert(net, "static")
    found = similarity_parameters(converted)
    named = dict(converted.named_parameters())
    assert set(found) == {name for name in named if name.endswith(".M")} == {"body.0.M", "body.3.M", "body.5.M", "once.M"}
    assert all(found[name] is named[name] for name in found)
    assert similarity_parameters(net) == {}
