"""Every step of a recipe in seconds: what is wrong shows before a night is spent on it."""

from collections.abc import Mapping
from typing import Any

from fewshot_nsl.training.recipe import Recipe

DATASET = "glyphs"
"""Embedded: there is nothing to get."""

_PRETRAINING = {"width": 4, "epochs": 1, "batch_size": 512, "augment": True}
_META_TRAINING = {"width": 4, "iterations": 2, "meta_batch": 1, "validate_every": 1, "validation_episodes": 2, "augment": True}
_EVALUATION = {"episodes": 2}


def shortened(recipe: Recipe) -> Recipe:
    """The same recipe with a few steps of a small network on `DATASET`; what it comes to says nothing.

    Strategy, similarity, backbone, ways, shots and inner steps are the recipe's. Images are always augmented, so that recipes of several
    datasets share what is trained.
    """
    values = recipe.model_dump(exclude={"pretraining": {"seed"}, "meta_training": {"seed"}})
    parts = {"pretraining": _PRETRAINING, "meta_training": _META_TRAINING, "evaluation": _EVALUATION}
    short = {name: _replaced(values[name], less) for name, less in parts.items() if values[name]}
    return Recipe.model_validate(values | short | {"dataset": DATASET})


def _replaced(values: Mapping[str, Any], less: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with those of `less` that it has a field for."""
    return {**values, **{name: value for name, value in less.items() if name in values}}
