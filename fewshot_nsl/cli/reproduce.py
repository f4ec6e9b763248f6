"""`fewshot-nsl recipes` and `fewshot-nsl reproduce`: rows of tables, from their recipes."""

import itertools
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fewshot_nsl.cli import options, printing, progress


def recipes(
    under: Annotated[str, typer.Argument(metavar="[FOLDER]", help="Only those of a folder, for instance cifar-fs.")] = "",
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """List the recipes, each with its title and what others published."""
    from fewshot_nsl.training import load_recipe, recipe_names
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    printing.print_recipes([load_recipe(place, name) for name in recipe_names(place, under)])


def reproduce(
    recipe: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Names, files, or a folder of names: a row, or a table.")],
    seed: Annotated[
        list[int] | None, typer.Option("--seed", min=0, show_default="0", help="Of training; several for several trainings.")
    ] = None,
    engine: options.Engine = "auto",
    tasks_at_once: options.TasksAtOnce = None,
    device: options.Device = "auto",
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Train and evaluate recipes, and write down the results; what is done is skipped, what was stopped goes on.

    Examples:
        fewshot-nsl reproduce cifar-fs/protonet

        fewshot-nsl reproduce cifar-fs --seed 0 --seed 1 --seed 2
    """
    from fewshot_nsl.data import choose_store
    from fewshot_nsl.evaluate import result_name, write_evaluation
    from fewshot_nsl.training import evaluate_recipe, find_recipes, find_result, train_recipe
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    target = options.open_device(device)
    rows = find_recipes(place, recipe)
    # Every dataset is opened before anything is trained.
    stores = {name: choose_store(place, name)[0] for name in {row.dataset for row in rows}}
    for number, row in itertools.product(seed or [0], rows):
        called, store = f"{row.name}, seed {number}", stores[row.dataset]
        chosen = options.open_engine(engine, target, options.open_precision(row.precision, target))
        with progress.trainings_progress(called) as show:
            trained = train_recipe(
                place,
                store,
                row,
                number,
                target,
                engine=chosen,
                tasks_at_once=tasks_at_once,
                progress=show,
            )
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
        printing.report_result(called, *found, place)
