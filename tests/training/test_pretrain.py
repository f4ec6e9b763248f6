import csv
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.errors import ConfigurationError, DeviceError, TrainingError
from fewshot_nsl.kernels import PlainKernels
from fewshot_nsl.training import PretrainConfig, Run, load_checkpoint, pretrain, restore_backbone
from fewshot_nsl.workspace import Workspace

CPU = torch.device("cpu")
TINY = PretrainConfig(network="plain", width=4, epochs=2, batch_size=24)
"""6 steps."""


def _files(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.folder.iterdir()}


def _log(run: Run) -> list[dict[str, str]]:
    with (run.folder / "log.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def test_learns_what_can_be_told_apart(workspace: Workspace, tiny_store: ImageStore) -> None:
    run = pretrain(workspace, tiny_store, TINY.model_copy(update={"width": 8, "epochs": 10, "lr": 0.1}), CPU)
    assert run.record["best"] >= 7 / 8  # of the held-out images; chance is a quarter
    losses = [float(row["loss"]) for row in _log(run)]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


@pytest.mark.parametrize("network", ["plain", "dynamic"])
def test_the_checkpoint_says_what_it_is(workspace: Workspace, tiny_store: ImageStore, network: str) -> None:
    config = PretrainConfig.checked({**TINY.model_dump(), "network": network, "epochs": 1, "seed": 7})
    run = pretrain(workspace, tiny_store, config, CPU)
    card = load_checkpoint(run.best).card
    assert (card.network, card.dataset, card.fingerprint, card.seed) == (network, "tiny", tiny_store.fingerprint, 7)
    assert (card.description.similarity, card.description.width, card.description.image_size) == (network, 4, 16)
    assert (card.description.mean, card.description.std) == (tiny_store.mean, tiny_store.std)
    assert card.augmentations == ["crop", "flip"]
    assert run.folder.parent == workspace.runs / "tiny" / "cnn4" / network
    assert restore_backbone(load_checkpoint(run.best)).features == 4


def test_augmentation_can_be_left_out(workspace: Workspace, tiny_store: ImageStore) -> None:
    run = pretrain(workspace, tiny_store, TINY.model_copy(update={"augment": False, "epochs": 1}), CPU)
    assert load_checkpoint(run.best).card.augmentations == []


def test_every_epoch_is_validated(workspace: Workspace, tiny_store: ImageStore) -> None:
    rows = _log(pretrain(workspace, tiny_store, TINY, CPU))
    assert [int(row["step"]) for row in rows if row["validation"]] == [2, 5]


def test_a_second_call_gives_the_finished_run_as_it_is(workspace: Workspace, tiny_store: ImageStore) -> None:
    run = pretrain(workspace, tiny_store, TINY, CPU)
    before, told = _files(run), []
    again = pretrain(workspace, tiny_store, TINY, CPU, progress=lambda *call: told.append(call))
    assert again.folder == run.folder
    assert told == []
    assert _files(run) == before


def test_beginning_again_takes_every_step_again(workspace: Workspace, tiny_store: ImageStore) -> None:
    run = pretrain(workspace, tiny_store, TINY, CPU)
    before, told = load_checkpoint(run.last).tensors, []
    pretrain(workspace, tiny_store, TINY, CPU, resume=False, progress=lambda *call: told.append(call))
    assert len(told) == 6
    after = load_checkpoint(run.last).tensors
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("network", ["plain", "dynamic"])
def test_a_stopped_run_ends_bit_for_bit_as_one_that_was_not(workspace: Workspace, tiny_store: ImageStore, network: str) -> None:
    config = PretrainConfig.checked({**TINY.model_dump(), "network": network})
    whole = pretrain(workspace, tiny_store, config, CPU)
    log, checkpoints = _log(whole), [load_checkpoint(path) for path in (whole.last, whole.best)]

    def interrupt(done: int, total: int, metrics: Mapping[str, float]) -> None:
        del total, metrics
        if done == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingError, match="stopped by SIGINT after step"):
        pretrain(workspace, tiny_store, config, CPU, resume=False, progress=interrupt)
    torch.manual_seed(99)  # the process that goes on is another
    steps: list[int] = []
    resumed = pretrain(workspace, tiny_store, config, CPU, progress=lambda done, *_: steps.append(done))
    assert steps[0] > 3
    assert _log(resumed) == log
    for expected in checkpoints:
        found = load_checkpoint(expected.path)
        assert found.card == expected.card
        assert found.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(found.tensors[name], value) for name, value in expected.tensors.items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "network of PretrainConfig: Field required"),
        ({"network": "static"}, "network of PretrainConfig: .*got 'static'"),
        ({"network": "plain", "epochs": 0}, "epochs of PretrainConfig: .*greater than 0, got 0"),
        ({"network": "plain", "lr": 0}, "lr of PretrainConfig: .*greater than 0, got 0"),
        ({"network": "plain", "seed": 2**63}, "seed of PretrainConfig: .*less than"),
        ({"network": "plain", "color": 1}, "color of PretrainConfig: Extra inputs are not permitted, got 1"),
    ],
)
def test_configurations_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PretrainConfig.checked(values)


def test_an_unknown_backbone_is_refused(workspace: Workspace, tiny_store: ImageStore) -> None:
    with pytest.raises(ConfigurationError, match="backbone 'cnn5' is unknown: expected one of cnn4"):
        pretrain(workspace, tiny_store, TINY.model_copy(update={"backbone": "cnn5"}), CPU)
    assert not any(path.is_file() for path in workspace.root.rglob("*"))


def test_a_run_of_the_ledger_is_found_again(workspace: Workspace, tiny_store: ImageStore) -> None:
    kept = Path(__file__).parents[2] / "evaluate" / "checkpoints" / "cifar-fs" / "cnn4-plain-seed0.safetensors"
    cifar = replace(tiny_store, name="cifar-fs", fingerprint=load_checkpoint(kept).card.fingerprint)
    finished = Run(workspace.runs / "cifar-fs" / "cnn4" / "plain" / "seed0-dd3265d5")
    finished.write_record({"status": "finished"})
    assert pretrain(workspace, cifar, PretrainConfig.checked({"network": "plain"}), CPU).folder == finished.folder


def test_kernels_change_nothing_but_rounding(workspace: Workspace, tiny_store: ImageStore) -> None:
    plain = pretrain(workspace, tiny_store, TINY, CPU)
    expected, record = load_checkpoint(plain.last).tensors, plain.record
    run = pretrain(workspace, tiny_store, TINY, CPU, kernels=PlainKernels(), resume=False)
    assert run.folder == plain.folder
    assert (record["engine"], run.record["engine"]) == ("plain", "fast")
    found = load_checkpoint(run.last).tensors
    assert found.keys() == expected.keys()
    assert not all(torch.equal(found[name], value) for name, value in expected.items())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-3)


def test_bfloat16_learns_as_well_and_is_another_run(workspace: Workspace, tiny_store: ImageStore) -> None:
    config = TINY.model_copy(update={"width": 8, "epochs": 10, "lr": 0.1})
    exact = pretrain(workspace, tiny_store, config, CPU)
    run = pretrain(workspace, tiny_store, config.model_copy(update={"precision": "bfloat16"}), CPU)
    assert run.folder != exact.folder
    assert (exact.record["precision"], run.record["precision"]) == ("float32", "bfloat16")
    assert "precision" not in exact.record["config"]
    assert run.record["config"]["precision"] == "bfloat16"
    assert run.record["best"] >= 7 / 8
    assert all(value.dtype in (torch.float32, torch.int64) for value in load_checkpoint(run.last).tensors.values())
    first, rounded = (float(_log(each)[0]["loss"]) for each in (exact, run))
    assert 0 < abs(rounded - first) < 0.02 * first


def test_tf32_is_refused_on_a_processor_before_anything_is_written(workspace: Workspace, tiny_store: ImageStore) -> None:
    with pytest.raises(DeviceError, match="precision tf32 is of GPUs"):
        pretrain(workspace, tiny_store, TINY.model_copy(update={"precision": "tf32"}), CPU)
    assert not any(path.is_file() for path in workspace.root.rglob("*"))
