from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeSampler, freeze
from fewshot_nsl.errors import CheckpointError, ConfigurationError, DataError, EpisodeError
from fewshot_nsl.evaluate import Evaluation, evaluate, normal_interval
from fewshot_nsl.inner_loop import Engine, fast, higher
from fewshot_nsl.precision import Precision
from fewshot_nsl.strategies import META_STRATEGIES, STRATEGIES, InnerLoopConfig, LearnsBase, MAMLConfig, ProtoNetConfig, SimpleShot
from fewshot_nsl.training import (
    Row,
    Run,
    evaluate_rows,
    gather_rows,
    load_checkpoint,
    meta_train,
    restore_backbone,
    restore_strategy,
)
from fewshot_nsl.workspace import Workspace, file_checksum

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"n_way": 3, "n_shot": 2, "n_query": 4, "seed": 9}
WRITTEN: dict[str, Any] = {"split": "test", "episodes": 12, "command": "a test"}

Rows = list[Row]


@pytest.fixture(scope="session")
def rows(trained: Workspace, network_runs: dict[str, Run]) -> Rows:
    assert all(run.finished for run in network_runs.values())
    return gather_rows(trained, "tiny", "cnn4", 0, strategies=[], given=[])


@pytest.fixture(scope="session")
def sampler(tiny_store: ImageStore) -> EpisodeSampler:
    return EpisodeSampler(tiny_store.split_labels("test"), **SIZES)


@pytest.fixture(scope="session")
def evaluation(trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler) -> Evaluation:
    return evaluate_rows(trained, rows, tiny_store, CPU, sampler, **WRITTEN)


def test_every_strategy_has_a_row_with_its_accuracy_and_interval(evaluation: Evaluation) -> None:
    assert [row.strategy for row in evaluation.rows] == list(STRATEGIES)
    for row in evaluation.rows:
        assert len(row.accuracies) == 12
        interval = normal_interval(row.accuracies)
        assert (row.accuracy, row.ci95) == (interval.mean, interval.half_width)
        assert row.title == STRATEGIES[row.strategy].title
        assert row.transductive is (row.strategy == "maml")
    assert evaluation.rows[0].accuracy > 0.6  # colours; chance is a third


def test_accuracies_are_those_of_the_evaluator(evaluation: Evaluation, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    for asked, row in zip(rows, evaluation.rows, strict=True):
        strategy = restore_strategy(asked.strategy, asked.checkpoint, CPU)
        if isinstance(strategy, LearnsBase):
            strategy.learn_base([torch.from_numpy(tiny_store.images[np.array(tiny_store.splits["train"])]).movedim(-1, 1)])
        assert row.accuracies == evaluate(strategy, tiny_store, sampler, 12, CPU).tolist()


def test_it_says_what_was_measured(evaluation: Evaluation, tiny_store: ImageStore) -> None:
    measured = evaluation.model_dump(include={*SIZES, *WRITTEN, "dataset", "fingerprint", "frozen"})
    assert measured == SIZES | WRITTEN | {"dataset": "tiny", "fingerprint": tiny_store.fingerprint, "frozen": None}
    assert evaluation.created.tzinfo is not None
    assert evaluation.versions["torch"] == torch.__version__
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_it_says_from_what(evaluation: Evaluation, trained: Workspace, rows: Rows) -> None:
    for checkpoint, row in zip([asked.checkpoint for asked in rows], evaluation.rows, strict=True):
        assert row.checkpoint.startswith("runs/tiny/cnn4/")
        assert trained.root / row.checkpoint == checkpoint.path
        assert row.checkpoint_sha256 == file_checksum(checkpoint.path)
        from_scratch = row.strategy in META_STRATEGIES and META_STRATEGIES[row.strategy].from_scratch
        augmentations = [] if from_scratch else ["crop", "flip"]
        assert (row.trained_on, row.backbone, row.width, row.augmentations) == ("tiny", "cnn4", 4, augmentations)
    plain, dynamic = evaluation.rows[0], evaluation.rows[list(STRATEGIES).index("dynamic")]
    assert plain.parameters == sum(p.numel() for p in restore_backbone(load_checkpoint(trained.root / plain.checkpoint)).parameters())
    assert dynamic.parameters > plain.parameters


def test_another_dataset_is_measured_and_both_are_named(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler
) -> None:
    other = replace(tiny_store, name="other", fingerprint="0" * 64)
    evaluation = evaluate_rows(trained, rows[:1], other, CPU, sampler, **WRITTEN)
    assert (evaluation.dataset, evaluation.fingerprint, evaluation.rows[0].trained_on) == ("other", "0" * 64, "tiny")


def test_other_pixels_of_the_same_dataset_are_refused_unless_forced(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler
) -> None:
    other = replace(tiny_store, fingerprint="0" * 64)
    with pytest.raises(CheckpointError, match="was trained on another tiny"):
        evaluate_rows(trained, rows[:1], other, CPU, sampler, **WRITTEN)
    assert evaluate_rows(trained, rows[:1], other, CPU, sampler, **WRITTEN, force=True).fingerprint == "0" * 64


def test_all_rows_are_checked_before_the_first_is_computed(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler
) -> None:
    told: list[Any] = []
    wrong = Row("dynamic", rows[0].checkpoint)
    with pytest.raises(CheckpointError, match="is of network 'plain': strategy dynamic takes 'dynamic'"):
        evaluate_rows(trained, [rows[0], wrong], tiny_store, CPU, sampler, **WRITTEN, progress=lambda *call: told.append(call))
    assert told == []


def test_progress_is_told_by_row(trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate_rows(trained, rows[:3], tiny_store, CPU, sampler, **WRITTEN, progress=lambda *call: told.append(call))
    assert [call for call in told if call[1] == 12] == [(STRATEGIES[row.strategy].title, 12, 12) for row in rows[:3]]


def test_frozen_episodes_give_the_accuracies_of_the_sampler_and_are_named(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler, evaluation: Evaluation, tmp_path: Path
) -> None:
    frozen = freeze(tiny_store, sampler, tmp_path / "frozen.parquet", split="test", episodes=20)
    again = evaluate_rows(trained, rows, tiny_store, CPU, frozen, **WRITTEN)
    assert [row.accuracies for row in again.rows] == [row.accuracies for row in evaluation.rows]
    assert again.model_dump(include={*SIZES, *WRITTEN}) == SIZES | WRITTEN
    assert again.frozen == frozen.fingerprint


def test_different_shots_of_the_ways_are_written_one_by_one(trained: Workspace, rows: Rows, tiny_store: ImageStore) -> None:
    uneven = EpisodeSampler(tiny_store.split_labels("test"), 3, [1, 3, 2], 4, seed=9)
    evaluation = evaluate_rows(trained, rows, tiny_store, CPU, uneven, **WRITTEN)
    assert evaluation.n_shot == (1, 3, 2)
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_more_episodes_than_are_frozen_are_refused_before_the_first_row(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler, tmp_path: Path
) -> None:
    told: list[Any] = []
    frozen = freeze(tiny_store, sampler, tmp_path / "frozen.parquet", split="test", episodes=11)
    with pytest.raises(EpisodeError, match="episode 11 is out of range: the frozen set has 11, numbered from 0"):
        evaluate_rows(trained, rows, tiny_store, CPU, frozen, **WRITTEN, progress=lambda *call: told.append(call))
    assert told == []


@pytest.mark.parametrize("name", [name for name, entry in META_STRATEGIES.items() if issubclass(entry.config, InnerLoopConfig)])
def test_another_number_of_ways_than_was_learned_is_refused(trained: Workspace, rows: Rows, tiny_store: ImageStore, name: str) -> None:
    sampler = EpisodeSampler(tiny_store.split_labels("test"), **(SIZES | {"n_way": 2}))
    with pytest.raises(EpisodeError, match=f"{name} learned a 3-way classifier, the episodes have 2 ways"):
        evaluate_rows(trained, [row for row in rows if row.strategy == name], tiny_store, CPU, sampler, **WRITTEN)


def test_a_given_engine_takes_the_steps_and_is_written_down(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler, evaluation: Evaluation
) -> None:
    assert evaluation.engine is None
    given = evaluate_rows(trained, rows, tiny_store, CPU, sampler, engine=higher, **WRITTEN)
    assert given.engine == "higher"
    for row, other in zip(given.rows, evaluation.rows, strict=True):
        assert row.accuracies == pytest.approx(other.accuracies, abs=1 / 12)


def test_no_engine_is_made_where_nothing_takes_steps(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler
) -> None:
    def refuse() -> Engine:
        raise AssertionError

    still = [row for row in rows if row.strategy in ("nearest-mean", "retrained", "simple-shot", "cosine", "ridge", "dynamic")]
    assert evaluate_rows(trained, still, tiny_store, CPU, sampler, engine=refuse, **WRITTEN).engine is None
    with pytest.raises(AssertionError):
        evaluate_rows(trained, rows, tiny_store, CPU, sampler, engine=refuse, **WRITTEN)


def test_bfloat16_moves_no_accuracy_much_and_is_written_down(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler, evaluation: Evaluation
) -> None:
    rounded = evaluate_rows(trained, rows, tiny_store, CPU, sampler, precision=Precision("bfloat16", CPU), **WRITTEN)
    assert (evaluation.precision, rounded.precision, rounded.engine) == ("float32", "bfloat16", "higher")
    for row, exact in zip(rounded.rows, evaluation.rows, strict=True):
        assert row.accuracy == pytest.approx(exact.accuracy, abs=0.05)


def test_an_engine_that_computes_in_float32_is_refused_for_bfloat16(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler
) -> None:
    message = "^engine plain computes in float32, not in bfloat16: use --engine auto or higher, or --precision float32$"
    with pytest.raises(ConfigurationError, match=message):
        evaluate_rows(trained, rows, tiny_store, CPU, sampler, engine=fast, precision=Precision("bfloat16", CPU), **WRITTEN)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_what_wants_base_images_is_given_each_of_them_once_and_before_any_episode(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    learn, encode, events = SimpleShot.learn_base, SimpleShot.encode, []

    def watch_encoding(self: SimpleShot, images: Tensor) -> Tensor:
        assert torch.is_autocast_enabled("cpu") is (name == "bfloat16")
        return encode(self, images)

    def watch(self: SimpleShot, images: Iterable[Tensor]) -> None:
        batches = list(images)
        events.append("base images")
        assert np.array_equal(torch.cat(batches).movedim(1, -1).numpy(), tiny_store.images[np.array(tiny_store.splits["train"])])
        assert torch.is_autocast_enabled("cpu") is (name == "bfloat16")
        learn(self, batches)

    monkeypatch.setattr(SimpleShot, "learn_base", watch)
    monkeypatch.setattr(SimpleShot, "encode", watch_encoding)
    chosen = [row for row in rows if row.strategy in ("nearest-mean", "simple-shot")]
    evaluate_rows(
        trained,
        chosen,
        tiny_store,
        CPU,
        sampler,
        **WRITTEN,
        precision=Precision(name, CPU),
        progress=lambda title, done, _: events.append(title) if done == 12 else None,
    )
    assert events == ["plain, nearest class mean", "base images", "plain, SimpleShot"]


@pytest.mark.parametrize("splits", [{}, {"train": range(0)}], ids=str)
def test_a_store_without_base_images_is_refused_before_the_first_row_where_they_are_wanted(
    trained: Workspace, rows: Rows, tiny_store: ImageStore, sampler: EpisodeSampler, splits: dict[str, range]
) -> None:
    told: list[Any] = []
    bare = replace(tiny_store, splits={"val": tiny_store.splits["val"], "test": tiny_store.splits["test"]} | splits)
    chosen = [row for row in rows if row.strategy in ("nearest-mean", "simple-shot")]
    message = r"^tiny has no images of split 'train', which simple-shot wants to see first; leave it out \(--strategy\)$"
    with pytest.raises(DataError, match=message):
        evaluate_rows(trained, chosen, bare, CPU, sampler, **WRITTEN, progress=lambda *call: told.append(call))
    assert told == []
    assert len(evaluate_rows(trained, chosen[:1], bare, CPU, sampler, **WRITTEN).rows) == 1


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_learned_metric_with_similarity_inside_says_so_in_every_precision(
    workspace: Workspace, tiny_store: ImageStore, sampler: EpisodeSampler, name: str
) -> None:
    config = ProtoNetConfig(
        n_way=3, n_shot=2, n_query=3, validation_n_way=3, iterations=1, validation_episodes=2, backbone="cnn4", width=4, similarity="static"
    )
    checkpoint = load_checkpoint(meta_train(workspace, tiny_store, None, config, CPU).best)
    evaluation = evaluate_rows(
        workspace, [Row("protonet", checkpoint)], tiny_store, CPU, sampler, **WRITTEN, precision=Precision(name, CPU)
    )
    assert evaluation.rows[0].title == "ProtoNet, static NSN"


def test_the_setting_that_maml_was_trained_in_is_that_of_its_row(
    workspace: Workspace, tiny_store: ImageStore, sampler: EpisodeSampler, maml_run: Run, maml_config: MAMLConfig
) -> None:
    run = meta_train(workspace, tiny_store, None, maml_config.model_copy(update={"transductive": False}), CPU)
    assert run.folder.name != maml_run.folder.name
    checkpoints = [load_checkpoint(each.best) for each in (maml_run, run)]
    # One written before there were two settings.
    old = {name: value for name, value in checkpoints[0].card.settings.items() if name != "transductive"}
    card = checkpoints[0].card.model_copy(update={"settings": old})
    chosen = [Row("maml", checkpoint) for checkpoint in (*checkpoints, checkpoints[0].model_copy(update={"card": card}))]
    rows = evaluate_rows(workspace, chosen, tiny_store, CPU, sampler, **WRITTEN).rows
    assert [row.transductive for row in rows] == [True, False, True]
    assert rows[2].accuracies == rows[0].accuracies != rows[1].accuracies
