"""`fewshot-nsl ledger`: what recipes came to, beside what others published."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_nsl.cli import options
from fewshot_nsl.errors import DataError

if TYPE_CHECKING:  # slow to import, and a command's help does not need it
    import pandas as pd

NOT_RUN = "not run"
COLUMNS = ["recipe", "what it is", "network", "weights", "setting", "accuracy", "seeds", "training", "published"]
COMPARED = ["recipe", "against", "difference", "of each seed", "p", "clear"]


def ledger(
    recipe: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE...]", help="Names, files, or a folder of names; by default all with results.")
    ] = None,
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Print, in Markdown, the results of recipes over training seeds, and their paired differences to the controls that they name.

    Examples:
        fewshot-nsl ledger cifar-fs
    """
    from fewshot_nsl.training import claims, collect_results, find_recipes, recipe_names, summary
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    everything = find_recipes(place, recipe_names(place))
    results = collect_results(place, everything)
    chosen = find_recipes(place, recipe) if recipe else [each for each in everything if results[each.name]]
    if not chosen:
        raise DataError(f"no recipe has a result in {place.results}; get one: fewshot-nsl reproduce cifar-fs/protonet")
    known = {each.name: each for each in [*everything, *chosen]}
    results |= collect_results(place, chosen)
    table = summary(chosen, results)
    typer.echo("Accuracy in %: mean over training seeds, their range, and the 95 % interval over episodes.\n")
    typer.echo(_markdown(COLUMNS, _rows(table)))
    found = claims([known[each.name] for each in chosen], results)
    if len(found):
        typer.echo("\nPaired differences in points, on the same episodes; p of Student's paired t-test, corrected for all rows (Holm).\n")
        typer.echo(_markdown(COMPARED, _differences(found)))


def _rows(table: "pd.DataFrame") -> list[list[str]]:
    lines = []
    for row in table.to_dict("records"):
        if not row["seeds"]:
            lines.append([row["recipe"], row["title"], "", "", "", NOT_RUN, "", "", row["published"]])
            continue
        accuracy = f"{100 * row['accuracy']:.2f} ± {100 * row['ci95']:.2f}"
        if row["seeds"] > 1:
            accuracy += f" ({100 * row['lowest']:.2f} to {100 * row['highest']:.2f})"
        network = f"{row['backbone']}, {row['width']:.0f}"
        setting = "transductive" if row["transductive"] else "inductive"
        cells = [network, f"{row['parameters']:,.0f}", setting, accuracy, str(row["seeds"]), _duration(row["training_seconds"])]
        lines.append([row["recipe"], row["title"], *cells, row["published"]])
    return lines


def _duration(seconds: float) -> str:
    return "" if math.isnan(seconds) else f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _differences(found: "pd.DataFrame") -> list[list[str]]:
    lines = []
    for row in found.to_dict("records"):
        each = ", ".join(_points(difference) for difference in row["differences"])
        p = "< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
        difference = f"{_points(row['difference'])} ± {100 * row['half_width']:.2f}"
        lines.append([row["recipe"], row["control"], difference, each, p, "yes" if row["holds"] else "no"])
    return lines


def _points(difference: float) -> str:
    """Of percent, with a sign; 0 has one too, always the same."""
    return f"{round(100 * difference, 2) + 0.0:+.2f}"


def _markdown(columns: list[str], rows: list[list[Any]]) -> str:
    """A table; what a cell holds is text, whatever it is."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
