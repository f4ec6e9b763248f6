"""`recipes`, `reproduce` and `--recipe`, as a person calls them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from fewshot_nsl.cli import evaluate, ledger, meta_train, pretrain, reproduce
from fewshot_nsl.data.toml import to_toml
from fewshot_nsl.errors import CheckpointError, ConfigurationError, DataError
from fewshot_nsl.training import recipe_names
from fewshot_nsl.workspace import Workspace

app = typer.Typer()
app.command("recipes")(reproduce.recipes)
app.command("reproduce")(reproduce.reproduce)
app.command("ledger")(ledger.ledger)
app.command("pretrain")(pretrain.pretrain)
app.command("meta-train")(meta_train.meta_train)
app.command("evaluate")(evaluate.evaluate)

PRETRAINING = {"network": "plain", "width": 4, "epochs": 1, "batch_size": 512}
META = {"strategy": "meta-static", "iterations": 2, "meta_batch": 1, "inner_steps": 1, "validation_episodes": 2}
RECIPE: dict[str, Any] = {
    "title": "one of mine",
    "dataset": "glyphs",
    "pretraining": PRETRAINING,
    "evaluation": {"split": "test", "n_way": 5, "n_shot": 5, "n_query": 15, "episodes": 5, "seed": 0},
}


@pytest.fixture
def folder(glyph_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a workspace with glyphs and two recipes of its own."""
    shutil.copytree(glyph_workspace.root, tmp_path, dirs_exist_ok=True)
    recipes = tmp_path / "evaluate" / "recipes" / "own"
    recipes.mkdir(parents=True)
    (recipes / "ridge.toml").write_text(to_toml(RECIPE | {"strategy": {"name": "ridge"}}))
    (recipes / "meta.toml").write_text(to_toml(RECIPE | {"meta_training": META, "title": "a | b", "controls": ["own/ridge"]}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def call(*arguments: str) -> str:
    """What is printed."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).stdout


def _results(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "evaluate" / "results").glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


@pytest.mark.usefixtures("folder")
def test_recipes_are_listed_with_what_others_published() -> None:
    listed = call("recipes")
    assert re.search(r"cifar-fs/protonet +ProtoNet +72\.0 ± 0\.6", listed)
    assert re.search(r"own/ridge +one of mine", listed)
    assert "cifar-fs" not in call("recipes", "own")


def test_a_folder_of_recipes_is_reproduced_for_every_seed(folder: Path) -> None:
    output = call("reproduce", "own", "--seed", "0", "--seed", "1", "--engine", "plain")
    lines = output.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["own/meta, seed 0", "own/ridge, seed 0", "own/meta, seed 1", "own/ridge, seed 1"]
    assert all(re.search(r": \d+\.\d\d ± \d+\.\d\d %\. Written in evaluate/results/\S+\.json$", line) for line in lines)
    rows = [result["rows"][0] for result in _results(folder)]
    assert sorted((row["recipe"], row["training_seed"]) for row in rows) == [
        ("own/meta", 0),
        ("own/meta", 1),
        ("own/ridge", 0),
        ("own/ridge", 1),
    ]
    assert len(list((folder / "runs").rglob("run.json"))) == 4  # each seed is pretrained once for both
    assert call("reproduce", "own", "--seed", "0", "--seed", "1", "--engine", "plain") == output
    assert len(_results(folder)) == 4


def test_the_ledger_has_what_was_run_and_what_was_not(folder: Path) -> None:
    call("reproduce", "own/meta", "--engine", "plain")
    (row,) = _results(folder)[0]["rows"]
    lines = call("ledger", "own").splitlines()
    accuracy = f"{100 * row['accuracy']:.2f} ± {100 * row['ci95']:.2f}"
    trained = f"{row['training_seconds']:.0f} s"
    assert f"| own/meta | a \\| b | cnn4, 4 | {row['parameters']} | inductive | {accuracy} | 1 | {trained} |  |" in lines
    assert "| own/ridge | one of mine |  |  |  | not run |  |  |  |" in lines
    assert "against" not in "".join(lines)
    call("reproduce", "own", "--seed", "0", "--seed", "1", "--engine", "plain")
    lines = call("ledger").splitlines()
    assert [line.split(" | ")[0] for line in lines if "| own/" in line] == ["| own/meta", "| own/ridge", "| own/meta"]
    rows = {(each["rows"][0]["recipe"], each["rows"][0]["training_seed"]): each["rows"][0]["accuracy"] for each in _results(folder)}
    differences = ", ".join(f"{round(100 * (rows['own/meta', seed] - rows['own/ridge', seed]), 2) + 0.0:+.2f}" for seed in (0, 1))
    assert re.match(rf"\| own/meta \| own/ridge \| .* \| {re.escape(differences)} \| .* \| (yes|no) \|$", lines[-1])


def test_single_commands_take_a_recipe(folder: Path) -> None:
    assert "glyphs plain: validation accuracy" in call("pretrain", "--recipe", "own/meta", "--engine", "plain")
    assert "glyphs meta-static: validation accuracy" in call("meta-train", "--recipe", "own/meta", "--engine", "plain")
    assert "a | b" in call("evaluate", "--recipe", "own/meta", "--engine", "plain", "--output", "single.json")
    call("reproduce", "own/meta", "--engine", "plain")
    single, (whole,) = json.loads((folder / "single.json").read_text()), _results(folder)
    assert single["rows"][0]["accuracies"] == whole["rows"][0]["accuracies"]
    assert single["rows"][0]["training_seconds"] == whole["rows"][0]["training_seconds"] > 0


def test_a_checkpoint_alone_is_evaluated_as_its_recipe_says(folder: Path) -> None:
    call("reproduce", "own/ridge", "--engine", "plain")
    (checkpoint,) = (folder / "runs").rglob("best.safetensors")
    shutil.move(checkpoint, folder / "mine.safetensors")
    shutil.rmtree(folder / "runs")
    call("evaluate", "--recipe", "own/ridge", "--checkpoint", "mine.safetensors", "--output", "again.json")
    (row,) = json.loads((folder / "again.json").read_text())["rows"]
    assert row["accuracies"] == _results(folder)[0]["rows"][0]["accuracies"]
    assert row["checkpoint"] == "mine.safetensors"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("reproduce", "own/rigde"), ConfigurationError, "no recipe is called 'own/rigde'; did you mean own/ridge"),
        (("reproduce", "own", "mini-imagenet/ridge"), DataError, "mini-imagenet.* is not prepared"),
        (
            ("pretrain", "--recipe", "own/meta", "--epochs", "3"),
            ConfigurationError,
            "own/meta says epochs 1, and 3 is asked for",
        ),
        (("pretrain", "--recipe", "cifar-fs/maml"), ConfigurationError, "cifar-fs/maml .*fewshot-nsl meta-train --recipe cifar-fs/maml"),
        (
            ("meta-train", "--recipe", "own/ridge"),
            ConfigurationError,
            "own/ridge is not trained on episodes; .*pretrain --recipe",
        ),
        (("meta-train", "--recipe", "own/meta"), CheckpointError, "fewshot-nsl pretrain --recipe own/meta --seed 0"),
        (("meta-train", "--recipe", "own/meta", "--full-context"), ConfigurationError, "own/meta has no 'full_context', and True is asked"),
        (("evaluate", "--recipe", "own/ridge"), CheckpointError, "own/ridge is not trained with seed 0 in .*reproduce own/ridge --seed 0"),
        (("evaluate", "--recipe", "own/ridge", "--episodes", "9"), ConfigurationError, "own/ridge says episodes 5, and 9 is asked for"),
        (("evaluate", "--recipe", "own/ridge", "--dataset", "cub"), ConfigurationError, "own/ridge says dataset 'glyphs', and 'cub' is"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    folder: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(*arguments)
    assert not (folder / "runs").exists()
    assert not (folder / "evaluate" / "results").exists()


def test_a_rehearsal_keeps_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    assert (
        call("reproduce", "own", "--rehearse", "--engine", "plain") == "own/meta, seed 0: goes through\nown/ridge, seed 0: goes through\n"
    )
    assert sorted(folder.rglob("*")) == before


@pytest.mark.usefixtures("folder")
def test_every_recipe_that_travels_with_the_package_goes_through() -> None:
    names = [name for name in recipe_names(Workspace(Path.cwd())) if not name.startswith("own/")]
    output = call("reproduce", *names, "--rehearse", "--engine", "plain")
    assert output.splitlines() == [f"{name}, seed 0: goes through" for name in names]
