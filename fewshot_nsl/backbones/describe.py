"""A model as a few words that travel with its weights, and back."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.cnn4 import CNN4
from fewshot_nsl.backbones.cnn4_maps import CNN4Maps
from fewshot_nsl.backbones.cnn9 import CNN9
from fewshot_nsl.backbones.plain import PlainCIFAR, PlainImageNet
from fewshot_nsl.backbones.resnet import ResNet18, ResNet50
from fewshot_nsl.backbones.resnet12 import ResNet12
from fewshot_nsl.config import Config, LeftOut
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import convert

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "cnn4": CNN4,
    "cnn4-maps": CNN4Maps,
    "cnn9": CNN9,
    "plain-cifar": PlainCIFAR,
    "plain-imagenet": PlainImageNet,
    "resnet12": ResNet12,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
}
"""Each is called with `(image_size, channels, *, width, mean, std)`."""


def get_backbone(name: str) -> Callable[..., Backbone]:
    """The backbone of this name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in BACKBONES:
        raise ConfigurationError(f"backbone '{name}' is unknown: expected one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def usual_width(name: str) -> int:
    """The width that the backbone of this name has when none is given.

    Raises:
        ConfigurationError: there is no such backbone.
    """
    return inspect.signature(get_backbone(name)).parameters["width"].default


class BackboneChoice(Config):
    """The part of a configuration that says which backbone is trained."""

    backbone: str = Field(default="cnn4", description="a name in BACKBONES")
    width: int = Field(gt=0, description="filters of the first stage; where none is given, what is usual for the backbone")

    @model_validator(mode="before")
    @classmethod
    def _usual_width(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values if values.get("width") is not None else values | {"width": usual_width(values.get("backbone", "cnn4"))}


SimilarityKind = Literal["plain", "static", "dynamic"]
USUAL_STRUCTURES: dict[str, str | None] = {"plain": None, "static": "unconstrained", "dynamic": "diagonal"}
"""Of M, where none is given."""


class SimilarityChoice(BackboneChoice):
    """Which backbone, and what its convolutions are."""

    similarity: Annotated[SimilarityKind, LeftOut()] = Field(default="plain", description="convolutions of the backbone")
    structure: Annotated[str | None, LeftOut()] = Field(default=None, description="of M; where none is given, what is usual")

    @model_validator(mode="after")
    def _plain_has_none(self) -> "SimilarityChoice":
        if self.similarity == "plain" and self.structure is not None:
            raise ValueError(f"structure '{self.structure}' is of M, and plain convolutions have none; leave it out")
        return self


class ModelDescription(Config):
    """Everything that is needed to build a backbone, weights apart."""

    backbone: str = Field(description="a name in BACKBONES")
    image_size: int = Field(gt=0, description="pixels on a side")
    channels: int = Field(gt=0)
    width: int = Field(gt=0, description="filters of the first stage; the widths of the others follow from it")
    mean: tuple[float, ...] = Field(description="per channel, pixel units 0-255")
    std: tuple[float, ...] = Field(description="per channel, pixel units 0-255")
    similarity: SimilarityKind = "plain"
    structure: str | None = Field(default=None, description="a name in STRUCTURES; none for plain convolutions")

    @model_validator(mode="after")
    def _one_mean_a_channel(self) -> "ModelDescription":
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"{len(self.mean)} means and {len(self.std)} standard deviations for {self.channels} channels: expected one each"
            )
        return self


def build_model(description: ModelDescription) -> Backbone:
    """The backbone described, with fresh weights.

    Raises:
        ConfigurationError: no such backbone or structure, or sizes the backbone refuses.
    """
    plain = get_backbone(description.backbone)(
        description.image_size, description.channels, width=description.width, mean=description.mean, std=description.std
    )
    if description.similarity == "plain":
        return plain
    return cast(Backbone, convert(plain, description.similarity, structure=description.structure))
