"""`fewshot-nsl recipes` and `fewshot-nsl reproduce`: rows of tables, from their recipes."""

import itertools
import shlex
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from fewshot_nsl.cli import options, printing, progress

if TYPE_CHECKING:  # slow to import, and a command's help does not need them
    from collections.abc import Iterator

    from fewshot_nsl.evaluate import ResultRow
    from fewshot_nsl.training import Recipe
    from fewshot_nsl.workspace import Workspace


def recipes(
    under: Annotated[str, typer.Argument(metavar="[FOLDER]", help="Only those of a folder, for instance cifar-fs.")] = "",
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """List the recipes, each with its title and what others published."""
    from fewshot_nsl.training import find_recipes
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    printing.print_recipes(find_recipes(place, [under]))


def reproduce(
    recipe: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Names, files, or a folder of names: a row, or a table.")],
    seed: Annotated[
        list[int] | None, typer.Option("--seed", min=0, show_default="0", help="Of training; several for several trainings.")
    ] = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Only go through them: a few steps of small networks on glyphs; nothing is kept.")
    ] = False,
    engine: options.Engine = "auto",
    tasks_at_once: options.TasksAtOnce = None,
    device: options.Device = "auto",
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Train and evaluate recipes, and write down the results; what is done is skipped, what was stopped goes on.

    Examples:
        fewshot-nsl reproduce cifar-fs/protonet

        fewshot-nsl reproduce cifar-fs --seed 0 --seed 1 --seed 2

        fewshot-nsl reproduce mini-imagenet --rehearse
    """
    from fewshot_nsl.training import find_recipes, shortened
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    rows, seeds = find_recipes(place, recipe), seed or [0]
    if rehearse:
        with TemporaryDirectory(prefix="rehearsal-") as aside:
            for called, *_ in _results(open_workspace(aside), [shortened(row) for row in rows], seeds, engine, tasks_at_once, device):
                typer.echo(f"{called}: goes through")
    else:
        for called, path, result in _results(place, rows, seeds, engine, tasks_at_once, device):
            printing.report_result(called, path, result, place)


def _results(
    place: "Workspace", rows: list["Recipe"], seeds: list[int], engine: str, tasks_at_once: int | None, device: str
) -> "Iterator[tuple[str, Path, ResultRow]]":
    """Of each row and seed, as soon as it is there: what it is called, its file, and the result."""
    from fewshot_nsl.data import choose_store
    from fewshot_nsl.evaluate import result_name, write_evaluation
    from fewshot_nsl.training import evaluate_recipe, find_result, train_recipe

    target = options.open_device(device)
    # Every dataset is opened before anything is trained.
    stores = {name: choose_store(place, name)[0] for name in {row.dataset for row in rows}}
    for number, row in itertools.product(seeds, rows):
        called, store = f"{row.name}, seed {number}", stores[row.dataset]
        chosen = options.open_engine(engine, target, options.open_precision(row.precision, target))
        with progress.trainings_progress(called) as show:
            trained = train_recipe(place, store, row, number, target, engine=chosen, tasks_at_once=tasks_at_once, progress=show)
        found = find_result(place, store, trained)
        if found is None:
            with progress.evaluation_progress() as tell:
                evaluation = evaluate_recipe(
                    place,
                    store,
                    trained,
                    row,
                    target,
                    command=shlex.join(["fewshot-nsl", *sys.argv[1:]]),
                    engine=partial(options.open_engine, engine, target),
                    progress=tell,
                )
            found = place.results / result_name(evaluation), evaluation.rows[0]
            write_evaluation(evaluation, found[0])
        yield called, *found
