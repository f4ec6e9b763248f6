"""The one training loop: steps, a log line each, validation, checkpoints, stopping and going on."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fewshot_nsl.errors import TrainingError
from fewshot_nsl.training.checkpoint import CheckpointCard, load_checkpoint, save_checkpoint
from fewshot_nsl.training.run import Run


@runtime_checkable
class Trainee(Protocol):
    """What is trained. Step i is a function of the state and of i, so that a stopped run goes on as if it never stopped."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its state travels in the newest checkpoint."""
        ...

    def step(self, index: int) -> dict[str, float]:
        """Take optimizer step `index`; give what is logged: "loss", "accuracy" (a fraction), "lr"."""
        ...

    def validate(self) -> float:
        """Accuracy on validation data, a fraction in [0, 1]."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """What is evaluated later, by names of the checkpoint."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back `weights()` and the optimizer's state."""
        ...


Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called after every step with steps done, steps in all, and what was logged, "validation" among it when it was just measured."""


COLUMNS = ["step", "loss", "accuracy", "lr", "validation", "seconds"]


def train(
    run: Run,
    trainee: Trainee,
    card: CheckpointCard,
    *,
    steps: int,
    validate_every: int,
    record: Mapping[str, Any],
    progress: Progress | None = None,
) -> None:
    """Train to `steps` optimizer steps from wherever `run` stands, keeping the newest state and the best by validation accuracy.

    A finished run is left as it is. SIGINT and SIGTERM are answered after the step under way: the state is saved, and the same call goes on
    from there.

    Args:
        run: where everything is written.
        trainee: what is trained.
        card: of the checkpoints; step and best accuracy are filled in.
        steps: in all.
        validate_every: steps between validations; the last step is always followed by one.
        record: goes into `run.json`, with status, step, best accuracy and seconds.
        progress: called after every step.

    Raises:
        TrainingError: the loss is not finite, or a signal asked to stop.
        CheckpointError: the state to resume from is damaged.
    """
    if run.finished:
        return
    start, best, spent = _resume(run, trainee)
    began = time.perf_counter() - spent
    log = run.open_log(COLUMNS, start)

    def save(step: int) -> None:
        state = {**trainee.weights(), **optimizer_tensors(trainee.optimizer)}
        save_checkpoint(run.last, card.model_copy(update={"step": step, "best": best}), state)
        run.write_record({**record, "status": "running", "step": step, "best": best, "seconds": round(time.perf_counter() - began, 1)})

    try:
        with _stop_signals() as stopped:
            for index in range(start, steps):
                metrics = trainee.step(index)
                if not math.isfinite(metrics["loss"]):
                    kept = f"the state of the last validation is in {run.last}" if run.last.is_file() else "nothing was saved yet"
                    raise TrainingError(
                        f"the loss is {metrics['loss']} at step {index}, learning rate {metrics['lr']:.3g}; {kept}; try a lower --lr"
                    )
                done = index + 1
                if done % validate_every == 0 or done == steps:
                    metrics["validation"] = trainee.validate()
                    if best is None or metrics["validation"] > best:
                        best = metrics["validation"]
                        save_checkpoint(run.best, card.model_copy(update={"step": done, "best": best}), trainee.weights())
                log.writerow({"step": index, "seconds": f"{time.perf_counter() - began:.3f}", **_short(metrics)})
                if progress:
                    progress(done, steps, metrics)
                stop = stopped[0] if stopped and done < steps else None
                if stop or "validation" in metrics:
                    save(done)
                if stop:
                    raise TrainingError(
                        f"stopped by {stop} after step {done} of {steps}; run the same command again to go on from {run.last}"
                    )
    finally:
        run.close_log()
    run.write_record({**record, "status": "finished", "step": steps, "best": best, "seconds": round(time.perf_counter() - began, 1)})


def _resume(run: Run, trainee: Trainee) -> tuple[int, float | None, float]:
    """Step, best accuracy and seconds so far; the trainee gets its state back."""
    if not run.last.is_file():
        return 0, None, 0.0
    checkpoint = load_checkpoint(run.last)
    trainee.restore(checkpoint.tensors)
    return checkpoint.card.step, checkpoint.card.best, float(run.record.get("seconds", 0.0))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: `optimizer.<parameter number>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`; other names are passed over."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _short(metrics: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in metrics.items()}


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """A list that gets the signal's name when SIGINT or SIGTERM comes; a second SIGINT stops at once."""
    received: list[str] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            signal.default_int_handler(number, frame)
        received.append(signal.Signals(number).name)

    previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
