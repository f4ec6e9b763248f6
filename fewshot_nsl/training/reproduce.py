"""From a recipe and a seed to a result: what is not there yet is trained, what was begun goes on, what is done is left alone."""

from collections.abc import Callable
from pathlib import Path

import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeSampler
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.evaluate import Evaluation, ResultRow, read_evaluations
from fewshot_nsl.inner_loop import Engine
from fewshot_nsl.precision import Precision
from fewshot_nsl.training.checkpoint import Checkpoint, load_checkpoint
from fewshot_nsl.training.loop import Progress
from fewshot_nsl.training.meta_train import meta_train, plan_meta_training
from fewshot_nsl.training.pretrain import plan_pretraining, pretrain
from fewshot_nsl.training.recipe import Recipe
from fewshot_nsl.training.row import Row
from fewshot_nsl.training.run import Run
from fewshot_nsl.training.table import evaluate_rows
from fewshot_nsl.workspace import Workspace


def train_recipe(
    workspace: Workspace,
    store: ImageStore,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    *,
    engine: Engine | None = None,
    tasks_at_once: int | None = None,
    progress: Callable[[str], Progress] | None = None,
) -> Row:
    """Train what the recipe asks for, as far as it was not trained before.

    Args:
        workspace: where the runs are; recipes share those of one configuration.
        store: of the recipe's dataset.
        recipe: what to train.
        seed: of all its training.
        device: what is computed on.
        engine: as in `meta_train`; pretraining runs on its kernels.
        tasks_at_once: as in `meta_train`.
        progress: gives, for the name of what is trained, what is called after every step.

    Raises:
        CheckpointError, ConfigurationError, DeviceError, EpisodeError, TrainingError: as `pretrain` and `meta_train`.
    """
    if pretraining := recipe.pretrain_config(seed):
        kernels = engine.kernels if engine else None
        pretrain(workspace, store, pretraining, device, kernels=kernels, progress=progress and progress(pretraining.network))
    if meta := recipe.meta_config(seed):
        start = find_start(workspace, store, recipe, seed)
        meta_train(
            workspace,
            store,
            start,
            meta,
            device,
            engine=engine,
            tasks_at_once=tasks_at_once,
            progress=progress and progress(meta.strategy),
        )
    return trained_row(workspace, store, recipe, seed)


def find_start(workspace: Workspace, store: ImageStore, recipe: Recipe, seed: int) -> Checkpoint | None:
    """The pretrained backbone that the recipe's training on episodes starts from; None where it starts from scratch.

    Raises:
        CheckpointError: it was not pretrained in this workspace, or not to its end.
    """
    pretraining = recipe.pretrain_config(seed)
    if pretraining is None:
        return None
    run, _ = plan_pretraining(workspace, store, pretraining)
    if not run.finished:
        raise CheckpointError(
            f"the backbone of recipe {recipe.name} is not pretrained with seed {seed} in {workspace.runs}; train it first: "
            f"fewshot-nsl pretrain --recipe {recipe.name} --seed {seed}"
        )
    return load_checkpoint(run.best)


def trained_row(workspace: Workspace, store: ImageStore, recipe: Recipe, seed: int) -> Row:
    """The recipe as it was trained in this workspace.

    Raises:
        CheckpointError: it was not, or not to its end.
    """
    runs: list[Run] = []
    if pretraining := recipe.pretrain_config(seed):
        runs.append(plan_pretraining(workspace, store, pretraining)[0])
    if meta := recipe.meta_config(seed):
        runs.append(plan_meta_training(workspace, store, find_start(workspace, store, recipe, seed), meta)[0])
    if not runs[-1].finished:
        raise CheckpointError(
            f"recipe {recipe.name} is not trained with seed {seed} in {workspace.runs}; train it: "
            f"fewshot-nsl reproduce {recipe.name} --seed {seed}"
        )
    seconds = sum(float(run.record["seconds"]) for run in runs)
    return Row(recipe.strategy_name, load_checkpoint(runs[-1].best), recipe, round(seconds, 1))


def evaluate_recipe(
    workspace: Workspace,
    store: ImageStore,
    row: Row,
    recipe: Recipe,
    device: torch.device,
    *,
    command: str,
    engine: Callable[[], Engine] | None = None,
    precision: Precision | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a row on the episodes of its recipe; the arguments are those of `evaluate_rows`.

    Raises:
        CheckpointError, EpisodeError: as `evaluate_rows`.
    """
    asked = recipe.evaluation
    labels = store.split_labels(asked.split)
    sampler = EpisodeSampler(labels, asked.n_way, asked.n_shot, asked.n_query, asked.seed, names=store.classes)
    return evaluate_rows(
        workspace,
        [row],
        store,
        device,
        sampler,
        split=asked.split,
        episodes=asked.episodes,
        command=command,
        engine=engine,
        precision=precision,
        progress=progress,
    )


def find_result(workspace: Workspace, store: ImageStore, row: Row) -> tuple[Path, ResultRow] | None:
    """The row as it was evaluated before: of the same recipe, checkpoint and images; and the file that says so."""
    for name, evaluation in read_evaluations(workspace.results).items():
        for result in evaluation.rows:
            same = row.recipe and (result.recipe_digest, result.checkpoint_sha256) == (row.recipe.digest, row.checkpoint_sha256)
            if same and evaluation.fingerprint == store.fingerprint:
                return workspace.results / name, result
    return None
