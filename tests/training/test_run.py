import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from fewshot_nsl.backbones import ModelDescription
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.training import CheckpointCard, PretrainConfig, Run, find_run
from fewshot_nsl.training.run import open_run, run_record
from fewshot_nsl.workspace import Workspace

CARD = CheckpointCard(
    network="plain",
    description=ModelDescription(backbone="cnn4", image_size=16, channels=1, width=4, mean=(0,), std=(1,)),
    dataset="tiny",
    fingerprint="ab" * 32,
    seed=3,
    step=0,
)
CONFIG = PretrainConfig(network="plain", width=32, seed=3)


@pytest.fixture
def run(workspace: Workspace) -> Run:
    return open_run(workspace, CARD, CONFIG)


def _rows(run: Run) -> list[dict[str, str]]:
    with (run.folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _log(run: Run, steps: range) -> None:
    log = run.open_log(["step", "loss"], steps.start)
    log.writerows({"step": step, "loss": f"{step}.5"} for step in steps)
    run.close_log()


def test_its_folder_says_what_it_is(workspace: Workspace, run: Run) -> None:
    assert run.folder.parent == workspace.runs / "tiny" / "cnn4" / "plain"
    assert run.folder.name.startswith("seed3-")
    assert open_run(workspace, CARD, CONFIG).folder == run.folder


def test_nothing_is_left_of_a_run_that_wrote_nothing(workspace: Workspace, run: Run) -> None:
    run.clear()
    assert not workspace.runs.exists()


@pytest.mark.parametrize(
    ("card", "config"), [({}, {"lr": 0.05}), ({}, {"augment": False}), ({"fingerprint": "cd" * 32}, {}), ({"seed": 4}, {"seed": 4})]
)
def test_another_configuration_or_store_is_another_run(
    workspace: Workspace, run: Run, card: dict[str, Any], config: dict[str, Any]
) -> None:
    assert open_run(workspace, CARD.model_copy(update=card), CONFIG.model_copy(update=config)).folder != run.folder


def test_a_log_goes_on_where_it_was_closed(run: Run) -> None:
    _log(run, range(3))
    _log(run, range(3, 5))
    assert _rows(run) == [{"step": str(step), "loss": f"{step}.5"} for step in range(5)]


def test_lines_after_the_checkpoint_are_dropped(run: Run) -> None:
    _log(run, range(10))
    log = run.open_log(["step", "loss"], 4)
    log.writerow({"step": 4, "loss": "new"})
    run.close_log()
    assert [row["loss"] for row in _rows(run)] == ["0.5", "1.5", "2.5", "3.5", "new"]


def test_a_line_that_a_killed_process_left_half_written_is_dropped(run: Run) -> None:
    _log(run, range(3))
    with (run.folder / "log.csv").open("a") as file:
        file.write("\x00")
    _log(run, range(3, 4))
    assert [row["step"] for row in _rows(run)] == ["0", "1", "2", "3"]


def test_what_was_logged_can_be_read_before_the_end(run: Run) -> None:
    log = run.open_log(["step", "loss"], 0)
    log.writerow({"step": 0, "loss": "1"})
    assert len(_rows(run)) == 1
    run.close_log()


def test_a_record_says_whether_it_is_finished(run: Run) -> None:
    assert run.record == {}
    assert not run.finished
    run.write_record({"status": "running", "step": 3})
    assert not run.finished
    run.write_record({"status": "finished"})
    assert run.finished
    assert run.record == {"status": "finished"}


def test_clearing_forgets_the_training_and_nothing_else(run: Run) -> None:
    _log(run, range(2))
    run.write_record({"status": "finished"})
    for path in (run.last, run.best, run.folder / "notes.txt"):
        path.write_text("x")
    run.clear()
    assert [path.name for path in run.folder.iterdir()] == ["notes.txt"]


def test_a_record_holds_what_is_needed_to_do_it_again() -> None:
    record = run_record(CARD, CONFIG, torch.device("cpu"))
    assert record["config"] == CONFIG.model_dump()
    assert (record["dataset"], record["fingerprint"], record["network"]) == ("tiny", CARD.fingerprint, "plain")
    assert "threads" in record["hardware"]
    assert record["versions"]["torch"] == torch.__version__


def _finish(workspace: Workspace, **config: Any) -> Run:
    run = open_run(workspace, CARD.model_copy(update={"seed": config.get("seed", 3)}), CONFIG.model_copy(update=config))
    run.write_record({"status": "finished"})
    return run


def test_the_finished_run_is_found(workspace: Workspace, run: Run) -> None:
    assert find_run(workspace, "tiny", "cnn4", "plain", 3) is None
    run.write_record({"status": "running"})
    assert find_run(workspace, "tiny", "cnn4", "plain", 3) is None
    finished = _finish(workspace, lr=0.5)
    found = find_run(workspace, "tiny", "cnn4", "plain", 3)
    assert found is not None
    assert found.folder == finished.folder


def test_other_datasets_networks_and_seeds_are_not_found(workspace: Workspace) -> None:
    _finish(workspace, seed=31)
    assert find_run(workspace, "tiny", "cnn4", "plain", 31) is not None
    for key in (
        ("other", "cnn4", "plain", 31),
        ("tiny", "cnn9", "plain", 31),
        ("tiny", "cnn4", "dynamic", 31),
        ("tiny", "cnn4", "plain", 3),
    ):
        assert find_run(workspace, *key) is None


def test_several_finished_runs_are_listed(workspace: Workspace) -> None:
    runs = [_finish(workspace, lr=lr) for lr in (0.1, 0.2)]
    listed = ", ".join(sorted(str(run.best.relative_to(workspace.root)) for run in runs))
    message = f"2 finished runs of tiny cnn4 plain seed 3: choose one with --checkpoint: {listed}"
    with pytest.raises(CheckpointError) as caught:
        find_run(workspace, "tiny", "cnn4", "plain", 3)
    assert str(caught.value) == message
    assert Path(listed.split(", ")[0]).parts[:2] == ("runs", "tiny")
