"""Where training from scratch begins: the backbone that a configuration chooses, for a store, and weights that follow from the seed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fewshot_nsl.backbones import USUAL_STRUCTURES, BackboneChoice, ModelDescription, SimilarityKind
from fewshot_nsl.data import ImageStore


def describe_backbone(
    choice: BackboneChoice, store: ImageStore, similarity: SimilarityKind = "plain", structure: str | None = None
) -> ModelDescription:
    """The chosen backbone for images of `store`, normalised by its base images; M has its usual structure where none is given."""
    return ModelDescription(
        backbone=choice.backbone,
        image_size=store.images.shape[1],
        channels=store.images.shape[3],
        width=choice.width,
        mean=store.mean,
        std=store.std,
        similarity=similarity,
        structure=structure or USUAL_STRUCTURES[similarity],
    )


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Modules built inside get weights that are a function of `seed`; torch's own random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
