from dataclasses import replace
from typing import Any

import pytest
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeSampler
from fewshot_nsl.errors import CheckpointError, DataError, EpisodeError
from fewshot_nsl.evaluate import Evaluation, evaluate, normal_interval
from fewshot_nsl.strategies import STRATEGIES
from fewshot_nsl.training import Checkpoint, Run, evaluate_rows, gather_rows, load_checkpoint, restore_backbone, restore_strategy
from fewshot_nsl.workspace import Workspace, file_checksum

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"split": "test", "n_way": 3, "n_shot": 2, "n_query": 4, "episodes": 12, "seed": 9, "command": "a test"}

Rows = list[tuple[str, Checkpoint]]


@pytest.fixture(scope="session")
def rows(trained: Workspace, plain_run: Run, dynamic_run: Run, meta_run: Run) -> Rows:
    assert plain_run.finished
    assert dynamic_run.finished
    assert meta_run.finished
    return gather_rows(trained, "tiny", "cnn4", 0, strategies=[], given=[])


@pytest.fixture(scope="session")
def evaluation(trained: Workspace, rows: Rows, tiny_store: ImageStore) -> Evaluation:
    return evaluate_rows(trained, rows, tiny_store, CPU, **SIZES)


def test_every_strategy_has_a_row_with_its_accuracy_and_interval(evaluation: Evaluation) -> None:
    assert [row.strategy for row in evaluation.rows] == list(STRATEGIES)
    for row in evaluation.rows:
        assert len(row.accuracies) == 12
        interval = normal_interval(row.accuracies)
        assert (row.accuracy, row.ci95) == (interval.mean, interval.half_width)
        assert row.title == STRATEGIES[row.strategy].title
        assert row.transductive is False
    assert evaluation.rows[0].accuracy > 0.6  # colours; chance is a third


def test_accuracies_are_those_of_the_evaluator(evaluation: Evaluation, rows: Rows, tiny_store: ImageStore) -> None:
    sampler = EpisodeSampler(tiny_store.split_labels("test"), 3, 2, 4, seed=9)
    for (name, checkpoint), row in zip(rows, evaluation.rows, strict=True):
        assert row.accuracies == evaluate(restore_strategy(name, checkpoint, CPU), tiny_store, sampler, 12, CPU).tolist()


def test_it_says_what_was_measured(evaluation: Evaluation, tiny_store: ImageStore) -> None:
    measured = evaluation.model_dump(include={*SIZES, "dataset", "fingerprint"})
    assert measured == SIZES | {"dataset": "tiny", "fingerprint": tiny_store.fingerprint}
    assert evaluation.created.tzinfo is not None
    assert evaluation.versions["torch"] == torch.__version__
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_it_says_from_what(evaluation: Evaluation, trained: Workspace, rows: Rows) -> None:
    for (_, checkpoint), row in zip(rows, evaluation.rows, strict=True):
        assert row.checkpoint.startswith("runs/tiny/cnn4/")
        assert trained.root / row.checkpoint == checkpoint.path
        assert row.checkpoint_sha256 == file_checksum(checkpoint.path)
        assert (row.trained_on, row.backbone, row.width, row.augmentations) == ("tiny", "cnn4", 4, ["crop", "flip"])
    plain, dynamic = evaluation.rows[0], evaluation.rows[list(STRATEGIES).index("dynamic")]
    assert plain.parameters == sum(p.numel() for p in restore_backbone(load_checkpoint(trained.root / plain.checkpoint)).parameters())
    assert dynamic.parameters > plain.parameters


def test_another_dataset_is_measured_and_both_are_named(trained: Workspace, rows: Rows, tiny_store: ImageStore) -> None:
    other = replace(tiny_store, name="other", fingerprint="0" * 64)
    evaluation = evaluate_rows(trained, rows[:1], other, CPU, **SIZES)
    assert (evaluation.dataset, evaluation.fingerprint, evaluation.rows[0].trained_on) == ("other", "0" * 64, "tiny")


def test_other_pixels_of_the_same_dataset_are_refused_unless_forced(trained: Workspace, rows: Rows, tiny_store: ImageStore) -> None:
    other = replace(tiny_store, fingerprint="0" * 64)
    with pytest.raises(CheckpointError, match="was trained on another tiny"):
        evaluate_rows(trained, rows[:1], other, CPU, **SIZES)
    assert evaluate_rows(trained, rows[:1], other, CPU, **SIZES, force=True).fingerprint == "0" * 64


def test_all_rows_are_checked_before_the_first_is_computed(trained: Workspace, rows: Rows, tiny_store: ImageStore) -> None:
    told: list[Any] = []
    wrong = ("dynamic", rows[0][1])
    with pytest.raises(CheckpointError, match="is of network 'plain': strategy dynamic takes 'dynamic'"):
        evaluate_rows(trained, [rows[0], wrong], tiny_store, CPU, **SIZES, progress=lambda *call: told.append(call))
    assert told == []


def test_progress_is_told_by_row(trained: Workspace, rows: Rows, tiny_store: ImageStore) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate_rows(trained, rows[:3], tiny_store, CPU, **SIZES, progress=lambda *call: told.append(call))
    assert [call for call in told if call[1] == 12] == [(STRATEGIES[name].title, 12, 12) for name, _ in rows[:3]]


def test_sizes_that_cannot_be_drawn_and_unknown_splits_are_refused(trained: Workspace, rows: Rows, tiny_store: ImageStore) -> None:
    with pytest.raises(EpisodeError, match="3 classes cannot make a 4-way episode"):
        evaluate_rows(trained, rows, tiny_store, CPU, **(SIZES | {"n_way": 4}))
    with pytest.raises(DataError, match="tiny has no split 'dev'"):
        evaluate_rows(trained, rows, tiny_store, CPU, **(SIZES | {"split": "dev"}))


def test_another_number_of_ways_than_meta_static_learned_is_refused(trained: Workspace, rows: Rows, tiny_store: ImageStore) -> None:
    with pytest.raises(EpisodeError, match="meta-static learned a 3-way classifier, the episodes have 2 ways"):
        evaluate_rows(trained, rows, tiny_store, CPU, **(SIZES | {"n_way": 2}))
