import csv
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import ModelDescription
from fewshot_nsl.errors import CheckpointError, TrainingError
from fewshot_nsl.training import CheckpointCard, Run, load_checkpoint
from fewshot_nsl.training.loop import optimizer_tensors, restore_optimizer, train

CARD = CheckpointCard(
    network="plain",
    description=ModelDescription(backbone="cnn4", image_size=16, channels=1, width=4, mean=(0,), std=(1,)),
    dataset="tiny",
    fingerprint="ab" * 32,
    seed=0,
    step=0,
)
STEPS = 12
SCORES = {4: 0.5, 8: 0.9, 12: 0.7}
"""Steps done -> validation accuracy."""
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda module: torch.optim.SGD(module.parameters(), 0.1, momentum=0.9),
    "adam": lambda module: torch.optim.Adam(module.parameters(), 0.1),
}


class _Line:
    """A line through points that belong to the number of the step."""

    def __init__(self, optimizer: str = "sgd") -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(2, 1)
        self.optimizer = OPTIMIZERS[optimizer](self.model)
        self.taken: list[int] = []
        self.bad_step: int | None = None
        self.signals: dict[int, list[signal.Signals]] = {}
        """Step -> what comes while it is under way."""

    def step(self, index: int) -> dict[str, float]:
        for number in self.signals.get(index, []):
            os.kill(os.getpid(), number)
        random = torch.Generator().manual_seed(index)
        loss = (self.model(torch.randn(8, 2, generator=random)) - torch.randn(8, 1, generator=random)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.taken.append(index)
        return {"loss": float("nan") if index == self.bad_step else loss.item(), "accuracy": 0.25, "lr": 0.1}

    def validate(self) -> float:
        return SCORES.get(self.taken[-1] + 1, 0.1)

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict({name: tensors[name] for name in self.model.state_dict()})
        restore_optimizer(self.optimizer, tensors)


Progress = Callable[[int, int, Mapping[str, float]], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def _train(run: Run, trainee: _Line, progress: Progress | None = None, *, validate_every: int = 4) -> None:
    train(run, trainee, CARD, steps=STEPS, validate_every=validate_every, record={"network": "plain"}, progress=progress)


def _log(run: Run) -> list[dict[str, str]]:
    with (run.folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _without_seconds(run: Run) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in _log(run)]


def _stopping(at: int, number: signal.Signals) -> Progress:
    """Sends the signal while step `at` is being reported."""

    def progress(done: int, total: int, metrics: Mapping[str, float]) -> None:
        del total, metrics
        if done == at + 1:
            os.kill(os.getpid(), number)

    return progress


def _stop(run: Run, trainee: _Line, at: int, number: signal.Signals = signal.SIGINT) -> None:
    trainee.signals = {at: [number]}
    with pytest.raises(TrainingError, match=f"stopped by {number.name} after step {at + 1} of 12"):
        _train(run, trainee)


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_step_is_taken_once_and_logged(run: Run) -> None:
    trainee = _Line()
    _train(run, trainee)
    assert trainee.taken == list(range(STEPS))
    rows = _log(run)
    assert list(rows[0]) == ["step", "loss", "accuracy", "lr", "validation", "seconds"]
    assert [int(row["step"]) for row in rows] == list(range(STEPS))
    assert [row["validation"] for row in rows] == ["", "", "", "0.5", "", "", "", "0.9", "", "", "", "0.7"]
    assert float(rows[0]["loss"]) == pytest.approx(_Line().step(0)["loss"], rel=1e-5)
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)


def test_the_best_checkpoint_is_of_the_highest_validation(run: Run) -> None:
    _train(run, _Line())
    at_8 = _Line()
    for index in range(8):
        at_8.step(index)
    best = load_checkpoint(run.best)
    assert (best.card.step, best.card.best) == (8, 0.9)
    assert _equal(best.tensors, at_8.weights())  # weights alone
    last = load_checkpoint(run.last)
    assert (last.card.step, last.card.best) == (12, 0.9)


def test_of_equal_validations_the_first_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORES, 12, 0.9)
    _train(run, _Line())
    assert load_checkpoint(run.best).card.step == 8


def test_the_last_step_is_validated_whatever_the_interval(run: Run) -> None:
    _train(run, _Line(), validate_every=5)
    assert [int(row["step"]) for row in _log(run) if row["validation"]] == [4, 9, 11]


def test_the_record_says_how_it_ended(run: Run) -> None:
    _train(run, _Line())
    record = run.record
    assert run.finished
    assert {name: record[name] for name in ("network", "status", "step", "best")} == {
        "network": "plain",
        "status": "finished",
        "step": STEPS,
        "best": 0.9,
    }
    assert record["seconds"] >= 0


def test_progress_is_told_after_every_step(run: Run) -> None:
    told: list[tuple[int, int, bool]] = []
    _train(run, _Line(), lambda done, total, metrics: told.append((done, total, "validation" in metrics)))
    assert told == [(done, STEPS, done % 4 == 0) for done in range(1, STEPS + 1)]


def test_a_finished_run_is_left_as_it_is(run: Run) -> None:
    _train(run, _Line())
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    again = _Line()
    _train(run, again)
    assert again.taken == []
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [0, 3, 6])
@pytest.mark.parametrize("reporting", [False, True], ids=["in a step", "in a report"])
def test_a_stopped_run_goes_on_as_if_it_never_stopped(
    tmp_path: Path, optimizer: str, number: signal.Signals, at: int, *, reporting: bool
) -> None:
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")
    _train(whole, _Line(optimizer))
    first, second = _Line(optimizer), _Line(optimizer)
    first.signals = {} if reporting else {at: [number]}
    message = rf"stopped by {number.name} after step \d+ of 12; run the same command again to go on from .*last\.safetensors"
    with pytest.raises(TrainingError, match=message) as caught:
        _train(stopped, first, _stopping(at, number) if reporting else None)
    saved = load_checkpoint(stopped.last).card.step
    assert f"after step {saved} of" in str(caught.value)
    assert at + 1 <= saved <= at + 2
    assert stopped.record["status"] == "running"
    assert not stopped.finished

    _train(stopped, second)
    assert first.taken + second.taken == list(range(STEPS))
    for a, b in ((whole.last, stopped.last), (whole.best, stopped.best)):
        assert _equal(load_checkpoint(a).tensors, load_checkpoint(b).tensors)
        assert load_checkpoint(a).card == load_checkpoint(b).card
    assert _without_seconds(stopped) == _without_seconds(whole)
    assert stopped.finished


def test_a_killed_run_goes_on_from_its_last_validation(tmp_path: Path) -> None:
    whole, killed = Run(tmp_path / "whole"), Run(tmp_path / "killed")
    _train(whole, _Line())

    def die(done: int, total: int, metrics: Mapping[str, float]) -> None:
        del total, metrics
        if done == 7:
            raise MemoryError

    with pytest.raises(MemoryError):
        _train(killed, _Line(), die)
    again = _Line()
    _train(killed, again)
    assert again.taken == list(range(4, STEPS))
    assert _equal(load_checkpoint(killed.last).tensors, load_checkpoint(whole.last).tensors)
    assert _without_seconds(killed) == _without_seconds(whole)


def test_a_signal_in_the_last_step_finishes(run: Run) -> None:
    trainee = _Line()
    trainee.signals = {STEPS - 1: [signal.SIGINT]}
    _train(run, trainee)
    assert run.finished


def test_a_second_interrupt_stops_at_once(run: Run) -> None:
    trainee = _Line()
    trainee.signals = {5: [signal.SIGINT, signal.SIGINT]}
    with pytest.raises(KeyboardInterrupt):
        _train(run, trainee)
    assert trainee.taken == list(range(5))


def test_the_callers_handlers_are_given_back(run: Run) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    _stop(run, _Line(), at=2)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_loss_that_is_not_finite_stops_and_keeps_the_state_before(run: Run) -> None:
    trainee = _Line()
    trainee.bad_step = 6
    message = r"the loss is nan at step 6, learning rate 0\.1; the state of the last validation is in .*last\.safetensors; try a lower --lr"
    with pytest.raises(TrainingError, match=message):
        _train(run, trainee)
    assert load_checkpoint(run.last).card.step == 4
    assert not run.finished
    assert [int(row["step"]) for row in _log(run)] == list(range(6))


def test_a_loss_that_is_not_finite_before_any_validation_names_no_state(run: Run) -> None:
    trainee = _Line()
    trainee.bad_step = 1
    with pytest.raises(TrainingError, match="the loss is nan at step 1, learning rate") as caught:
        _train(run, trainee)
    assert not run.last.exists()
    assert "last.safetensors" not in str(caught.value)


def test_a_damaged_state_is_refused(run: Run) -> None:
    _stop(run, _Line(), at=2)
    run.last.write_bytes(run.last.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"last\.safetensors is damaged"):
        _train(run, _Line())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizers_state_travels_as_named_tensors(optimizer: str) -> None:
    source, target = _Line(optimizer), _Line(optimizer)
    for index in range(3):
        source.step(index)
    tensors = optimizer_tensors(source.optimizer)
    assert all(name.startswith(("optimizer.0.", "optimizer.1.")) for name in tensors)
    target.restore({**source.weights(), **{name: value.clone() for name, value in tensors.items()}})
    assert _equal(optimizer_tensors(target.optimizer), tensors)
    for line in (source, target):
        line.step(3)
    assert _equal(source.weights(), target.weights())
