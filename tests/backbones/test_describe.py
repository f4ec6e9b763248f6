from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fewshot_nsl.backbones import BACKBONES, CNN4, Backbone, BackboneChoice, ModelDescription, build_model
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import DynamicSimilarityConv2d, StaticSimilarityConv2d, convert, fold

PLAIN = ModelDescription(backbone="cnn4", image_size=32, channels=3, width=32, mean=(0.1, 1 / 3, 100), std=(1, 2, 1e-3))


@pytest.mark.parametrize("similarity", ["plain", "static", "dynamic"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_is_built_again_from_its_description_as_json(backbone: str, similarity: str) -> None:
    description = PLAIN.model_copy(update={"backbone": backbone, "similarity": similarity})
    again = ModelDescription.model_validate_json(description.model_dump_json())
    assert again == description
    first, second = build_model(description).eval(), build_model(again).eval()
    assert isinstance(first, Backbone)
    second.load_state_dict(first.state_dict())
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(first(images), second(images))
    assert first.features == first(images).shape[1]


def test_the_description_reaches_the_backbone() -> None:
    model = build_model(PLAIN)
    assert isinstance(model, CNN4)
    assert model.features == 128
    torch.testing.assert_close(model.normalise.mean.flatten(), torch.tensor(PLAIN.mean))
    torch.testing.assert_close(model.normalise.std.flatten(), torch.tensor(PLAIN.std))


@pytest.mark.parametrize(
    ("similarity", "structure", "layer", "expected"),
    [
        ("static", None, StaticSimilarityConv2d, "unconstrained"),
        ("static", "diagonal", StaticSimilarityConv2d, "diagonal"),
        ("dynamic", None, DynamicSimilarityConv2d, "diagonal"),
        ("dynamic", "unconstrained", DynamicSimilarityConv2d, "unconstrained"),
    ],
)
def test_similarity_is_in_every_convolution(similarity: str, structure: str | None, layer: type[Any], expected: str) -> None:
    model = build_model(PLAIN.model_copy(update={"similarity": similarity, "structure": structure}))
    assert [module.structure for module in model.modules() if isinstance(module, layer)] == [expected] * 4


def test_number_of_weights_of_the_networks() -> None:
    def weights(**changes: Any) -> int:
        return sum(parameter.numel() for parameter in build_model(PLAIN.model_copy(update=changes)).parameters())

    plain = weights()
    assert plain == 28_768
    assert weights(similarity="static", structure="diagonal") == plain + 4 * 9
    assert weights(similarity="static", structure="unconstrained") == plain + 4 * 81
    # Of each of four predictors: c x 32 and 32 x 9 kernels of 3 x 3, BN's two vectors of 32, and 9 gains.
    predictors = sum(channels * 32 * 9 + 32 * 9 * 9 + 2 * 32 + 9 for channels in (3, 32, 32, 32))
    assert weights(similarity="dynamic") == plain + predictors


def _small(backbone: str) -> tuple[Backbone, Tensor]:
    """A small net whose BN has the statistics of these images."""
    torch.manual_seed(0)
    model = BACKBONES[backbone](32, 3, width=4, mean=[127.5] * 3, std=[64.0] * 3)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    _settle(model, images)
    return model, images


@torch.no_grad()
def _settle(model: nn.Module, images: Tensor) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(images)
    model.eval()


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_every_backbone_gives_the_same_features_when_converted(backbone: str) -> None:
    plain, images = _small(backbone)
    features = plain(images)
    assert features.shape == (6, plain.features)
    assert features.std() > 0.01
    ones = {name for name, layer in plain.named_modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)}
    assert bool(ones) == backbone.startswith("resnet")
    for kind in ("static", "dynamic"):
        model = convert(plain, kind)
        torch.testing.assert_close(model(images), features, rtol=0, atol=1e-4)
        assert {name for name, layer in model.named_modules() if type(layer) is nn.Conv2d} == ones


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_has_the_weights_that_similarity_adds(backbone: str) -> None:
    def weights(model: nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    plain, _ = _small(backbone)
    kernels = [layer.weight.shape for layer in plain.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)]
    sizes = [(channels, height * width) for _, channels, height, width in kernels]
    assert weights(convert(plain, "static")) == weights(plain) + sum(taps**2 for _, taps in sizes)
    # Of each predictor: c x 32 kernels of the layer's size, 32 x K of 3 x 3, BN's two vectors of 32, and K gains.
    predictors = sum(channels * 32 * taps + 32 * taps * 9 + 2 * 32 + taps for channels, taps in sizes)
    assert weights(convert(plain, "dynamic")) == weights(plain) + predictors


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_every_backbone_folds_back_to_plain_convolutions_of_the_same_logits(backbone: str) -> None:
    plain, images = _small(backbone)
    model = convert(nn.Sequential(plain, nn.Linear(plain.features, 5)), "static")
    for module in model.modules():
        if isinstance(module, StaticSimilarityConv2d):
            module.M.add_(0.1 * torch.randn_like(module.M))
    _settle(model, images)
    logits, folded = model(images), fold(model)
    assert not any(isinstance(module, StaticSimilarityConv2d) for module in folded.modules())
    assert {name for name, _ in folded.named_parameters()} == {f"0.{name}" for name, _ in plain.named_parameters()} | {"1.weight", "1.bias"}
    assert (folded(images) - logits).norm() <= 1e-5 * logits.norm()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_width_is_the_number_of_filters_of_the_first_convolution(backbone: str) -> None:
    model = build_model(PLAIN.model_copy(update={"backbone": backbone, "width": 6}))
    assert next(layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)) == 6


def test_a_description_of_version_0_1_and_its_weights_are_still_read() -> None:
    written = (
        '{"backbone":"cnn4","image_size":32,"channels":3,"width":32,"mean":[129.7,125.4,113.2],"std":[68.2,65.4,70.7],'
        '"similarity":"plain","structure":null}'
    )
    model = build_model(ModelDescription.model_validate_json(written))
    names = {f"blocks.{i}.{name}" for i in range(4) for name in ("0.weight", "1.weight", "1.bias")}
    assert {name for name, _ in model.named_parameters()} == names


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="backbone 'vgg' is unknown: expected one of cnn4"):
        build_model(PLAIN.model_copy(update={"backbone": "vgg"}))


def test_an_unknown_structure_and_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="similarity structure 'round' is unknown"):
        build_model(PLAIN.model_copy(update={"similarity": "static", "structure": "round"}))
    with pytest.raises(ConfigurationError, match="expected at least 16 pixels, got 8"):
        build_model(PLAIN.model_copy(update={"image_size": 8}))


@pytest.mark.parametrize("change", [{"similarity": "magic"}, {"width": 0}, {"image_size": -1}, {"colour": "red"}])
def test_descriptions_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        ModelDescription.model_validate(PLAIN.model_dump() | change)


def test_a_description_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        PLAIN.width = 64


@pytest.mark.parametrize(("backbone", "width"), [("cnn4", 32), ("resnet12", 64)])
def test_the_width_is_the_usual_one_where_none_is_given(backbone: str, width: int) -> None:
    assert BackboneChoice.checked({"backbone": backbone}).width == width
    assert BackboneChoice.checked({"backbone": backbone, "width": None}).width == width
    assert BackboneChoice.checked({"backbone": backbone, "width": 6}).width == 6


def test_a_choice_of_an_unknown_backbone_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigurationError, match=r"^backbone 'vgg' is unknown: expected one of cnn4, cnn4-maps, cnn9, [a-z0-9, -]*$"):
        BackboneChoice.checked({"backbone": "vgg"})
