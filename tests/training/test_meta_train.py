import csv
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewshot_nsl.backbones import build_model
from fewshot_nsl.data import ImageStore
from fewshot_nsl.errors import CheckpointError, ConfigurationError, EpisodeError, TrainingError
from fewshot_nsl.inner_loop import fast
from fewshot_nsl.strategies import MAML, TADAM, MAMLConfig, MetaStatic, MetaStaticConfig, MetaTrainConfig, TADAMConfig
from fewshot_nsl.training import Checkpoint, Run, load_checkpoint, meta_train, restore_strategy
from fewshot_nsl.workspace import Workspace

CPU = torch.device("cpu")
KEPT = Path(__file__).parents[2] / "evaluate" / "checkpoints" / "cifar-fs"
MOVING = {*(f"backbone.blocks.{i}.0.M" for i in range(4)), "classifier"}


Start = tuple[Run, Checkpoint | None, MetaTrainConfig]
"""A finished run, and how it was started."""


@pytest.fixture(scope="session")
def pretrained(plain_run: Run) -> Checkpoint:
    return load_checkpoint(plain_run.best)


@pytest.fixture(scope="session")
def tadam_start(trained: Workspace, tiny_store: ImageStore, maml_config: MAMLConfig) -> Start:
    # The run is that of `network_runs`.
    settings = maml_config.model_dump(exclude={"strategy"}) | {"validation_n_way": maml_config.n_way}
    config = TADAMConfig.checked({key: value for key, value in settings.items() if key in TADAMConfig.model_fields})
    return meta_train(trained, tiny_store, None, config, CPU), None, config


@pytest.fixture(scope="session")
def starts(
    pretrained: Checkpoint, meta_run: Run, meta_config: MetaStaticConfig, maml_run: Run, maml_config: MAMLConfig, tadam_start: Start
) -> dict[str, Start]:
    return {"meta-static": (meta_run, pretrained, meta_config), "maml": (maml_run, None, maml_config), "tadam": tadam_start}


def _log(run: Run) -> list[dict[str, str]]:
    with (run.folder / "log.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def _validations(run: Run) -> list[float]:
    return [float(row["validation"]) for row in _log(run) if row["validation"]]


def test_the_checkpoint_says_what_it_is(trained: Workspace, meta_run: Run, pretrained: Checkpoint, meta_config: MetaStaticConfig) -> None:
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


def test_a_restored_strategy_has_the_learned_weights_and_settings(meta_run: Run, meta_config: MetaStaticConfig) -> None:
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
    workspace: Workspace, meta_run: Run, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaStaticConfig
) -> None:
    run = meta_train(workspace, _with_other_images(tiny_store, "test"), pretrained, meta_config, CPU)
    assert _log(run) == _log(meta_run)
    assert load_checkpoint(run.best).card == load_checkpoint(meta_run.best).card


def test_validation_classes_choose_and_do_not_teach(
    workspace: Workspace, meta_run: Run, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaStaticConfig
) -> None:
    run = meta_train(workspace, _with_other_images(tiny_store, "val"), pretrained, meta_config, CPU)
    assert [row["loss"] for row in _log(run)] == [row["loss"] for row in _log(meta_run)]
    assert _validations(run) != _validations(meta_run)
    assert max(_validations(run)) < max(_validations(meta_run))  # noise cannot be told apart


def test_a_second_call_gives_the_finished_run(
    trained: Workspace, meta_run: Run, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaStaticConfig
) -> None:
    told: list[Any] = []
    run = meta_train(trained, tiny_store, pretrained, meta_config, CPU, progress=lambda *call: told.append(call))
    assert run.folder == meta_run.folder
    assert told == []


@pytest.mark.parametrize("strategy", ["meta-static", "maml", "tadam"])
def test_a_stopped_run_ends_bit_for_bit_as_one_that_was_not(
    workspace: Workspace, starts: dict[str, Start], tiny_store: ImageStore, strategy: str
) -> None:
    whole, start, config = starts[strategy]

    def interrupt(done: int, total: int, metrics: Mapping[str, float]) -> None:
        del total, metrics
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingError, match="stopped by SIGINT after step"):
        meta_train(workspace, tiny_store, start, config, CPU, progress=interrupt)
    torch.manual_seed(99)  # the process that goes on is another
    run = meta_train(workspace, tiny_store, start, config, CPU)
    assert _log(run) == _log(whole)
    for name in ("last", "best"):
        found, expected = (load_checkpoint(getattr(each, name)) for each in (run, whole))
        assert found.card == expected.card
        assert found.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(found.tensors[key], value) for key, value in expected.tensors.items())


def test_what_co_trains_is_built_for_the_base_classes_of_the_store(tadam_start: Start, tiny_store: ImageStore) -> None:
    run, _, _ = tadam_start
    base = [label for label in tiny_store.split_labels("train") if label >= 0]
    checkpoint = load_checkpoint(run.best)
    assert checkpoint.card.settings == {"base_batch": 64, "base_classes": len(set(base))}
    strategy = restore_strategy("tadam", checkpoint, CPU)
    assert isinstance(strategy, TADAM)
    assert strategy.base_classes == len(set(base))
    of_base = [bool(row["accuracy"]) for row in _log(run)]
    assert any(of_base)
    assert not all(of_base)


def test_another_pretrained_checkpoint_is_another_run(
    workspace: Workspace, plain_run: Run, tiny_store: ImageStore, meta_config: MetaStaticConfig
) -> None:
    short = meta_config.model_copy(update={"iterations": 1})
    runs = [meta_train(workspace, tiny_store, load_checkpoint(path), short, CPU) for path in (plain_run.best, plain_run.last)]
    assert runs[0].folder.name.startswith("seed0-")
    assert runs[0].folder != runs[1].folder


def test_only_a_plain_checkpoint_can_be_started_from(
    workspace: Workspace, dynamic_run: Run, meta_run: Run, tiny_store: ImageStore, meta_config: MetaStaticConfig
) -> None:
    for run in (dynamic_run, meta_run):
        checkpoint = load_checkpoint(run.best)
        message = f"checkpoint {run.best} is of network '{checkpoint.card.network}': meta-static starts from 'plain'"
        with pytest.raises(CheckpointError, match=message):
            meta_train(workspace, tiny_store, checkpoint, meta_config, CPU)


def test_a_checkpoint_of_other_pixels_is_refused(
    workspace: Workspace, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaStaticConfig
) -> None:
    with pytest.raises(CheckpointError, match="was trained on another tiny"):
        meta_train(workspace, replace(tiny_store, fingerprint="0" * 64), pretrained, meta_config, CPU)


def test_episodes_that_cannot_be_drawn_are_refused(
    workspace: Workspace, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaStaticConfig
) -> None:
    with pytest.raises(EpisodeError, match="3 classes cannot make a 4-way episode"):  # val has 3
        meta_train(workspace, tiny_store, pretrained, meta_config.model_copy(update={"n_way": 4}), CPU)


def test_maml_starts_from_weights_of_the_seed_and_moves_all(maml_run: Run, tiny_store: ImageStore, maml_config: MAMLConfig) -> None:
    checkpoint = load_checkpoint(maml_run.last)
    assert (checkpoint.card.network, checkpoint.card.augmentations, checkpoint.card.step) == ("maml", [], 4)
    assert (checkpoint.card.description.width, checkpoint.card.description.mean) == (4, tiny_store.mean)
    torch.manual_seed(maml_config.seed)
    start = MAML(build_model(checkpoint.card.description), n_way=3)
    assert checkpoint.card.settings.items() >= {"n_way": 3, "steps": 2, "test_steps": 3, "lr": 0.1}.items()
    moved = {name for name, value in start.named_parameters() if not torch.equal(value, checkpoint.tensors[name])}
    assert moved == {name for name, _ in start.named_parameters()}
    # Four steps of Adam at 0.05 or less: this near to where they began, and to no other seed's start.
    assert all((checkpoint.tensors[name] - value).abs().max() < 0.2 for name, value in start.named_parameters())


def test_initial_weights_of_maml_follow_from_the_seed_alone(
    workspace: Workspace, tiny_store: ImageStore, maml_run: Run, maml_config: MAMLConfig
) -> None:
    torch.manual_seed(5)
    again = meta_train(workspace, tiny_store, None, maml_config, CPU)
    assert _log(again) == _log(maml_run)
    other = meta_train(workspace, tiny_store, None, maml_config.model_copy(update={"seed": 1}), CPU)
    assert _log(other)[0]["loss"] != _log(again)[0]["loss"]


def test_what_is_trained_from_scratch_takes_no_checkpoint_and_the_other_needs_one(
    workspace: Workspace, pretrained: Checkpoint, tiny_store: ImageStore, meta_config: MetaStaticConfig, maml_config: MAMLConfig
) -> None:
    message = f"maml starts from scratch: expected no checkpoint, got {pretrained.path}; leave --checkpoint out"
    with pytest.raises(CheckpointError, match=message):
        meta_train(workspace, tiny_store, pretrained, maml_config, CPU)
    message = "meta-static starts from a pretrained plain backbone, got none; .* fewshot-nsl pretrain --dataset tiny --network plain"
    with pytest.raises(CheckpointError, match=message):
        meta_train(workspace, tiny_store, None, meta_config, CPU)


def test_a_run_of_the_ledger_is_found_again(workspace: Workspace, tiny_store: ImageStore) -> None:
    pretrained = load_checkpoint(KEPT / "cnn4-plain-seed0.safetensors")
    cifar = replace(tiny_store, name="cifar-fs", fingerprint=pretrained.card.fingerprint, images=np.zeros((200, 32, 32, 3), dtype=np.uint8))
    finished = Run(workspace.runs / "cifar-fs" / "cnn4" / "meta-static" / "seed0-dfa141b8")
    finished.write_record({"status": "finished"})
    assert meta_train(workspace, cifar, pretrained, MetaStaticConfig(), CPU).folder == finished.folder
    kept = load_checkpoint(KEPT / "cnn4-meta-static-seed0.safetensors")
    assert kept.card.settings == MetaStaticConfig().arguments()
    strategy = restore_strategy("meta-static", kept, CPU)
    assert isinstance(strategy, MetaStatic)
    assert all(torch.equal(value, kept.tensors[name]) for name, value in strategy.state_dict().items())


@pytest.mark.parametrize("name", ["meta-static", "maml", "tadam"])
def test_bfloat16_is_another_run_that_begins_alike(
    workspace: Workspace, tiny_store: ImageStore, starts: dict[str, Start], name: str
) -> None:
    exact, pretrained, config = starts[name]
    run = meta_train(workspace, tiny_store, pretrained, config.model_copy(update={"precision": "bfloat16"}), CPU)
    assert run.folder.name != exact.folder.name
    assert (exact.record["precision"], run.record["precision"]) == ("float32", "bfloat16")
    assert (exact.record["engine"], run.record["engine"]) == ("plain", "higher")
    assert "precision" not in exact.record["config"]
    first, rounded = (float(_log(each)[0]["loss"]) for each in (exact, run))
    assert 0 < abs(rounded - first) < 0.1 * first
    assert all(value.dtype in (torch.float32, torch.int64) for value in load_checkpoint(run.last).tensors.values())


def test_an_engine_that_computes_in_float32_is_refused_for_bfloat16(
    workspace: Workspace, tiny_store: ImageStore, maml_config: MAMLConfig
) -> None:
    config = maml_config.model_copy(update={"precision": "bfloat16"})
    with pytest.raises(ConfigurationError, match="engine plain computes in float32, not in bfloat16: use --engine auto or higher"):
        meta_train(workspace, tiny_store, None, config, CPU, engine=fast())
    assert not any(path.is_file() for path in workspace.root.rglob("*"))
