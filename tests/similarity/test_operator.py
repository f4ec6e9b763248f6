import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from fewshot_nsl.backbones import CNN4
from fewshot_nsl.similarity import STRUCTURES, convert, similarity_conv2d
from fewshot_nsl.similarity.operator import dynamic_conv2d, dynamic_conv2d_backward

Arguments = tuple[Tensor, Tensor, Tensor]
CHANNELS_LAST = torch.channels_last


class Case(NamedTuple):
    full: bool
    groups: int


CASES = [Case(full, groups) for full in (False, True) for groups in (1, 2)]


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _arguments(case: Case, n: int = 2, size: tuple[int, int] = (4, 5)) -> Arguments:
    """For a 2x3 kernel, stride (1, 2) and padding (1, 1)."""
    h, w = size[0] + 1, (size[1] - 1) // 2 + 1
    taps = (6, 6) if case.full else (6,)
    return _draw(n, 2 * case.groups, *size), _draw(2 * case.groups, 2, 2, 3), _draw(n, *taps, h, w)


def _operator(case: Case) -> Callable[..., Tensor]:
    return partial(similarity_conv2d, stride=(1, 2), padding=1, groups=case.groups)


def _explicit(case: Case) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The same from torch's own functions, windows written out."""

    def compute(x: Tensor, weight: Tensor, similarity: Tensor) -> Tensor:
        n, h, w = len(x), *similarity.shape[-2:]
        seen = functional.unfold(x, (2, 3), 1, 1, (1, 2)).view(n, case.groups, -1, 6, h, w)
        mixed = torch.einsum("nijhw,ngcjhw->ngcihw", similarity, seen) if case.full else seen * similarity[:, None, None]
        kernels = weight.view(case.groups, -1, 2, 6)
        return torch.einsum("goci,ngcihw->ngohw", kernels, mixed).flatten(1, 2)

    return compute


def _requiring(values: Arguments) -> Arguments:
    x, weight, similarity = (value.clone().requires_grad_() for value in values)
    return x, weight, similarity


def _layer(kind: str = "dynamic", structure: str = "diagonal", dtype: torch.dtype = torch.float64) -> nn.Module:
    """Not at its start, where gradients vanish."""
    torch.manual_seed(1)
    layer = convert(nn.Conv2d(4, 6, 3, padding=1, groups=2), kind, structure=structure).to(dtype).eval()
    _wake(layer)
    return layer


def _wake(model: nn.Module) -> None:
    random = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith(("M", "gain")):
            with torch.no_grad():
                parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.3)


def _gradients(model: nn.Module, output: Tensor) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(output.square().sum(), list(named.values())), strict=True))


X = _draw(2, 4, 6, 7)


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_accepts_the_operator(case: Case) -> None:
    geometry = ([1, 2], [1, 1], [1, 1], case.groups)
    results = torch.library.opcheck(dynamic_conv2d, (*_requiring(_arguments(case)), *geometry))
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("wanted", [[True, True, True], [True, False, True], [False, True, False]], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_accepts_the_operators_gradient(case: Case, wanted: list[bool]) -> None:
    geometry = ([1, 2], [1, 1], [1, 1], case.groups)
    values = _requiring(_arguments(case))
    gradient = torch.randn_like(dynamic_conv2d(*values, *geometry)).requires_grad_()
    results = torch.library.opcheck(dynamic_conv2d_backward, (gradient, *values, *geometry, wanted))
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.usefixtures("_traced")
def test_torch_accepts_the_operator_on_channels_last_and_expanded_arguments() -> None:
    x, weight, similarity = _arguments(Case(full=True, groups=1))
    x = x.contiguous(memory_format=CHANNELS_LAST).requires_grad_()
    similarity = similarity[:1, ..., :1, :1].expand_as(similarity)
    results = torch.library.opcheck(dynamic_conv2d, (x, weight, similarity, [1, 2], [1, 1], [1, 1], 1))
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_derivatives_of_third_order_are_those_of_the_explicit_computation(case: Case) -> None:
    values = _requiring(_arguments(case))
    directions = [tuple(_draw(*value.shape, 1 + order)[..., order] for value in values) for order in range(2)]

    def third(compute: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        total = compute(*values).pow(3).sum()
        for along in directions:
            gradients = torch.autograd.grad(total, values, create_graph=True)
            total = sum(((g * v).sum() for g, v in zip(gradients, along, strict=True)), torch.zeros(()))
        return torch.autograd.grad(total, values)

    for got, expected in zip(third(_operator(case)), third(_explicit(case)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_func_grad_is_that_of_the_explicit_computation(case: Case) -> None:
    values = _arguments(case)

    def gradients(compute: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        return torch.func.grad(lambda *values: compute(*values).square().sum(), argnums=(0, 1, 2))(*values)

    for got, expected in zip(gradients(_operator(case)), gradients(_explicit(case)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_func_jacrev_is_that_of_the_explicit_computation(case: Case) -> None:
    values = _arguments(case, n=1, size=(1, 2))
    jacobians = (torch.func.jacrev(compute, argnums=(0, 1, 2))(*values) for compute in (_operator(case), _explicit(case)))
    for got, expected in zip(*jacobians, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_func_jacrev_twice_is_that_of_the_explicit_computation() -> None:
    case = Case(full=True, groups=1)
    x, weight, similarity = _arguments(case, n=1, size=(1, 1))

    def hessian(compute: Callable[..., Tensor]) -> Tensor:
        return torch.func.jacrev(torch.func.jacrev(lambda weight: compute(x, weight, similarity).pow(3).sum()))(weight)

    torch.testing.assert_close(hessian(_operator(case)), hessian(_explicit(case)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("argument", ["input", "weight", "similarity"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vmap_over_each_argument(case: Case, argument: str, dim: int) -> None:
    values = list(_arguments(case))
    place = ["input", "weight", "similarity"].index(argument)
    several = torch.stack([values[place], -values[place], values[place].square()])
    expected = torch.stack([_operator(case)(*values[:place], one, *values[place + 1 :]) for one in several])
    values[place] = several.movedim(0, dim)
    in_dims = tuple(dim if i == place else None for i in range(3))
    assert torch.equal(torch.func.vmap(_operator(case), in_dims=in_dims)(*values), expected)


def test_vmap_within_vmap() -> None:
    case = Case(full=False, groups=2)
    x, weight, similarity = _arguments(case)
    weights, similarities = torch.stack([weight, 2 * weight]), torch.stack([similarity, -similarity, similarity.square()])
    inner = torch.func.vmap(_operator(case), in_dims=(None, None, 0))
    got = torch.func.vmap(inner, in_dims=(None, 0, None))(x, weights, similarities)
    for i, j in ((0, 0), (1, 2)):
        assert torch.equal(got[i, j], _operator(case)(x, weights[i], similarities[j]))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_vmap_of_func_grad_gives_each_image_its_gradient(structure: str) -> None:
    layer = _layer("dynamic", structure)
    parameters = {name: value.detach() for name, value in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (image[None],)).square().sum()

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, X)
    for i in range(len(X)):
        for name, expected in _gradients(layer, layer(X[i : i + 1])).items():
            torch.testing.assert_close(got[name][i], expected, rtol=1e-10, atol=1e-10)


@pytest.fixture
def _traced() -> Iterator[None]:
    """Sizes are symbols while torch traces: the shape checks of the other tests cannot see through them."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    torch.compiler.reset()
    yield
    torch.compiler.reset()
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_compiled_layer_is_one_graph_of_the_same_output_and_gradients(kind: str, structure: str) -> None:
    layer = _layer(kind, structure)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), layer(X), rtol=1e-12, atol=1e-12)
    expected = _gradients(layer, layer(X))
    for name, got in _gradients(layer, compiled(X)).items():
        torch.testing.assert_close(got, expected[name], rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_one_compilation_serves_any_number_of_images(kind: str) -> None:
    layer = _layer(kind)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    _gradients(layer, compiled(_draw(7, 4, 6, 6)))
    with torch.compiler.set_stance("fail_on_recompile"):
        for n in (2, 5):
            x = _draw(n, 4, 6, 6)
            expected = _gradients(layer, layer(x))
            for name, got in _gradients(layer, compiled(x)).items():
                torch.testing.assert_close(got, expected[name], rtol=1e-10, atol=1e-10)


def _network(kind: str, structure: str = "diagonal") -> nn.Module:
    torch.manual_seed(1)
    network = convert(CNN4(16, 3, width=4, mean=[127.5] * 3, std=[64.0] * 3).double().eval(), kind, structure=structure)
    _wake(network)
    return network


IMAGES = torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize(("kind", "structure"), [("static", "unconstrained"), ("dynamic", "diagonal"), ("dynamic", "psd")])
def test_an_exported_network_computes_the_same(kind: str, structure: str) -> None:
    network = _network(kind, structure)
    exported = torch.export.export(network, (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), network(IMAGES), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("traced", [3, 4])  # 3 is also the number of channels
@pytest.mark.parametrize(("kind", "structure"), [("static", "unconstrained"), ("dynamic", "diagonal"), ("dynamic", "psd")])
def test_an_exported_network_takes_any_number_of_images(kind: str, structure: str, traced: int) -> None:
    network = _network(kind, structure)
    shapes = ({0: torch.export.Dim("n", min=2)},)
    exported = torch.export.export(network, (IMAGES[:traced],), dynamic_shapes=shapes).module()
    for n in (2, 3, 5):
        torch.testing.assert_close(exported(IMAGES[:n]), network(IMAGES[:n]), rtol=1e-12, atol=1e-12)


def _relative(got: Tensor, expected: Tensor) -> float:
    got, expected = got.detach().double(), expected.detach().double()
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_autocast_computes_in_the_precision_of_the_plain_convolution(kind: str, structure: str) -> None:
    layer, x = _layer(kind, structure, torch.float32), X.float()
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
        plain = functional.conv2d(x, torch.zeros(6, 4, 3, 3))
    assert output.dtype == plain.dtype == torch.bfloat16
    assert _relative(output, layer(x)) < 0.02


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_autocast_leaves_double_precision_as_it_is(kind: str) -> None:
    layer = _layer(kind)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(X)
    assert torch.equal(output, layer(X))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_gradients_of_autocast_are_in_the_parameters_precision(kind: str, structure: str) -> None:
    layer, x = _layer(kind, structure, torch.float32), X.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    output.float().square().sum().backward()
    expected = _gradients(layer, layer(x))
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert _relative(parameter.grad, expected[name]) < 0.1


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_layer_of_half_precision_is_close_to_that_of_single_precision(kind: str, structure: str) -> None:
    layer = _layer(kind, structure, torch.float32)
    half, x = copy.deepcopy(layer).to(torch.bfloat16), X.to(torch.bfloat16).requires_grad_()
    output = half(x)
    output.float().square().sum().backward()
    assert output.dtype == torch.bfloat16
    assert _relative(output, layer(X.float())) < 0.02
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    expected = _gradients(layer, layer(X.float()))
    for name, parameter in half.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.bfloat16
        assert _relative(parameter.grad, expected[name]) < 0.1


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_output_and_gradient_of_a_channels_last_input_are_channels_last(kind: str, structure: str) -> None:
    layer = _layer(kind, structure)
    x = X.clone(memory_format=CHANNELS_LAST).requires_grad_()
    output = layer(x)
    (gradient,) = torch.autograd.grad(output.square().sum(), x)
    assert output.is_contiguous(memory_format=CHANNELS_LAST)
    assert gradient.is_contiguous(memory_format=CHANNELS_LAST)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_the_memory_layout_changes_no_value(kind: str, structure: str) -> None:
    layer = _layer(kind, structure)
    results = []
    for memory_format in (torch.contiguous_format, CHANNELS_LAST):
        x = X.clone(memory_format=memory_format).requires_grad_()
        output = layer(x)
        results.append((output, *torch.autograd.grad(output.square().sum(), (x, *layer.parameters()))))
    for contiguous, channels_last in zip(*results, strict=True):
        torch.testing.assert_close(channels_last, contiguous, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_inference_mode(structure: str) -> None:
    layer = _layer("dynamic", structure)
    with torch.inference_mode():
        output = layer(X)
    assert output.is_inference()
    assert torch.equal(output, layer(X))


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_argument_alone_may_want_a_gradient(case: Case, place: int) -> None:
    values = _arguments(case)
    (expected,) = torch.autograd.grad(_explicit(case)(*(every := _requiring(values))).square().sum(), every[place])
    values[place].requires_grad_()
    _operator(case)(*values).square().sum().backward()
    gradient = values[place].grad
    assert gradient is not None
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    assert all(value.grad is None for i, value in enumerate(values) if i != place)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(*, reentrant: bool) -> None:
    layer, x = _layer(), X.clone().requires_grad_()
    expected = torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters()))
    checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
    for value, gradient in zip((x, *layer.parameters()), expected, strict=True):
        assert value.grad is not None
        torch.testing.assert_close(value.grad, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_images_give_no_output_and_gradients_of_zero(case: Case) -> None:
    x, weight, similarity = _requiring(_arguments(case, n=0))
    output = _operator(case)(x, weight, similarity)
    output.sum().backward()
    assert output.shape == (0, len(weight), 5, 3)
    assert weight.grad is not None
    assert not weight.grad.any()
