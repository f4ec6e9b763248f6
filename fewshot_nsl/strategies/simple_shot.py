"""SimpleShot: the nearest class mean once features are centred and scaled (Wang et al. 2019, "CL2N")."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.errors import DataError
from fewshot_nsl.strategies.frozen import FrozenFeatures
from fewshot_nsl.strategies.prototypes import class_means
from fewshot_nsl.strategies.strategy import Classifier


class SimpleShot(FrozenFeatures):
    """Features minus the mean feature of the base classes, scaled to length 1; logits are minus the squared distances to the class means.

    The base images are needed once, by `learn_base`; a `LearnsBase`.

    Args:
        backbone: pretrained; nothing of it moves.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.base_mean: Tensor | None = None

    @torch.no_grad()
    def learn_base(self, images: Iterable[UInt8[Tensor, "_ c h w"]]) -> None:
        """Take the mean feature of the base images, which come in batches.

        Raises:
            DataError: there are none.
        """
        sums, count = [], 0
        for batch in images:
            features = super().encode(batch)
            sums.append(features.double().sum(0))
            count += len(features)
        if not sums:
            raise DataError("simple-shot centres features by their mean over base images, got no image; give those of the train split")
        self.base_mean = torch.stack(sums).sum(0) / count

    def encode(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The backbone's features, centred and scaled to length 1.

        Raises:
            DataError: no base images were given.
        """
        if self.base_mean is None:
            raise DataError("simple-shot centres features by their mean over base images, which it was not given; call learn_base first")
        features = super().encode(images)
        # Digits are lost where the mean is large; after it, features of any precision have their own again.
        return functional.normalize(features.double() - self.base_mean, dim=-1).to(features.dtype)

    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Average the features of each class."""
        means = class_means(support, support_labels)
        return lambda query: -torch.cdist(query, means).square()
