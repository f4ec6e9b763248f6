import itertools

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from fewshot_nsl.kernels.convolution import Geometry, convolution

GEOMETRIES = [
    Geometry((1, 1), (1, 1), (1, 1), 1),
    Geometry((2, 1), (0, 1), (1, 1), 1),
    Geometry((1, 1), (2, 2), (2, 2), 1),
    Geometry((1, 1), (1, 1), (1, 1), 2),
    Geometry((2, 2), (1, 0), (1, 2), 4),
]
EVERY_GEOMETRY = pytest.mark.parametrize("geometry", GEOMETRIES)


def _inputs(geometry: Geometry) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    images = torch.randn(2, 4, 6, 5, generator=random, dtype=torch.float64)
    return images.requires_grad_(), torch.randn(8, 4 // geometry.groups, 3, 3, generator=random, dtype=torch.float64).requires_grad_()


@EVERY_GEOMETRY
def test_is_torchs_own_to_the_second_derivative(geometry: Geometry) -> None:
    inputs = _inputs(geometry)
    results = []
    for function in (convolution, lambda x, w, g: functional.conv2d(x, w, None, *g)):
        output = function(*inputs, geometry)
        first = torch.autograd.grad(output.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum() + first[1].pow(3).sum(), inputs)
        results.append((output, *first, *second))
    torch.testing.assert_close(*results, check_stride=False)


@EVERY_GEOMETRY
@pytest.mark.parametrize("moving", [(0,), (1,), (0, 1)])
def test_has_the_derivatives_of_finite_differences(geometry: Geometry, moving: tuple[int, ...]) -> None:
    inputs = _inputs(geometry)

    def of_moving(*values: Tensor) -> Tensor:
        whole = [tensor.detach() for tensor in inputs]
        for place, value in zip(moving, values, strict=True):
            whole[place] = value
        return convolution(whole[0], whole[1], geometry)

    chosen = [inputs[place] for place in moving]
    assert gradcheck(of_moving, chosen)
    assert gradgradcheck(of_moving, chosen)


def test_a_third_derivative_is_refused() -> None:
    inputs = _inputs(GEOMETRIES[0])
    first = torch.autograd.grad(convolution(*inputs, GEOMETRIES[0]).pow(3).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(torch.stack([part.pow(3).sum() for part in first]).sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="a third derivative"):
        torch.autograd.grad(torch.stack([part.sum() for part in second]).sum(), inputs)


def test_any_layout_is_taken() -> None:
    geometry = GEOMETRIES[3]
    images, weight = (tensor.detach() for tensor in _inputs(geometry))
    expected = functional.conv2d(images, weight, None, *geometry)
    layouts = [torch.contiguous_format, torch.channels_last]
    for one, other in itertools.product(layouts, repeat=2):
        found = convolution(images.contiguous(memory_format=one), weight.contiguous(memory_format=other), geometry)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, expected, check_stride=False)
