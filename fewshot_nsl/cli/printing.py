"""What commands print: results on standard output, notices on standard error."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:  # slow to import, and a command's help needs none of them
    from pathlib import Path

    from fewshot_nsl.evaluate import Evaluation, ResultRow
    from fewshot_nsl.training import Recipe, Run
    from fewshot_nsl.workspace import Workspace


def notify(message: str | None) -> None:
    """A plain notice, if there is one."""
    if message:
        typer.echo(message, err=True)


def percent(fraction: float | None) -> str:
    """As a person reads it."""
    return "unknown" if fraction is None else f"{100 * fraction:.1f} %"


def shots(n_shot: int | Sequence[int]) -> str:
    """One number, or one per way where they differ."""
    numbers = [n_shot] if isinstance(n_shot, int) else n_shot
    return ",".join(map(str, numbers if len(set(numbers)) > 1 else numbers[:1]))


def report_run(run: "Run", place: "Workspace") -> None:
    """Where the run's best checkpoint is, and how good."""
    record = run.record
    typer.echo(
        f"{record['dataset']} {record['network']}: validation accuracy {percent(record['best'])} after {record['step']} steps, "
        f"{record['seconds']:.0f} s. Checkpoint: {place.relative(run.best)}"
    )


def report_result(called: str, path: "Path", row: "ResultRow", place: "Workspace") -> None:
    """Its accuracy, and the file that holds it."""
    typer.echo(f"{called}: {100 * row.accuracy:.2f} ± {100 * row.ci95:.2f} %. Written in {place.relative(path)}")


def print_recipes(recipes: "Sequence[Recipe]") -> None:
    """A line each: name, title, what others published."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("recipe", "what it is", "published"):
        table.add_column(column, overflow="fold")
    for recipe in recipes:
        figures = [f"{it.accuracy} ± {it.interval}" if it.interval else str(it.accuracy) for it in recipe.published]
        table.add_row(recipe.name, recipe.title, ", ".join(figures))
    Console().print(table)


def print_table(evaluation: "Evaluation") -> None:
    """The table, in percent."""
    from rich.console import Console
    from rich.table import Table

    e = evaluation
    episodes = f"{e.episodes} {'frozen episodes' if e.frozen else 'episodes'}"
    title = f"{e.dataset}, {e.split} classes: {e.n_way}-way {shots(e.n_shot)}-shot, {episodes}, {e.n_query} queries a class"
    caption = "Accuracy in %, mean over episodes ± 95 % interval. Rows are inductive where not marked."
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("strategy")
    table.add_column("backbone")
    table.add_column("weights", justify="right")
    table.add_column("accuracy", justify="right")
    for row in e.rows:
        interval = f"{100 * row.accuracy:.2f} ± {100 * row.ci95:.2f}"
        title = f"{row.title} (transductive)" if row.transductive else row.title
        table.add_row(title, f"{row.backbone}, {row.width} filters", f"{row.parameters:,}", interval)
    Console().print(table)
