import csv
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.errors import CheckpointError, ConfigurationError, EpisodeError, TrainingError
from fewshot_nsl.strategies import MetaStatic
from fewshot_nsl.training import Checkpoint, MetaTrainConfig, Run, load_checkpoint, meta_train, restore_strategy
from fewshot_nsl.workspace import Workspace

CPU = torch.device("cpu")
MOVING = {*(f"backbone.blocks.{i}.0.M" for i in range(4)), "classifier"}


@pytest.fixture(scope="session")
def pretrained(plain_run: Run) -> Checkpoint:
    return load_checkpoint(plain_run.best)


def _log(run: Run) -> list[dict[str, str]]:
    with (run.folder / "log.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def _validations(run: Run) -> list[float]:
    return [float(row["validation"]) for row in _log(run) if row["validation"]]


def test_the_checkpoint_says_what_it_is(trained: Workspace, meta_run: Run, pretrained: Checkpoint, meta_config: MetaTrainConfig) -> None:
    card = load_checkpoint(meta_run.best).card
    assert (card.network, card.dataset, card.fingerprint) == ("meta-static", "tiny", pretrained.card.fingerprint)
    assert card.description == pretrained.card.description
    assert card.augmentations == pretrained.card.augmentations
    assert card.settings["n_way"] == meta_config.n_way
    assert meta_run.folder.parent == trained.runs / "tiny" / "cnn4" / "meta-static"


def test_similarity_and_classifier_move_and_nothing_else(meta_run: Run, pretrained: Checkpoint) -> None:
    start = {f"backbone.{name}": value for name, value in pretrained.part("backbone").items()}
    last = load_checkpoint(meta_run.last).tensors
    for name, value in start.items():
        assert torch.equal(last[name], value)
    assert {name for name in last if not name.startswith("optimizer.")} - start.keys() == MOVING
    assert all(not torch.equal(last[f"backbone.blocks.{i}.0.M"], torch.eye(9).flatten()) for i in range(4))


def test_the_best_is_the_highest_validation(meta_run: Run) -> None:
    validations = _validations(meta_run)
    assert len(validations) == 2
    best = load_checkpoint(meta_run.best).card
    assert best.best == pytest.approx(max(validations), abs=1e-6)
    assert best.step == 2 * (1 + validations.index(max(validations)))


def test_a_restored_strategy_has_the_learned_weights_and_settings(meta_run: Run, meta_config: MetaTrainConfig) -> None:
    checkpoint = load_checkpoint(meta_run.best)
    strategy = restore_strategy("meta-static", checkpoint, CPU)
    assert isinstance(strategy, MetaStatic)
    assert (strategy.n_way, strategy.steps, strategy.test_steps) == (3, meta_config.inner_steps, meta_config.inner_test_steps)
    assert all(torch.equal(value, checkpoint.tensors[name]) for name, value in strategy.state_dict().items())


def _with_other_images(store: ImageStore, split: str) -> ImageStore:
    images, rows = np.array(store.images), store.splits[split]
    images[rows.start : rows.stop] = np.random.default_rng(0).integers(0, 256, images[rows.start : rows.stop].shape)
    return replace(store, images=images)


def test_novel_classes_play_no_part(
    workspace: Workspace, meta_run: Run, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaTrainConfig
) -> None:
    run = meta_train(workspace, _with_other_images(tiny_store, "test"), pretrained, meta_config, CPU)
    assert _log(run) == _log(meta_run)
    assert load_checkpoint(run.best).card == load_checkpoint(meta_run.best).card


def test_validation_classes_choose_and_do_not_teach(
    workspace: Workspace, meta_run: Run, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaTrainConfig
) -> None:
    run = meta_train(workspace, _with_other_images(tiny_store, "val"), pretrained, meta_config, CPU)
    assert [row["loss"] for row in _log(run)] == [row["loss"] for row in _log(meta_run)]
    assert _validations(run) != _validations(meta_run)
    assert max(_validations(run)) < max(_validations(meta_run))  # noise cannot be told apart


def test_a_second_call_gives_the_finished_run(
    trained: Workspace, meta_run: Run, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaTrainConfig
) -> None:
    told: list[Any] = []
    run = meta_train(trained, tiny_store, pretrained, meta_config, CPU, progress=lambda *call: told.append(call))
    assert run.folder == meta_run.folder
    assert told == []


def test_a_stopped_run_ends_bit_for_bit_as_one_that_was_not(
    workspace: Workspace, meta_run: Run, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaTrainConfig
) -> None:
    def interrupt(done: int, total: int, metrics: Mapping[str, float]) -> None:
        del total, metrics
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingError, match="stopped by SIGINT after step"):
        meta_train(workspace, tiny_store, pretrained, meta_config, CPU, progress=interrupt)
    run = meta_train(workspace, tiny_store, pretrained, meta_config, CPU)
    assert _log(run) == _log(meta_run)
    for name in ("last", "best"):
        found, expected = (load_checkpoint(getattr(each, name)) for each in (run, meta_run))
        assert found.card == expected.card
        assert found.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(found.tensors[key], value) for key, value in expected.tensors.items())


def test_another_pretrained_checkpoint_is_another_run(
    workspace: Workspace, plain_run: Run, tiny_store: ImageStore, meta_config: MetaTrainConfig
) -> None:
    short = meta_config.model_copy(update={"iterations": 1})
    runs = [meta_train(workspace, tiny_store, load_checkpoint(path), short, CPU) for path in (plain_run.best, plain_run.last)]
    assert runs[0].folder.name.startswith("seed0-")
    assert runs[0].folder != runs[1].folder


def test_only_a_plain_checkpoint_can_be_started_from(
    workspace: Workspace, dynamic_run: Run, meta_run: Run, tiny_store: ImageStore, meta_config: MetaTrainConfig
) -> None:
    for run in (dynamic_run, meta_run):
        checkpoint = load_checkpoint(run.best)
        message = f"checkpoint {run.best} is of network '{checkpoint.card.network}': meta-static starts from 'plain'"
        with pytest.raises(CheckpointError, match=message):
            meta_train(workspace, tiny_store, checkpoint, meta_config, CPU)


def test_a_checkpoint_of_other_pixels_is_refused(
    workspace: Workspace, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaTrainConfig
) -> None:
    with pytest.raises(CheckpointError, match="was trained on another tiny"):
        meta_train(workspace, replace(tiny_store, fingerprint="0" * 64), pretrained, meta_config, CPU)


def test_episodes_that_cannot_be_drawn_are_refused(
    workspace: Workspace, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaTrainConfig
) -> None:
    with pytest.raises(EpisodeError, match="3 classes cannot make a 4-way episode"):  # val has 3
        meta_train(workspace, tiny_store, pretrained, meta_config.model_copy(update={"n_way": 4}), CPU)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"strategy": "retrained"},
            "strategy of MetaTrainConfig: it is not trained on episodes: expected .*meta-static, got 'retrained'",
        ),
        ({"n_way": 1}, "n_way of MetaTrainConfig: .*greater than 1, got 1"),
        ({"inner_lr": 0}, "inner_lr of MetaTrainConfig: .*greater than 0, got 0"),
    ],
)
def test_configurations_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MetaTrainConfig.checked(values)
