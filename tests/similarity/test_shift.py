from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import Shift, ShiftSimilarityConv2d, similarity_conv2d

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1, "bias": False},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2},
    {"kernel_size": (2, 4), "padding": (0, 2), "stride": (1, 2)},
    {"kernel_size": (3, 1), "padding": (2, 0), "dilation": (2, 1), "bias": False},
    {"kernel_size": (1, 3), "stride": (3, 1), "padding": 2, "dilation": (1, 2)},
    {"kernel_size": 1},
]

X = torch.randn(2, 5, 7, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _layer(geometry: dict[str, Any]) -> ShiftSimilarityConv2d:
    torch.manual_seed(1)
    layer = ShiftSimilarityConv2d(5, 6, **geometry, dtype=torch.float64)
    nn.init.normal_(layer.M)
    return layer


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _moved(x: Tensor, taps: list[int], kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Tensor:
    """Pixel by pixel."""
    kernel, stride, padding, dilation = map(_pair, (kernel_size, stride, padding, dilation))
    n, c, *size = x.shape
    h, w = ((size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1))
    moved = torch.zeros(n, c, h, w, dtype=x.dtype)
    for channel, row, column in product(range(c), range(h), range(w)):
        r = row * stride[0] + taps[channel] // kernel[1] * dilation[0] - padding[0]
        s = column * stride[1] + taps[channel] % kernel[1] * dilation[1] - padding[1]
        if 0 <= r < size[0] and 0 <= s < size[1]:
            moved[:, channel, row, column] = x[:, channel, r, s]
    return moved


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_each_channel_keeps_its_largest_magnitude(geometry: dict[str, Any]) -> None:
    layer = _layer(geometry)
    similarity = layer.similarity()
    taps = layer.weight[0, 0].numel()
    assert similarity.shape == (5, taps, taps)
    for block, kept in zip(layer.M.detach(), similarity.detach(), strict=True):
        assert kept.count_nonzero() == 1
        assert kept.flatten()[kept.abs().argmax()] == max(block.flatten().tolist(), key=abs)
        assert torch.equal(kept[kept != 0], block[kept != 0])


def test_at_the_start_the_channels_take_the_taps_in_turn() -> None:
    similarity = ShiftSimilarityConv2d(6, 2, 2).similarity()
    expected = torch.zeros(6, 4, 4)
    for channel, tap in enumerate([0, 1, 2, 3, 0, 1]):
        expected[channel, tap, tap] = 1
    assert torch.equal(similarity, expected)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_output_is_that_of_the_functional_form(geometry: dict[str, Any]) -> None:
    layer = _layer(geometry)
    geometry = {name: value for name, value in geometry.items() if name not in {"kernel_size", "bias"}}
    expected = similarity_conv2d(X, layer.weight, layer.similarity(), layer.bias, **geometry)
    assert torch.equal(layer(X), expected)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_output_is_the_sum_over_shifted_channels(geometry: dict[str, Any]) -> None:
    layer = _layer(geometry)
    blocks, kernels, taps = layer.M.detach(), layer.weight.detach().flatten(2), layer.weight[0, 0].numel()
    largest = [max(product(range(taps), range(taps)), key=lambda place: abs(float(block[place]))) for block in blocks]
    moved = _moved(X, [column for _, column in largest], **{name: value for name, value in geometry.items() if name != "bias"})
    weights = torch.stack([kernels[:, c, row] * blocks[c, row, column] for c, (row, column) in enumerate(largest)], 1)
    expected = torch.einsum("oc,nchw->nohw", weights, moved)
    expected = expected if layer.bias is None else expected + layer.bias[:, None, None]
    torch.testing.assert_close(layer(X), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_every_entry_has_the_gradient_of_the_dense_similarity(geometry: dict[str, Any]) -> None:
    layer = _layer(geometry)
    towards = torch.randn(layer(X).shape, dtype=torch.float64)
    (layer(X) * towards).sum().backward()
    dense = layer.similarity().detach().requires_grad_()
    geometry = {name: value for name, value in geometry.items() if name not in {"kernel_size", "bias"}}
    (similarity_conv2d(X, layer.weight, dense, layer.bias, **geometry) * towards).sum().backward()
    assert layer.M.grad is not None
    assert dense.grad is not None
    assert torch.equal(layer.M.grad, dense.grad)
    assert dense.grad.count_nonzero() == dense.numel()


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_folded_layer_is_a_shift_and_a_1x1_convolution_of_the_same_output(geometry: dict[str, Any]) -> None:
    layer = _layer(geometry)
    shift, pointwise = folded = layer.fold()
    assert isinstance(shift, Shift)
    assert type(pointwise) is nn.Conv2d
    assert pointwise.kernel_size == (1, 1)
    torch.testing.assert_close(folded(X), layer(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_the_folded_layer_has_a_weight_for_each_pair_of_channels(*, bias: bool) -> None:
    folded = _layer({"kernel_size": 3, "bias": bias}).fold()
    sizes = {name: value.numel() for name, value in folded.named_parameters()}
    assert sizes == ({"1.weight": 5 * 6, "1.bias": 6} if bias else {"1.weight": 5 * 6})


def test_the_folded_layer_has_weights_of_its_own() -> None:
    layer = _layer({"kernel_size": 3}).eval()
    before = layer(X)
    folded = layer.fold()
    assert not any(module.training for module in folded.modules())
    for parameter in folded.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(layer(X), before)


def test_training_can_choose_another_entry() -> None:
    x = X[:, :1]
    layer = ShiftSimilarityConv2d(1, 1, 3, bias=False, dtype=torch.float64)
    nn.init.ones_(layer.weight)
    assert layer.similarity()[0].nonzero().tolist() == [[0, 0]]
    target = x[:, :, 1:-1, 2:]  # what tap 5 sees
    optimizer = torch.optim.SGD([layer.M], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        functional.mse_loss(layer(x), target).backward()
        optimizer.step()
    assert layer.similarity()[0].nonzero()[0, 1] == 5
    torch.testing.assert_close(layer(x), target, rtol=1e-3, atol=1e-3)


def test_derivatives_in_the_input_and_the_weight() -> None:
    torch.manual_seed(0)
    layer = ShiftSimilarityConv2d(2, 2, 2, dtype=torch.float64)
    nn.init.normal_(layer.M)

    def compute(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    inputs = X[:1, :2, :3, :3].clone().requires_grad_(), layer.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


def test_torch_func_maps_over_similarities() -> None:
    torch.manual_seed(0)
    layer = ShiftSimilarityConv2d(5, 2, 2, dtype=torch.float64)
    several = torch.randn(3, 5, 4, 4, dtype=torch.float64)

    def loss(similarity: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layer, {"M": similarity}, (X,))
        return y.pow(2).sum()

    expected = torch.stack([torch.func.grad(loss)(one) for one in several])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(several), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_shift_moves_each_channel_to_where_its_tap_sees_it(geometry: dict[str, Any]) -> None:
    geometry = {name: value for name, value in geometry.items() if name != "bias"}
    kernel = _pair(geometry.pop("kernel_size"))
    taps = [tap % (kernel[0] * kernel[1]) for tap in (3, 0, 5, 1, 3)]
    shift = Shift(torch.tensor(taps), kernel, **geometry).double()
    assert torch.equal(shift(X), _moved(X, taps, kernel, **geometry))


def test_a_shift_passes_the_gradient_back() -> None:
    shift = Shift(torch.tensor([0, 3, 8, 4, 4]), (3, 3), padding=1).double()
    assert torch.autograd.gradcheck(shift, (X[:1, :, :3, :3].clone().requires_grad_(),))


def test_a_shift_learns_nothing_and_is_restored_from_its_state() -> None:
    shift, other = Shift(torch.tensor([0, 1]), (1, 2)), Shift(torch.tensor([1, 1]), (1, 2))
    assert not list(shift.parameters())
    other.load_state_dict(shift.state_dict())
    x = X[:, :2].float()
    assert torch.equal(other(x), shift(x))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"groups": 2}, "groups 2, padding 0 with mode 'zeros'"),
        ({"padding": "same"}, "groups 1, padding 'same' with mode 'zeros'"),
        ({"padding": 1, "padding_mode": "reflect"}, "groups 1, padding 1 with mode 'reflect'"),
    ],
)
def test_groups_and_other_paddings_are_refused(arguments: dict[str, Any], shown: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{shown}: a shift takes one group and a number of zeros$"):
        ShiftSimilarityConv2d(4, 4, 3, **arguments)
