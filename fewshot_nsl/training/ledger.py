"""The ledger: what recipes came to, over training seeds, and against the controls that they name."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.evaluate import Evaluation, ResultRow, holm, paired_difference, read_evaluations
from fewshot_nsl.training.recipe import Recipe
from fewshot_nsl.workspace import Workspace


@dataclass(frozen=True)
class Result:
    """A recipe and training seed as they were evaluated last."""

    file: str
    """Its name in `Workspace.results`."""
    evaluation: Evaluation
    row: ResultRow

    def same_episodes(self, other: "Result") -> bool:
        """Whether both met the very same images in the same order."""
        fields = ("fingerprint", "split", "n_way", "n_shot", "n_query", "episodes", "seed", "frozen")
        return all(getattr(self.evaluation, name) == getattr(other.evaluation, name) for name in fields)


Results = dict[str, dict[int, Result]]
"""Recipe -> training seed -> result."""


def collect_results(workspace: Workspace, recipes: Iterable[Recipe]) -> Results:
    """The workspace's evaluations of these recipes, as they are now: what was evaluated of another form of a recipe is left out.

    Raises:
        DataError: a file among the results is no evaluation.
    """
    names = {recipe.digest: recipe.name for recipe in recipes}
    results: Results = {name: {} for name in names.values()}
    for file, evaluation in read_evaluations(workspace.results).items():
        for row in evaluation.rows:
            if row.recipe_digest in names and row.training_seed is not None:
                results[names[row.recipe_digest]][row.training_seed] = Result(file, evaluation, row)
    return {name: dict(sorted(seeds.items())) for name, seeds in results.items()}


def summary(recipes: Iterable[Recipe], results: Results) -> pd.DataFrame:
    """A row a recipe, with accuracies as fractions; of one that was not run all but its names and published figures is missing.

    `accuracy` is the mean over training seeds, `lowest` and `highest` their range, `ci95` the half width of the interval over episodes
    (the mean of the seeds'), `training_seconds` the mean of those that are known.
    """
    return pd.DataFrame([_summarised(recipe, [result.row for result in results[recipe.name].values()]) for recipe in recipes])


def _summarised(recipe: Recipe, rows: list[ResultRow]) -> dict[str, Any]:
    figures = [f"{figure.accuracy} ± {figure.interval}" if figure.interval else str(figure.accuracy) for figure in recipe.published]
    values: dict[str, Any] = {"recipe": recipe.name, "title": recipe.title, "seeds": len(rows), "published": "; ".join(figures)}
    if not rows:
        return values
    accuracies = [row.accuracy for row in rows]
    known = [row.training_seconds for row in rows if row.training_seconds is not None]
    return values | {
        "backbone": rows[0].backbone,
        "width": rows[0].width,
        "parameters": rows[0].parameters,
        "transductive": rows[0].transductive,
        "accuracy": np.mean(accuracies),
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "ci95": np.mean([row.ci95 for row in rows]),
        "training_seconds": np.mean(known) if known else np.nan,
    }


def claims(recipes: Iterable[Recipe], results: Results) -> pd.DataFrame:
    """A row for each recipe and control that were run with the same seeds on the same episodes: the paired difference, first minus control.

    Accuracies are averaged over the shared training seeds, episode by episode; `differences` are those of each seed. `p_holm` is the
    paired t-test's p, corrected for all rows. A claim `holds` if all seeds have its sign and p_holm < 0.05; its sign is the mean's.

    Raises:
        ConfigurationError: a control is not among the recipes.
    """
    found = [row for recipe in recipes for control in recipe.controls if (row := _claim(recipe, control, results)) is not None]
    frame = pd.DataFrame(found, columns=["recipe", "control", "seeds", "difference", "half_width", "differences", "p_t", "p_wilcoxon"])
    frame["p_holm"] = holm(frame["p_t"].to_list())
    same_sign = [len({np.sign(each) for each in row}) == 1 for row in frame["differences"]]
    frame["holds"] = np.array(same_sign, dtype=bool) & (frame["p_holm"] < 0.05)
    return frame


def _claim(recipe: Recipe, control: str, results: Results) -> dict[str, Any] | None:
    if control not in results:
        raise ConfigurationError(f"recipe {recipe.name} names the control '{control}': expected one of {', '.join(results)}")
    ours, theirs = results[recipe.name], results[control]
    seeds = [seed for seed in ours if seed in theirs and ours[seed].same_episodes(theirs[seed])]
    if not seeds:
        return None
    first, second = (np.array([run[seed].row.accuracies for seed in seeds]) for run in (ours, theirs))
    whole = paired_difference(first.mean(0).tolist(), second.mean(0).tolist())
    return {
        "recipe": recipe.name,
        "control": control,
        "seeds": len(seeds),
        "difference": whole.mean,
        "half_width": whole.half_width,
        "differences": (first - second).mean(1).tolist(),
        "p_t": whole.p_t,
        "p_wilcoxon": whole.p_wilcoxon,
    }
