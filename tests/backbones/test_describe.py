from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fewshot_nsl.backbones import BACKBONES, CNN4, Backbone, ModelDescription, build_model
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import DynamicSimilarityConv2d, StaticSimilarityConv2d

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
