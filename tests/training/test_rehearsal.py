from typing import Any

import pytest

from fewshot_nsl.training import Recipe, load_recipe, recipe_names, shortened
from fewshot_nsl.workspace import Workspace


@pytest.fixture
def recipe(workspace: Workspace) -> Recipe:
    return load_recipe(workspace, "cifar-fs/meta-static")


def test_little_is_trained_and_evaluated_on_what_is_embedded(recipe: Recipe) -> None:
    short = shortened(recipe)
    assert short.pretraining is not None
    assert short.meta_training is not None
    assert short.dataset == "glyphs"
    assert (short.pretraining.epochs, short.pretraining.width, short.meta_training.iterations, short.evaluation.episodes) == (1, 4, 2, 2)


def test_the_rest_is_the_recipes(recipe: Recipe) -> None:
    changed: Any = {
        "dataset": True,
        "pretraining": {"width", "epochs", "batch_size", "augment"},
        "meta_training": {"iterations", "meta_batch", "validate_every", "validation_episodes", "augment"},
        "evaluation": {"episodes"},
    }
    assert shortened(recipe).model_dump(exclude=changed) == recipe.model_dump(exclude=changed)


def test_every_recipe_can_be_shortened(workspace: Workspace) -> None:
    for name in recipe_names(workspace):
        recipe = load_recipe(workspace, name)
        assert shortened(recipe).strategy_name == recipe.strategy_name


def test_where_it_starts_from_scratch_the_network_is_small(workspace: Workspace) -> None:
    short = shortened(load_recipe(workspace, "cifar-fs/protonet-static"))
    assert short.meta_training is not None
    assert short.meta_training.model_dump()["width"] == 4
    assert short.meta_training.model_dump()["similarity"] == "static"
    assert short.pretraining is None
