import json
from typing import Any

import pytest
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeSampler
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.evaluate import result_name, write_evaluation
from fewshot_nsl.training import (
    Recipe,
    evaluate_recipe,
    evaluate_rows,
    find_result,
    find_start,
    gather_rows,
    load_checkpoint,
    train_recipe,
    trained_row,
)
from fewshot_nsl.workspace import Workspace

CPU = torch.device("cpu")
EVALUATION = {"split": "test", "n_way": 3, "n_shot": 2, "n_query": 4, "episodes": 5, "seed": 9}
PRETRAINING = {"network": "plain", "width": 4, "epochs": 4, "batch_size": 24, "lr": 0.2}
META = {"strategy": "meta-static", "n_way": 3, "n_shot": 2, "n_query": 3, "iterations": 2, "inner_steps": 1, "validation_episodes": 2}


def _recipe(**parts: Any) -> Recipe:
    return Recipe.model_validate({"name": "own/row", "title": "a row", "dataset": "tiny", "evaluation": EVALUATION, **parts})


@pytest.fixture
def ridge() -> Recipe:
    return _recipe(pretraining=PRETRAINING, strategy={"name": "ridge", "settings": {"penalty": 300.0}})


@pytest.fixture
def meta_static() -> Recipe:
    return _recipe(pretraining=PRETRAINING, meta_training=META)


def test_what_is_not_trained_is_trained_and_what_is_done_is_left_alone(
    workspace: Workspace, tiny_store: ImageStore, meta_static: Recipe
) -> None:
    told: list[tuple[str, int]] = []

    def progress(name: str) -> Any:
        return lambda done, _total, _metrics: told.append((name, done))

    row = train_recipe(workspace, tiny_store, meta_static, 3, CPU, progress=progress)
    assert {name for name, _ in told} == {"plain", "meta-static"}
    assert (row.strategy, row.recipe, row.checkpoint.card.seed) == ("meta-static", meta_static, 3)
    told.clear()
    again = train_recipe(workspace, tiny_store, meta_static, 3, CPU, progress=progress)
    assert told == []
    assert again.checkpoint.path == row.checkpoint.path


def test_recipes_of_one_configuration_share_a_run(workspace: Workspace, tiny_store: ImageStore, ridge: Recipe, meta_static: Recipe) -> None:
    row = train_recipe(workspace, tiny_store, ridge, 0, CPU)
    train_recipe(workspace, tiny_store, meta_static, 0, CPU)
    start = find_start(workspace, tiny_store, meta_static, 0)
    assert start is not None
    assert start.path == row.checkpoint.path
    assert len(list(workspace.runs.rglob("run.json"))) == 2


def test_the_time_is_that_of_all_training(workspace: Workspace, tiny_store: ImageStore, ridge: Recipe, meta_static: Recipe) -> None:
    for recipe in (ridge, meta_static):
        train_recipe(workspace, tiny_store, recipe, 0, CPU)
    for path, seconds in zip(sorted(workspace.runs.rglob("run.json")), (10.0, 3.25), strict=True):
        assert ("meta-static" in path.parts) == (seconds == 10)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": seconds}))
    assert trained_row(workspace, tiny_store, ridge, 0).training_seconds == 3.2
    assert trained_row(workspace, tiny_store, meta_static, 0).training_seconds == 13.2


def test_one_from_scratch_has_no_start(workspace: Workspace, tiny_store: ImageStore) -> None:
    sizes = {"width": 2, "n_way": 3, "validation_n_way": 3, "n_shot": 2, "n_query": 3, "iterations": 1}
    recipe = _recipe(meta_training={"strategy": "protonet", **sizes})
    assert find_start(workspace, tiny_store, recipe, 0) is None
    assert train_recipe(workspace, tiny_store, recipe, 0, CPU).strategy == "protonet"


def test_what_is_not_trained_is_refused_with_the_command(
    workspace: Workspace, tiny_store: ImageStore, ridge: Recipe, meta_static: Recipe
) -> None:
    message = "^recipe own/row is not trained with seed 4 in .*runs; train it: fewshot-nsl reproduce own/row --seed 4$"
    with pytest.raises(CheckpointError, match=message):
        trained_row(workspace, tiny_store, ridge, 4)
    message = "^the backbone of recipe own/row is not pretrained with seed 4 in .*: fewshot-nsl pretrain --recipe own/row --seed 4$"
    with pytest.raises(CheckpointError, match=message):
        trained_row(workspace, tiny_store, meta_static, 4)
    assert not workspace.runs.exists()


def test_a_row_is_evaluated_on_the_episodes_of_its_recipe(workspace: Workspace, tiny_store: ImageStore, ridge: Recipe) -> None:
    row = train_recipe(workspace, tiny_store, ridge, 2, CPU)
    evaluation = evaluate_recipe(workspace, tiny_store, row, ridge, CPU, command="a test")
    (result,) = evaluation.rows
    assert (evaluation.split, evaluation.episodes, evaluation.seed, evaluation.n_way) == ("test", 5, 9, 3)
    assert (result.recipe, result.recipe_digest, result.training_seed) == ("own/row", ridge.digest, 2)
    assert result.training_seconds == row.training_seconds
    sampler = EpisodeSampler(tiny_store.split_labels("test"), 3, 2, 4, 9, names=tiny_store.classes)
    plain = gather_rows(workspace, "tiny", "cnn4", 2, strategies=["ridge"], given=[load_checkpoint(row.checkpoint.path)])
    usual = evaluate_rows(workspace, plain, tiny_store, CPU, sampler, split="test", episodes=5, command="a test")
    assert usual.rows[0].accuracies != result.accuracies  # another penalty


def test_a_result_is_found_again(workspace: Workspace, tiny_store: ImageStore, ridge: Recipe) -> None:
    row = train_recipe(workspace, tiny_store, ridge, 0, CPU)
    assert find_result(workspace, tiny_store, row) is None
    evaluation = evaluate_recipe(workspace, tiny_store, row, ridge, CPU, command="a test")
    path = workspace.results / result_name(evaluation)
    write_evaluation(evaluation, path)
    assert find_result(workspace, tiny_store, row) == (path, evaluation.rows[0])


@pytest.mark.parametrize("other", ["seed", "recipe", "images"])
def test_the_result_of_another_seed_recipe_or_store_is_not_taken(
    workspace: Workspace, tiny_store: ImageStore, ridge: Recipe, other: str
) -> None:
    row = train_recipe(workspace, tiny_store, ridge, 0, CPU)
    evaluation = evaluate_recipe(workspace, tiny_store, row, ridge, CPU, command="a test")
    if other == "images":
        evaluation = evaluation.model_copy(update={"fingerprint": "ab" * 32})
    write_evaluation(evaluation, workspace.results / result_name(evaluation))
    if other == "seed":
        row = train_recipe(workspace, tiny_store, ridge, 1, CPU)
    elif other == "recipe":
        changed = _recipe(pretraining=PRETRAINING, strategy={"name": "ridge", "settings": {"penalty": 4.0}})
        row = train_recipe(workspace, tiny_store, changed, 0, CPU)
    assert find_result(workspace, tiny_store, row) is None
