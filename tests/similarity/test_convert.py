from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewshot_nsl.backbones import ResNet18, ResNet50
from fewshot_nsl.errors import ConfigurationError, NotFoldable
from fewshot_nsl.similarity import (
    PREDICTORS,
    STRUCTURES,
    DynamicSimilarityConv2d,
    DynamicSimilarityLinear,
    Shift,
    ShiftSimilarityConv2d,
    SimilarityLSTMCell,
    StaticSimilarityConv2d,
    StaticSimilarityLinear,
    added_parameters,
    convert,
    fold,
    left_alone,
    predictor_parameters,
    shape_parameters,
    share_predictors,
    similarity_parameters,
)
from fewshot_nsl.similarity.functional import PaddingMode
from fewshot_nsl.similarity.kernel_shape import ShapeThreshold

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
def test_what_a_hook_does_to_an_output_is_kept(kind: str) -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)).double()
    net[0].register_forward_hook(lambda _layer, _inputs, output: 2 * output)
    net[0].register_forward_pre_hook(lambda _layer, inputs: (inputs[0] + 1,))
    torch.testing.assert_close(convert(net, kind)(X), net(X), rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_the_convolutions_of_a_predictor_are_not_converted(kind: str, name: str) -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    half = convert(net, "dynamic", predictor=name, where=lambda name, _: name == "0")
    kinds = _kinds(convert(half, kind))
    assert {name: found for name, found in kinds.items() if "predictor" in name} == {
        name: found for name, found in _kinds(half).items() if "predictor" in name
    }
    assert set(left_alone(half)) == {"0"}
    with pytest.raises(ConfigurationError, match=r"Sequential has no plain convolution to convert: 0 is a similarity layer already"):
        convert(convert(net, "dynamic", predictor=name), kind)


def _old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"), torch.no_grad():  # torch copies no model whose weight has a history
        return nn.utils.weight_norm(nn.Conv2d(2, 2, 3))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: nn.Conv2d(2, 2, 1), "has kernels of one tap, for which M is a number"),
        (lambda: nn.Conv2d(2, 2, 1, stride=2, groups=2), "has kernels of one tap, for which M is a number"),
        (lambda: _Own(2, 2, 3), "is a _Own, which may compute something else than nn.Conv2d"),
        (lambda: nn.LazyConv2d(2, 3), "is a LazyConv2d, which may compute something else than nn.Conv2d"),
        (lambda: nn.Conv1d(2, 2, 3), "is a Conv1d, no convolution of images"),
        (lambda: nn.Conv3d(2, 2, 3), "is a Conv3d, no convolution of images"),
        (lambda: nn.ConvTranspose2d(2, 2, 3), "is a ConvTranspose2d, no convolution of images"),
        (
            lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3)),
            "is a ParametrizedConv2d, which may compute something else than nn.Conv2d",
        ),
        (_old_weight_norm, "has a weight that is computed, no parameter"),
        (lambda: nn.utils.spectral_norm(nn.Conv2d(2, 2, 3)), "has a weight that is computed, no parameter"),
        (lambda: StaticSimilarityConv2d(2, 2, 3), "is a similarity layer already"),
        (lambda: DynamicSimilarityConv2d(2, 2, 3), "is a similarity layer already"),
        (lambda: ShiftSimilarityConv2d(2, 2, 3), "is a similarity layer already"),
    ],
)
def test_what_is_left_alone_has_a_reason(layer: Callable[[], nn.Module], reason: str) -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(2, 2, 3), layer()), nn.ReLU())
    assert left_alone(model) == {"0.1": reason}
    assert set(_kinds(convert(model, "static")).values()) >= {StaticSimilarityConv2d}
    with pytest.raises(ConfigurationError, match=f"^Sequential has no plain convolution to convert: 0 {reason}$"):
        convert(nn.Sequential(layer()), "static")


def test_what_where_does_not_want_is_left_alone(net: nn.Module) -> None:
    assert left_alone(net) == {"body.4": "has kernels of one tap, for which M is a number"}
    unwanted = left_alone(net, where=lambda _, layer: layer.kernel_size == (1, 1))
    assert unwanted == dict.fromkeys(["body.0", "body.3", "body.5", "once", "again"], "is not wanted by `where`")


def test_nothing_is_left_alone_where_there_is_no_convolution() -> None:
    assert left_alone(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == {}


@pytest.mark.parametrize("layer", [_old_weight_norm, lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3))])
def test_normalised_weights_keep_their_output(layer: Callable[[], nn.Module]) -> None:
    net = nn.Sequential(layer(), nn.Conv2d(2, 2, 3)).double()
    torch.testing.assert_close(convert(net, "static")(X[:, :2]), net(X[:, :2]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda net: convert(net, "magic"), "kind of similarity 'magic' is unknown: expected one of static, dynamic"),
        (lambda net: convert(net, "static", structure="round"), "similarity structure 'round' is unknown"),
        (lambda net: convert(net, "dynamic", predictor="oracle"), "similarity predictor 'oracle' is unknown"),
        (lambda net: convert(net, "static", shape_threshold=1.0), r"shape_threshold 1\.0: expected a number below 1"),
        (lambda _: convert(nn.Linear(2, 2), "static"), "Linear has no plain convolution to convert: it has no convolution at all$"),
        (
            lambda net: convert(net, "static", where=lambda *_: False),
            "_Net has no plain convolution to convert: body.0 is not wanted by `where`; body.3 is not wanted by `where`; "
            "body.4 is not wanted by `where`$",
        ),
        (
            lambda _: convert(nn.Conv2d(1, 1, 1), "dynamic"),
            "Conv2d has no plain convolution to convert: it has kernels of one tap, for which M is a number$",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused(net: nn.Module, attempt: Callable[[nn.Module], nn.Module], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        attempt(net)


class _Form(NamedTuple):
    """Of a convolution of 4 channels."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | str = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = True
    mode: PaddingMode = "zeros"

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        mode = self.mode
        layer = nn.Conv2d(4, 8, self.kernel, self.stride, self.padding, self.dilation, self.groups, self.bias, mode)
        return nn.Sequential(layer, nn.Tanh()).double()


_PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
_FORMS = st.builds(
    _Form,
    kernel=st.tuples(st.integers(1, 4), st.integers(2, 3)),
    stride=_PAIRS,
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
)
_NAMED_FORMS = [
    _Form((3, 3), padding=(1, 1), groups=2),
    _Form((3, 3), padding=(1, 1), groups=4, bias=False),
    _Form((3, 3), (2, 2), (1, 1)),
    _Form((3, 3), padding=(2, 2), dilation=(2, 2)),
    _Form((2, 2)),
    _Form((4, 2), (2, 1), (1, 0), bias=False),
    _Form((1, 5), padding=(0, 2)),
    _Form((3, 3), padding="same"),
    _Form((2, 4), padding="same", dilation=(2, 1)),
    _Form((3, 2), (2, 1), "valid"),
    _Form((2, 3), padding="same", groups=2, mode="reflect"),
    *(_Form((3, 3), (1, 2), (1, 2), mode=mode) for mode in ("reflect", "replicate", "circular")),
]


def _agree(form: _Form, structure: str, shape_threshold: ShapeThreshold = None) -> None:
    plain = form.build()
    expected = plain(X)
    for kind in ("static", "dynamic"):
        converted = convert(plain, kind, structure=structure, shape_threshold=shape_threshold)
        torch.testing.assert_close(converted(X), expected, rtol=1e-12, atol=1e-12)
    static = convert(plain, "static", structure=structure, shape_threshold=shape_threshold)
    _randomise(static)
    torch.testing.assert_close(fold(static)(X), static(X), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("form", _NAMED_FORMS, ids=str)
def test_every_form_of_convolution_is_the_same_at_the_start_and_folded(form: _Form, structure: str) -> None:
    _agree(form, structure)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(form=_FORMS, structure=st.sampled_from(list(STRUCTURES)))
def test_any_form_of_convolution_is_the_same_at_the_start_and_folded(form: _Form, structure: str) -> None:
    _agree(form, structure)


@pytest.mark.parametrize("threshold", [0.5, "continuous"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_kernel_shape_is_the_same_at_the_start_and_folded(structure: str, threshold: ShapeThreshold) -> None:
    _agree(_Form((3, 3), padding=(1, 1), groups=2), structure, threshold)


def test_a_moved_kernel_shape_is_folded(net: nn.Module) -> None:
    converted = convert(net, "static", shape_threshold=0.5)
    _randomise(converted)
    for value in shape_parameters(converted).values():
        nn.init.uniform_(value)
    folded = fold(converted)
    torch.testing.assert_close(folded(X), converted(X), rtol=1e-12, atol=1e-12)
    assert set(_kinds(folded).values()) == {nn.Conv2d}


def _count(model: nn.Module) -> int:
    return sum(value.numel() for value in added_parameters(model).values())


@pytest.mark.parametrize(("structure", "free"), [("diagonal", 9), ("unconstrained", 81), ("symmetric", 45), ("psd", 45)])
def test_a_static_similarity_adds_its_free_numbers(structure: str, free: int) -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, bias=False))
    converted = convert(net, "static", structure=structure)
    assert set(added_parameters(converted)) == {"0.M", "2.M"}
    assert _count(converted) == 2 * free
    shaped = convert(net, "static", structure=structure, shape_threshold=0.5)
    assert set(added_parameters(shaped)) == {"0.M", "2.M", "0.kernel_shape.D_r", "2.kernel_shape.D_r"}
    assert _count(shaped) == 2 * (free + 9)


@pytest.mark.parametrize(("structure", "free"), [("diagonal", 9), ("unconstrained", 81), ("symmetric", 45), ("psd", 45)])
def test_a_dynamic_similarity_adds_its_predictors(structure: str, free: int) -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3))
    predictor = 32 * 4 * 9 + 2 * 32 + free * 32 * 9 + free
    assert _count(convert(net, "dynamic", structure=structure)) == 2 * predictor
    assert _count(convert(net, "dynamic", structure=structure, shape_threshold=0.5)) == 2 * (predictor + 9)


def test_shared_parameters_are_added_once() -> None:
    net = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))
    shared = share_predictors(convert(net, "dynamic"), X.float())
    assert _count(shared) == 32 * 4 * 9 + 9 * 32 * 9 + 3 * (2 * 32 + 9)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_added_parameters_are_all_that_the_plain_network_has_not(net: nn.Module, kind: str) -> None:
    converted = convert(net, kind, shape_threshold=0.5)
    added = added_parameters(converted)
    named = dict(converted.named_parameters())
    assert set(added) == set(named) - set(dict(net.named_parameters()))
    assert all(added[name] is named[name] for name in added)


def test_predictor_parameters_are_those_of_predictors_alone(net: nn.Module) -> None:
    converted = convert(net, "dynamic", shape_threshold=0.5)
    found, named = predictor_parameters(converted), dict(converted.named_parameters())
    assert set(found) == {name for name in named if ".predictor." in name}
    assert all(found[name] is named[name] for name in found)
    assert predictor_parameters(convert(net, "static")) == predictor_parameters(net) == {}


def test_predictor_parameters_of_linear_layers_and_of_shared_predictors() -> None:
    linear = DynamicSimilarityLinear(4, 5)
    assert set(predictor_parameters(linear)) == {name for name, _ in linear.named_parameters()} - {"weight", "bias"}
    layers = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))
    shared = share_predictors(convert(layers, "dynamic"), X.float())
    assert set(predictor_parameters(shared)) == set(added_parameters(shared))


@pytest.mark.parametrize("layer", [StaticSimilarityLinear, DynamicSimilarityLinear])
def test_added_parameters_of_linear_layers(layer: type[nn.Linear]) -> None:
    model = nn.Sequential(nn.Linear(3, 4), layer(4, 5))
    assert set(added_parameters(model)) == {name for name, _ in model.named_parameters()} - {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_added_parameters_of_a_layer_itself() -> None:
    assert list(added_parameters(StaticSimilarityConv2d(2, 2, 3))) == ["M"]


def test_a_plain_network_has_no_added_parameters(net: nn.Module) -> None:
    assert added_parameters(net) == {}


def test_a_network_without_memory_is_converted() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    for kind in ("static", "dynamic"):
        assert {value.device.type for value in convert(net, kind, structure="psd", shape_threshold=0.5).parameters()} == {"meta"}


def test_a_converted_layer_has_the_precision_of_its_weight() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, dtype=torch.bfloat16), nn.Conv2d(4, 4, 3, dtype=torch.bfloat16))
    for kind in ("static", "dynamic"):
        assert {value.dtype for value in convert(net, kind, shape_threshold=0.5).parameters()} == {torch.bfloat16}


def test_the_maps_of_a_recurrent_cell_are_folded() -> None:
    cell = SimilarityLSTMCell(3, 5).double()
    _randomise(cell)
    folded = fold(cell)
    assert {name: type(layer) for name, layer in folded.named_children()} == {"input_map": nn.Linear, "hidden_map": nn.Linear}
    x, state = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(folded(x, (state[0], state[1])), cell(x, (state[0], state[1])), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("structure", "blocks"), [("diagonal", 1), ("unconstrained", 2), ("symmetric", 3), ("psd", 1)])
def test_a_linear_layer_is_folded(structure: str, blocks: int) -> None:
    model = nn.Sequential(StaticSimilarityLinear(6, 4, structure=structure, blocks=blocks), nn.ReLU()).double()
    _randomise(model)
    folded = fold(model)
    x = torch.randn(3, 6, dtype=torch.float64)
    assert type(folded[0]) is nn.Linear  # type: ignore[index]
    torch.testing.assert_close(folded(x), model(x), rtol=1e-12, atol=1e-12)


def test_a_shift_layer_is_folded_into_a_pair() -> None:
    model = nn.Sequential(ShiftSimilarityConv2d(4, 6, (2, 3), 2, (1, 1), (2, 1)), nn.ReLU()).double()
    _randomise(model)
    folded = fold(model)
    assert [type(layer) for layer in folded[0]] == [Shift, nn.Conv2d]  # type: ignore[index]
    assert folded[0][1].kernel_size == (1, 1)  # type: ignore[index]
    torch.testing.assert_close(folded(X), model(X), rtol=1e-12, atol=1e-12)


def test_every_kind_of_layer_is_folded_at_once(net: nn.Module) -> None:
    model = nn.Sequential(
        convert(net, "static"), ShiftSimilarityConv2d(4, 4, 3).double(), nn.Flatten(2), StaticSimilarityLinear(9, 2).double()
    )
    assert set(similarity_parameters(model)) == {"0.body.0.M", "0.body.3.M", "0.body.5.M", "0.once.M", "1.M", "3.M"}
    _randomise(model)
    folded = fold(model)
    assert added_parameters(folded) == {}
    torch.testing.assert_close(folded(X), model(X), rtol=1e-12, atol=1e-12)


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


def test_dynamic_linear_layers_cannot_be_folded_and_are_named() -> None:
    model = nn.Sequential(StaticSimilarityLinear(3, 3), DynamicSimilarityLinear(3, 3), convert(nn.Conv2d(1, 1, 3), "dynamic"))
    with pytest.raises(NotFoldable, match="layers 1, 2 have a similarity that depends on the input"):
        fold(model)
    with pytest.raises(NotFoldable, match="layers DynamicSimilarityLinear have"):
        fold(DynamicSimilarityLinear(3, 3))
    assert [type(layer) for layer in fold(model, partial=True)] == [nn.Linear, DynamicSimilarityLinear, DynamicSimilarityConv2d]  # type: ignore[attr-defined]


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


def _disturb(model: nn.Module) -> None:
    """Similarities near the identity, and statistics of batches, as a trained network has them."""
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in similarity_parameters(model).values():
            value.add_(torch.randn(value.shape, generator=random), alpha=0.1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_(0, 0.1, generator=random)
                module.running_var.uniform_(0.5, 1.5, generator=random)


def _assert_same(got: Tensor, expected: Tensor) -> None:
    assert expected.isfinite().all()
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("residual", [ResNet18, ResNet50])
def test_a_residual_network_is_the_same_at_the_start_and_folded(residual: type[ResNet18] | type[ResNet50], structure: str) -> None:
    torch.manual_seed(0)
    backbone = residual(24, 3, width=4, mean=[127.5] * 3, std=[64.0] * 3)
    net = nn.Sequential(backbone, nn.Linear(backbone.features, 10)).eval()
    _disturb(net)
    images = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    for kind in ("static", "dynamic"):
        converted = convert(net, kind, structure=structure)
        _assert_same(converted(images), net(images))
        ones = {name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)}
        kinds = _kinds(converted)
        assert {name for name, found in kinds.items() if found is nn.Conv2d} == ones == set(left_alone(net))
    converted = convert(net, "static", structure=structure)
    _disturb(converted)
    assert (converted(images) - net(images)).abs().max() > 1e-3
    _assert_same(fold(converted)(images), converted(images))


def _of_timm(name: str) -> nn.Module:
    model: nn.Module = pytest.importorskip("timm").create_model(name, pretrained=False, num_classes=10)
    return model


def _of_torchvision(name: str) -> nn.Module:
    model: nn.Module = pytest.importorskip("torchvision").models.get_model(name, weights=None, num_classes=10)
    return model


FOREIGN = [
    (_of_timm, "resnet18"),
    (_of_timm, "mobilenetv3_small_050"),
    (_of_timm, "regnetx_002"),
    (_of_timm, "convnext_atto"),
    (_of_timm, "efficientnet_b0"),
    (_of_torchvision, "resnet18"),
    (_of_torchvision, "mobilenet_v3_small"),
    (_of_torchvision, "regnet_x_400mf"),
]


@pytest.mark.filterwarnings("default")  # of what these libraries do when they are imported
@pytest.mark.parametrize(("library", "name"), FOREIGN)
def test_networks_of_other_libraries_are_the_same_at_the_start_and_folded(library: Callable[[str], nn.Module], name: str) -> None:
    torch.manual_seed(0)
    net = library(name).eval()
    _disturb(net)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = net(images)
        for kind in ("static", "dynamic"):
            converted = convert(net, kind)
            _assert_same(converted(images), expected)
            left = left_alone(net)
            wide = {name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)}
            assert {name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)} - set(left) == wide
            found = {
                name for name, layer in converted.named_modules() if isinstance(layer, StaticSimilarityConv2d | DynamicSimilarityConv2d)
            }
            assert found == wide
        converted = convert(net, "static")
        _disturb(converted)
        disturbed = converted(images)
        assert (disturbed - expected).abs().max() > 1e-3 * expected.abs().max()
        folded = fold(converted)
        _assert_same(folded(images), disturbed)
        assert list(folded.state_dict()) == list(net.state_dict())
