"""Options that several commands share, and how they show progress."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # these are slow to import, and a command's help needs none of them
    import torch
    from rich.console import Console

    from fewshot_nsl import workspace
    from fewshot_nsl.evaluate import Evaluation
    from fewshot_nsl.training import Run

WorkspaceFolder = Annotated[Path, typer.Option("--workspace", help="Folder with data/, runs/ and evaluate/.")]
Dataset = Annotated[str | None, typer.Option("--dataset", help="Prepared dataset; by default mini-imagenet. See: fewshot-nsl data list.")]
Backbone = Annotated[str, typer.Option("--backbone", help="Network from images to features.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of initial weights and of everything random in training.")]
Resume = Annotated[bool, typer.Option("--resume/--no-resume", help="Go on where the same run stopped, or begin it again.")]
Ways = Annotated[int, typer.Option("--n-way", min=2, help="Classes of an episode.")]
Shots = Annotated[int, typer.Option("--n-shot", min=1, help="Support images of a class.")]
Queries = Annotated[int, typer.Option("--n-query", min=1, help="Query images of a class.")]


@contextmanager
def training_progress(title: str) -> Iterator[Callable[[int, int, Mapping[str, float]], None]]:
    """A bar with rate, time left and the newest loss and validation accuracy; nothing where standard error is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown: dict[str, float] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[state]}"), console=error_console(), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=None, rate="", state="")

        def update(done: int, total: int, metrics: Mapping[str, float]) -> None:
            shown.update({name: metrics[name] for name in ("loss", "validation") if name in metrics})
            state = "  ".join(
                f"{name} {100 * value:.1f}%" if name == "validation" else f"{name} {value:.3f}" for name, value in shown.items()
            )
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, total=total, state=state, rate=f"{speed:.1f}/s" if speed else "")

        yield update


@contextmanager
def evaluation_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each strategy; nothing where standard error is no terminal."""
    from rich.progress import Progress, TaskID

    with Progress(console=error_console(), disable=not sys.stderr.isatty()) as bar:
        tasks: dict[str, TaskID] = {}

        def update(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bar.add_task(title, total=total)
            bar.update(tasks[title], completed=done)

        yield update


def open_device(name: str) -> "torch.device":
    """The device, and a process made ready for heavy work on it."""
    from fewshot_nsl.devices import keep_freed_memory, resolve_device

    device = resolve_device(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def error_console() -> "Console":
    """Where bars and notices go, so that standard output holds only results."""
    from rich.console import Console

    return Console(stderr=True)


def notify(message: str | None) -> None:
    """A plain notice, if there is one."""
    if message:
        typer.echo(message, err=True)


def percent(fraction: float | None) -> str:
    """As a person reads it."""
    return "unknown" if fraction is None else f"{100 * fraction:.1f} %"


def report_run(run: "Run", place: "workspace.Workspace") -> None:
    """Where the run's best checkpoint is, and how good."""
    record = run.record
    typer.echo(
        f"{record['dataset']} {record['network']}: validation accuracy {percent(record['best'])} after {record['step']} steps, "
        f"{record['seconds']:.0f} s. Checkpoint: {place.relative(run.best)}"
    )


def print_table(evaluation: "Evaluation") -> None:
    """The table, in percent."""
    from rich.console import Console
    from rich.table import Table

    e = evaluation
    title = f"{e.dataset}, {e.split} classes: {e.n_way}-way {e.n_shot}-shot, {e.episodes} episodes, {e.n_query} queries a class"
    table = Table(title=title, title_justify="left", caption="Accuracy in %, mean over episodes ± 95 % interval.", caption_justify="left")
    table.add_column("strategy")
    table.add_column("backbone")
    table.add_column("weights", justify="right")
    table.add_column("accuracy", justify="right")
    for row in e.rows:
        interval = f"{100 * row.accuracy:.2f} ± {100 * row.ci95:.2f}"
        table.add_row(row.title, f"{row.backbone}, {row.width} filters", f"{row.parameters:,}", interval)
    Console().print(table)
