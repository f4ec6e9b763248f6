"""What strategies share that take the features of a pretrained backbone as they are."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.strategies.strategy import Classifier


class FrozenFeatures(ABC):
    """A backbone of which nothing moves, with its own BN statistics; a subclass says how features become a classifier.

    Args:
        backbone: pretrained.
    """

    transductive = False

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone.eval()

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The backbone's features."""
        return self.backbone(images)

    @abstractmethod
    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """As in `Learner`, on what `encode` gives."""
        ...


class UnitFeatures(FrozenFeatures):
    """The same with features of length 1."""

    def encode(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The backbone's features, scaled to length 1."""
        return functional.normalize(super().encode(images), dim=-1)
