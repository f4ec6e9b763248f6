import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.similarity.columns import Tap, WeightedColumns, pad_channels_last, stacked_columns, taps_of


@pytest.fixture
def padded() -> Tensor:
    return torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def taps(padded: Tensor) -> list[Tap]:
    return taps_of(padded, (2, 3), (2, 1), (2, 1))


@pytest.fixture
def weights(padded: Tensor, taps: list[Tap]) -> Tensor:
    n, h, w, _ = padded[taps[0]].shape
    return torch.randn(n, h, w, len(taps), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_columns_are_the_windows_that_a_convolution_sees() -> None:
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    padded = pad_channels_last(x, (1, 2))
    columns = stacked_columns(padded, taps_of(padded, (3, 2), (2, 1), (1, 3)))
    windows = functional.unfold(x, (3, 2), dilation=(1, 3), padding=(1, 2), stride=(2, 1))  # [n, c * K, locations]
    n, h, w, taps, c = columns.shape
    assert torch.equal(columns, windows.view(n, c, taps, h, w).permute(0, 3, 4, 2, 1))


def test_weighted_columns_are_columns_times_weights(padded: Tensor, weights: Tensor, taps: list[Tap]) -> None:
    expected = stacked_columns(padded, taps) * weights[..., None]
    assert torch.equal(WeightedColumns.apply(padded, weights, taps), expected)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
def test_derivatives_where_one_factor_or_both_want_one(padded: Tensor, weights: Tensor, taps: list[Tap], wanted: tuple[bool, bool]) -> None:
    inputs = padded.requires_grad_(wanted[0]), weights.requires_grad_(wanted[1])
    assert torch.autograd.gradcheck(lambda p, w: WeightedColumns.apply(p, w, taps), inputs)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
def test_second_derivatives_where_one_factor_or_both_want_one(
    padded: Tensor, weights: Tensor, taps: list[Tap], wanted: tuple[bool, bool]
) -> None:
    inputs = padded[:1].requires_grad_(wanted[0]), weights[:1].requires_grad_(wanted[1])
    assert torch.autograd.gradgradcheck(lambda p, w: WeightedColumns.apply(p, w, taps), inputs)


def test_the_first_derivative_is_the_same_whether_or_not_a_second_is_asked_for(padded: Tensor, weights: Tensor, taps: list[Tap]) -> None:
    inputs = padded.requires_grad_(), weights.requires_grad_()
    output = WeightedColumns.apply(*inputs, taps)
    direction = torch.randn_like(output)
    once = torch.autograd.grad(output, inputs, direction, retain_graph=True)
    twice = torch.autograd.grad(output, inputs, direction, create_graph=True)
    for plain, differentiable in zip(once, twice, strict=True):
        assert differentiable.requires_grad
        torch.testing.assert_close(plain, differentiable)
