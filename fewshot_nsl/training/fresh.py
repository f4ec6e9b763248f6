"""Where training from scratch begins: the backbone that a configuration chooses, for a store, and weights that follow from the seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from fewshot_nsl.backbones import BackboneChoice, ModelDescription
from fewshot_nsl.data import ImageStore


def describe_backbone(choice: BackboneChoice, store: ImageStore, similarity: Literal["plain", "dynamic"] = "plain") -> ModelDescription:
    """The chosen backbone for images of `store`, normalised by its base images."""
    return ModelDescription(
        backbone=choice.backbone,
        image_size=store.images.shape[1],
        channels=store.images.shape[3],
        width=choice.width,
        mean=store.mean,
        std=store.std,
        similarity=similarity,
        structure="diagonal" if similarity == "dynamic" else None,
    )


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Modules built inside get weights that are a function of `seed`; torch's own random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
