from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import use_kernels, with_batch_statistics
from fewshot_nsl.backbones.pooled import NormReluPool2d
from fewshot_nsl.kernels import Kernels, NativeKernels, PlainKernels, build_native, compiler

SIGNS = {"rising": 1.0, "falling": -1.0, "mixed": None}


def _pair(sign: float | None, dtype: torch.dtype = torch.float32) -> tuple[nn.Sequential, NormReluPool2d]:
    """The plain three, and ours, with the same random parameters and statistics."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)).to(dtype)
    norm = plain[0]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight.normal_().mul_(1 if sign is None else sign * norm.weight.sign())
        norm.bias.normal_()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 3)
    ours = NormReluPool2d(6).to(dtype)
    ours.load_state_dict(deepcopy(norm.state_dict()))
    return plain, ours


def _gradients(module: nn.Module, images: Tensor) -> list[Tensor]:
    images = images.clone().requires_grad_()
    (module(images) ** 2).sum().backward()
    assert images.grad is not None
    return [images.grad, *(parameter.grad for parameter in module.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS.keys())
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_with_fixed_statistics_it_is_the_plain_three_to_the_last_bit(
    sign: float | None, size: tuple[int, int], layout: torch.memory_format
) -> None:
    plain, ours = _pair(sign)
    images = torch.randn(4, 6, *size).contiguous(memory_format=layout)
    assert torch.equal(ours.eval()(images), plain.eval()(images))
    for gradient, expected in zip(_gradients(ours, images), _gradients(plain, images), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS.keys())
def test_in_training_it_is_the_plain_three_to_the_last_bit(sign: float | None) -> None:
    plain, ours = _pair(sign)
    images = torch.randn(4, 6, 8, 8)
    assert torch.equal(ours(images), plain(images))
    assert all(torch.equal(a, b) for a, b in zip(_gradients(ours, images), _gradients(plain, images), strict=True))
    norm = plain[0]
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS.keys())
def test_second_derivatives_agree(sign: float | None) -> None:
    _, ours = _pair(sign, torch.float64)
    images = torch.randn(1, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    ours.eval().requires_grad_(requires_grad=False)
    assert torch.autograd.gradgradcheck(lambda images: ours(images).square(), (images,))


def test_many_weights_at_once_through_torch_func() -> None:
    _, ours = _pair(None)
    ours.eval()
    images = torch.randn(4, 6, 8, 8)
    weights = torch.randn(3, 6)

    def output(weight: Tensor) -> Tensor:
        return torch.func.functional_call(ours, {"weight": weight}, (images,))

    together = torch.func.vmap(output)(weights)
    for weight, each in zip(weights, together, strict=True):
        torch.testing.assert_close(each, output(weight), rtol=1e-5, atol=1e-5)


def test_where_all_four_are_below_zero_nothing_passes() -> None:
    ours = NormReluPool2d(1).eval()
    images = torch.tensor([[[[-1.0, -2.0], [-3.0, -4.0]]]], requires_grad=True)
    output = ours(images)
    output.sum().backward()
    assert output.item() == 0
    assert images.grad is not None
    assert not images.grad.any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS.keys())
def test_where_no_statistics_are_kept_those_of_the_whole_batch_are_used(sign: float | None, *, training: bool) -> None:
    plain, ours = _pair(sign)
    images = torch.randn(4, 6, 7, 5)
    expected = plain.train()(images)
    own = with_batch_statistics(ours).train(training)
    assert torch.equal(own(images), expected)
    assert own.running_mean is None


NATIVE = pytest.param("native", marks=pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"))


@pytest.fixture(params=["plain", NATIVE])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return NativeKernels(build_native()) if request.param == "native" else PlainKernels()


@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS.keys())
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_trained_on_kernels_it_is_the_plain_three(
    kernels: Kernels, sign: float | None, size: tuple[int, int], momentum: float | None
) -> None:
    plain, ours = _pair(sign, torch.float64)
    use_kernels(nn.Sequential(ours), kernels)
    norm = plain[0]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.momentum = ours.momentum = momentum
    for _ in range(2):
        images = torch.randn(4, 6, *size, dtype=torch.float64)
        for value, expected in zip([ours(images), *_gradients(ours, images)], [plain(images), *_gradients(plain, images)], strict=True):
            torch.testing.assert_close(value, expected)
    assert int(ours.get_buffer("num_batches_tracked")) == 4
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(images), plain.eval()(images))


def test_kernels_are_used_in_training_and_there_alone() -> None:
    class Refusing(PlainKernels):
        def pool(self, z: Tensor) -> tuple[Tensor, Tensor]:
            raise AssertionError(z.shape)

    _, ours = _pair(None)
    images = torch.randn(2, 6, 4, 4)
    use_kernels(ours, Refusing())
    with pytest.raises(AssertionError):
        ours(images)
    # Statistics of half precision are not the kernels' matter.
    assert ours(images.bfloat16()).dtype == torch.bfloat16
    ours.eval()(images)
    use_kernels(ours, None)
    ours.train()(images)
