from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.evaluate import Evaluation, ResultRow, holm, normal_interval, paired_difference, result_name, write_evaluation
from fewshot_nsl.training import Recipe, claims, collect_results, summary
from fewshot_nsl.workspace import Workspace

EPISODES = 40


def _recipe(name: str, penalty: float, **others: Any) -> Recipe:
    values = {
        "name": name,
        "title": f"the {name}",
        "dataset": "tiny",
        "pretraining": {"network": "plain", "width": 4},
        "strategy": {"name": "ridge", "settings": {"penalty": penalty}},
        "evaluation": {"split": "test", "n_way": 3, "n_shot": 2, "n_query": 4, "episodes": EPISODES, "seed": 0},
    }
    return Recipe.model_validate(values | others)


CONTROL = _recipe("control", 1.0, published=[{"accuracy": 71.5, "interval": 1.0, "source": "a"}, {"accuracy": 73.6, "source": "b"}])
BETTER = _recipe("better", 2.0, controls=["control"])
SAME = _recipe("same", 3.0, controls=["control", "better"])
RECIPES = [CONTROL, BETTER, SAME]


def _accuracies(recipe: Recipe, seed: int) -> list[float]:
    """Of episodes that are hard or easy for all; of another seed other ones."""
    easy = np.random.default_rng(0).uniform(0.4, 0.6, EPISODES)
    noise = np.random.default_rng([seed, len(recipe.name)]).normal(0, 0.02, EPISODES)
    return list(easy + noise + (0.05 if recipe is BETTER else 0.0))


def _write(
    workspace: Workspace, recipe: Recipe, seed: int, *, hours: int = 0, accuracies: list[float] | None = None, **changes: Any
) -> None:
    values = accuracies or _accuracies(recipe, seed)
    interval = normal_interval(values)
    row = ResultRow(
        strategy="ridge",
        title=recipe.title,
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        backbone="cnn4",
        width=4,
        parameters=1234,
        checkpoint="runs/best.safetensors",
        checkpoint_sha256="ab" * 32,
        transductive=False,
        trained_on="tiny",
        training_seed=seed,
        training_seconds=60.0 + seed,
        augmentations=[],
        accuracy=interval.mean,
        ci95=interval.half_width,
        accuracies=values,
        seconds=1.0,
    )
    evaluation = Evaluation(
        created=datetime(2026, 1, 2, tzinfo=UTC) + timedelta(hours=hours),
        command="a test",
        dataset="tiny",
        fingerprint="cd" * 32,
        split="test",
        n_way=3,
        n_shot=2,
        n_query=4,
        episodes=EPISODES,
        seed=0,
        hardware="a machine",
        versions={},
        rows=[row],
    ).model_copy(update=changes)
    write_evaluation(evaluation, workspace.results / result_name(evaluation))


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    for recipe in RECIPES:
        for seed in (2, 0, 1):
            _write(workspace, recipe, seed)
    return workspace


def test_results_are_found_by_recipe_and_seed(filled: Workspace) -> None:
    results = collect_results(filled, RECIPES)
    assert {name: list(seeds) for name, seeds in results.items()} == {recipe.name: [0, 1, 2] for recipe in RECIPES}
    assert results["better"][1].row.accuracies == _accuracies(BETTER, 1)
    assert (filled.results / results["better"][1].file).is_file()


def test_the_newest_of_a_recipe_and_seed_counts_and_other_forms_of_it_do_not(filled: Workspace) -> None:
    _write(filled, CONTROL, 0, hours=1, accuracies=[0.25, 0.75] * 20)
    assert collect_results(filled, RECIPES)["control"][0].row.accuracy == 0.5
    changed = _recipe("control", 9.0)
    assert collect_results(filled, [changed]) == {"control": {}}


def test_a_row_has_the_mean_of_its_seeds_and_their_range(filled: Workspace) -> None:
    row = summary(RECIPES, collect_results(filled, RECIPES)).set_index("recipe").loc["control"]
    means = [float(np.mean(_accuracies(CONTROL, seed))) for seed in range(3)]
    assert row["accuracy"] == pytest.approx(np.mean(means))
    assert (row["lowest"], row["highest"]) == pytest.approx((min(means), max(means)))
    assert row["ci95"] == pytest.approx(np.mean([normal_interval(_accuracies(CONTROL, seed)).half_width for seed in range(3)]))
    assert (row["seeds"], row["parameters"], row["training_seconds"], row["transductive"]) == (3, 1234, 61, False)
    assert row["published"] == "71.5 ± 1.0; 73.6"


def test_what_was_not_run_has_a_row_without_figures(filled: Workspace) -> None:
    recipes = [CONTROL, _recipe("other", 7.0)]
    table = summary(recipes, collect_results(filled, recipes))
    assert list(table["recipe"]) == ["control", "other"]
    assert table["seeds"].to_list() == [3, 0]
    assert np.isnan(table["accuracy"][1])
    assert table["published"][1] == ""


def test_claims_are_paired_differences_to_the_named_controls(filled: Workspace) -> None:
    found = claims(RECIPES, collect_results(filled, RECIPES))
    assert list(zip(found["recipe"], found["control"], strict=True)) == [("better", "control"), ("same", "control"), ("same", "better")]
    seeds = range(3)
    means = {recipe.name: np.mean([_accuracies(recipe, seed) for seed in seeds], axis=0).tolist() for recipe in RECIPES}
    expected = paired_difference(means["better"], means["control"])
    first = found.iloc[0]
    assert (first["difference"], first["half_width"], first["p_t"], first["p_wilcoxon"]) == pytest.approx(
        (expected.mean, expected.half_width, expected.p_t, expected.p_wilcoxon)
    )
    for seed, difference in zip(seeds, first["differences"], strict=True):
        assert difference == pytest.approx(np.mean(_accuracies(BETTER, seed)) - np.mean(_accuracies(CONTROL, seed)))
    assert found["p_holm"].to_list() == pytest.approx(holm(found["p_t"].to_list()))
    assert found["holds"].to_list() == [True, False, True]
    assert found["difference"][2] < 0  # clear the other way round


def test_a_claim_needs_one_sign_in_all_seeds(workspace: Workspace) -> None:
    for seed, by in enumerate((0.2, 0.2, -0.01)):
        _write(workspace, CONTROL, seed)
        _write(
            workspace, BETTER, seed, accuracies=[each + by + 0.001 * (index % 2) for index, each in enumerate(_accuracies(CONTROL, seed))]
        )
    (row,) = claims([CONTROL, BETTER], collect_results(workspace, RECIPES)).to_dict("records")
    assert row["p_holm"] < 0.001
    assert not row["holds"]


def test_only_what_met_the_same_episodes_is_compared(workspace: Workspace) -> None:
    _write(workspace, CONTROL, 0)
    _write(workspace, BETTER, 1)
    assert claims([BETTER], collect_results(workspace, RECIPES)).empty
    _write(workspace, BETTER, 0, fingerprint="ef" * 32)
    assert claims([BETTER], collect_results(workspace, RECIPES)).empty
    _write(workspace, BETTER, 0, hours=1)
    assert claims([BETTER], collect_results(workspace, RECIPES))["seeds"].to_list() == [1]


def test_nothing_run_is_an_empty_ledger(workspace: Workspace) -> None:
    results = collect_results(workspace, RECIPES)
    assert summary(RECIPES, results)["seeds"].to_list() == [0, 0, 0]
    assert claims(RECIPES, results).empty
    assert list(claims(RECIPES, results)["holds"]) == []


def test_an_unknown_control_is_refused(filled: Workspace) -> None:
    wrong = _recipe("wrong", 5.0, controls=["contrl"])
    with pytest.raises(ConfigurationError, match=r"^recipe wrong names the control 'contrl': expected one of wrong, control$"):
        claims([wrong], collect_results(filled, [wrong, CONTROL]))
