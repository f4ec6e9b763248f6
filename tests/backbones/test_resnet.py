import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import Backbone, ResNet18, ResNet50
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import StaticSimilarityConv2d

Residual = type[ResNet18] | type[ResNet50]


def _resnet(residual: Residual, size: int, channels: int = 3, width: int = 2) -> ResNet18 | ResNet50:
    return residual(size, channels, width=width, mean=[127.5] * channels, std=[64.0] * channels)


@pytest.mark.parametrize(("residual", "features", "parameters"), [(ResNet18, 512, 11_689_512), (ResNet50, 2048, 25_557_032)])
def test_number_of_weights_with_a_classifier_of_1000_classes(residual: Residual, features: int, parameters: int) -> None:
    with torch.device("meta"):
        backbone = _resnet(residual, 224, width=64)
        assert isinstance(backbone, Backbone)
        assert backbone.features == features
        model = nn.Sequential(backbone, nn.Linear(backbone.features, 1000))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("residual", "depths", "convolutions", "projected"), [(ResNet18, (2, 2, 2, 2), 2, [2, 3, 4]), (ResNet50, (3, 4, 6, 3), 3, [1, 2, 3, 4])]
)
def test_names_are_those_of_torchvision(residual: Residual, depths: tuple[int, ...], convolutions: int, projected: list[int]) -> None:
    def norm(name: str) -> set[str]:
        return {f"{name}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}

    expected = {"conv1.weight"} | norm("bn1")
    for layer, depth in enumerate(depths, 1):
        for block in range(depth):
            for number in range(1, convolutions + 1):
                expected |= {f"layer{layer}.{block}.conv{number}.weight"} | norm(f"layer{layer}.{block}.bn{number}")
    for layer in projected:
        expected |= {f"layer{layer}.0.downsample.0.weight"} | norm(f"layer{layer}.0.downsample.1")
    assert len(expected) == {ResNet18: 120, ResNet50: 318}[residual]
    assert set(_resnet(residual, 32).state_dict()) == expected | {"normalise.mean", "normalise.std"}


def test_shapes_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        state = {name: tuple(tensor.shape) for name, tensor in _resnet(ResNet50, 224, width=64).state_dict().items()}
    assert state["conv1.weight"] == (64, 3, 7, 7)
    assert state["layer1.0.conv1.weight"] == (64, 64, 1, 1)
    assert state["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert state["layer4.0.conv1.weight"] == (512, 1024, 1, 1)
    assert state["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert state["layer4.2.conv3.weight"] == (2048, 512, 1, 1)


@pytest.mark.parametrize("size", [32, 45])
@pytest.mark.parametrize(("residual", "convolutions", "strided"), [(ResNet18, 2, 1), (ResNet50, 3, 2)])
def test_residual_blocks_with_the_stride_in_a_3x3_convolution(residual: Residual, convolutions: int, strided: int, size: int) -> None:
    torch.manual_seed(0)
    backbone = _resnet(residual, size).double().train()
    weights = dict(backbone.named_parameters())

    def normed(hidden: Tensor, name: str, stride: int) -> Tensor:
        weight = weights[f"{name}.weight"]
        hidden = functional.conv2d(hidden, weight, stride=stride, padding=weight.shape[-1] // 2)
        return (hidden - hidden.mean((0, 2, 3), keepdim=True)) / (hidden.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()

    images = torch.randint(0, 256, (4, 3, size, size)).double()
    hidden = normed((images - 127.5) / 64, "conv1", 2).relu()
    hidden = functional.max_pool2d(hidden, 3, stride=2, padding=1)
    for layer, depth in enumerate(backbone.depths, 1):
        for block in range(depth):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            projected = f"{name}.downsample.0.weight" in weights
            shortcut = normed(hidden, f"{name}.downsample.0", stride) if projected else hidden
            for number in range(1, convolutions + 1):
                hidden = normed(hidden, f"{name}.conv{number}", stride if number == strided else 1)
                hidden = hidden.relu() if number < convolutions else (hidden + shortcut).relu()
    torch.testing.assert_close(backbone(images), hidden.mean((2, 3)), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("residual", "times"), [(ResNet18, 8), (ResNet50, 32)])
@pytest.mark.parametrize(("size", "channels"), [(17, 3), (28, 1), (84, 3)])
def test_number_of_features(residual: Residual, times: int, size: int, channels: int) -> None:
    backbone = _resnet(residual, size, channels).eval()
    assert backbone.features == 2 * times
    assert backbone(torch.zeros(2, channels, size, size, dtype=torch.uint8)).shape == (2, 2 * times)


@pytest.mark.parametrize(("residual", "similar", "ones"), [(ResNet18, 17, 3), (ResNet50, 17, 36)])
def test_all_but_its_1x1_convolutions_are_what_it_is_handed(residual: Residual, similar: int, ones: int) -> None:
    backbone = residual(32, 1, width=2, mean=[0.0], std=[1.0], convolution=StaticSimilarityConv2d)
    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    assert all((type(layer) is nn.Conv2d) == (layer.kernel_size == (1, 1)) for layer in layers)
    assert (sum(isinstance(layer, StaticSimilarityConv2d) for layer in layers), len(layers)) == (similar, similar + ones)


@pytest.mark.parametrize(
    ("residual", "size", "width", "message"),
    [
        (ResNet18, 16, 64, "ResNet-18 halves its images five times, rounded up: expected at least 17 pixels, got 16"),
        (ResNet50, 16, 64, "ResNet-50 halves its images five times, rounded up: expected at least 17 pixels, got 16"),
        (ResNet18, 32, 0, "ResNet-18's width is its number of filters: expected at least 1, got 0"),
        (ResNet50, 32, 0, "ResNet-50's width is its number of filters: expected at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(residual: Residual, size: int, width: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _resnet(residual, size, width=width)
