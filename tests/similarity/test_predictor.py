import pytest
import torch
from torch import nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import PREDICTORS, SpherePredictor, hyperspherical_conv2d
from fewshot_nsl.similarity.columns import Size2
from fewshot_nsl.similarity.predictor import get_predictor


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_new_predictor_predicts_zeros(name: str) -> None:
    predictor = PREDICTORS[name](3, 9, (3, 3), 1, 1, 1)
    assert not predictor(torch.randn(2, 3, 5, 5)).any()


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [((3, 3), 1, 1, 1), ((2, 3), (2, 1), (0, 2), 1), ((1, 1), 3, 0, 1), ((3, 3), 1, 0, 2)]
)
def test_the_output_has_the_resolution_of_the_convolution(
    name: str, kernel: tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, int], dilation: int
) -> None:
    predicted = PREDICTORS[name](3, 5, kernel, stride, padding, dilation)(torch.randn(2, 3, 8, 7))
    output = nn.Conv2d(3, 1, kernel, stride, padding, dilation)(torch.randn(2, 3, 8, 7))
    assert predicted.shape == (2, 5, *output.shape[2:])


def test_the_sphere_predictor_is_two_cosine_convolutions_with_a_gain() -> None:
    predictor = SpherePredictor(2, 4, (3, 3), padding=1, hidden_channels=6).double().eval()
    gain = torch.tensor([0.0, 1.0, 2.0, -1.0], dtype=torch.float64)
    with torch.no_grad():
        predictor.gain.copy_(gain)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    hidden = functional.relu(hyperspherical_conv2d(x, predictor.first.weight, padding=1) / (1 + predictor.norm.eps) ** 0.5)
    expected = hyperspherical_conv2d(hidden, predictor.second.weight, padding=1) * gain.view(1, 4, 1, 1)
    torch.testing.assert_close(predictor(x), expected)


def test_the_gain_of_a_new_predictor_has_a_gradient() -> None:
    predictor = SpherePredictor(2, 4, (3, 3))
    predictor(torch.randn(2, 2, 5, 5)).square().sum().backward()
    assert predictor.gain.grad is not None
    assert not predictor.gain.grad.any()  # a square is flat at 0
    predictor(torch.randn(2, 2, 5, 5)).sum().backward()
    assert predictor.gain.grad.all()


def test_a_callable_of_ones_own_is_taken_as_it_is() -> None:
    def own(in_channels: int, outputs: int, kernel_size: tuple[int, int], stride: Size2, padding: Size2, dilation: Size2) -> nn.Module:
        return nn.Conv2d(in_channels, outputs, kernel_size, stride, padding, dilation)

    assert get_predictor(own) is own


def test_an_unknown_predictor_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"similarity predictor 'oracle' is unknown: expected one of sphere, or a callable"):
        get_predictor("oracle")
