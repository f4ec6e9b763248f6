"""Bars with rate and time left, on standard error; nothing is shown where that is no terminal."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slow to import, and a command's help needs no bar
    from rich.progress import Progress, ProgressColumn, TaskID


@contextmanager
def counting_progress(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Called with things done and in all; `unit` names the things."""
    with _bar() as bar:
        task = _add(bar, title)
        yield lambda done, total: _update(bar, task, done, total, unit, "")


@contextmanager
def download_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Called with a file's name, bytes done and in all (None: not known); each file has a bar."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with _on_terminal(*columns) as bar:
        tasks: dict[str, TaskID] = {}

        def update(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file)
            bar.update(tasks[file], completed=done, total=total)

        yield update


@contextmanager
def training_progress(title: str) -> Iterator[Callable[[int, int, Mapping[str, float]], None]]:
    """Called with steps done, steps in all and what was measured; shows the newest loss and validation accuracy."""
    with trainings_progress(title) as begin:
        yield begin("")


@contextmanager
def trainings_progress(title: str) -> Iterator[Callable[[str], Callable[[int, int, Mapping[str, float]], None]]]:
    """The same for several trainings, each with a bar: called with its name, it gives what is called after every step."""
    with _bar() as bar:

        def begin(name: str) -> Callable[[int, int, Mapping[str, float]], None]:
            newest: dict[str, float] = {}
            task = _add(bar, f"{title} {name}".rstrip())

            def update(done: int, total: int, metrics: Mapping[str, float]) -> None:
                newest.update(metrics)
                state = f"loss {newest['loss']:.3f}"
                if "validation" in newest:
                    state += f"  validation {100 * newest['validation']:.1f} %"
                _update(bar, task, done, total, "steps", state)

            return update

        yield begin


@contextmanager
def evaluation_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Called with a row's title, episodes done and in all; each row has a bar."""
    with _bar() as bar:
        tasks: dict[str, TaskID] = {}

        def update(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = _add(bar, title)
            _update(bar, tasks[title], done, total, "episodes", "")

        yield update


def _bar() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    return _on_terminal(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )


def _on_terminal(*columns: "ProgressColumn") -> "Progress":
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _add(bar: "Progress", title: str) -> "TaskID":
    return bar.add_task(title, total=None, rate="", state="")


def _update(bar: "Progress", task: "TaskID", done: int, total: int, unit: str, state: str) -> None:
    speed = bar.tasks[task].speed
    bar.update(task, completed=done, total=total, rate=f"{speed:.1f} {unit}/s" if speed else "", state=state)
