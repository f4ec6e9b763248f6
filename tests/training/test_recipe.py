import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fewshot_nsl.config import Config
from fewshot_nsl.data.toml import to_toml
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies import META_STRATEGIES, STRATEGIES
from fewshot_nsl.training import Recipe, find_recipes, load_recipe, recipe_names
from fewshot_nsl.workspace import Workspace, open_workspace

SHIPPED = Path(__file__).parents[2] / "evaluate" / "recipes"
NAMES = [path.relative_to(SHIPPED).as_posix().removesuffix(".toml") for path in SHIPPED.rglob("*.toml")]
NAMES.sort()
EVERY = pytest.mark.parametrize("name", NAMES)
EVALUATION = {"split": "test", "n_way": 3, "n_shot": 2, "n_query": 4, "episodes": 5, "seed": 0}
FROZEN: dict[str, Any] = {
    "title": "a row",
    "dataset": "tiny",
    "pretraining": {"network": "plain", "width": 4},
    "strategy": {"name": "ridge", "settings": {"penalty": 0.5}},
    "evaluation": EVALUATION,
}
EPISODIC: dict[str, Any] = {
    "title": "another",
    "dataset": "tiny",
    "meta_training": {"strategy": "protonet", "width": 4, "n_way": 3},
    "evaluation": EVALUATION,
}


def _write(workspace: Workspace, name: str, values: dict[str, Any]) -> Path:
    path = workspace.root / "evaluate" / "recipes" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_toml(values))
    return path


def _left_to_defaults(config: Config, written: Mapping[str, Any]) -> set[str]:
    """The fields that a file does not say, but for what is not of a recipe (seeds), is asked for by name (precision) or is not there."""
    held = {name for name in type(config).model_fields if getattr(config, name) is not None}
    return held - written.keys() - {"seed", "precision"}


@EVERY
def test_a_shipped_recipe_is_complete(workspace: Workspace, name: str) -> None:
    written = tomllib.loads((SHIPPED / f"{name}.toml").read_text())
    recipe = load_recipe(workspace, name)
    assert recipe.name == name
    assert recipe.dataset == name.partition("/")[0]
    for part, config in (("pretraining", recipe.pretraining), ("meta_training", recipe.meta_training), ("evaluation", recipe.evaluation)):
        if config is not None:
            assert _left_to_defaults(config, written[part]) == set()
    assert "seed" in written["evaluation"]
    if recipe.strategy:
        assert set(recipe.settings) == set(STRATEGIES[recipe.strategy.name].settings.model_fields)


def test_every_strategy_has_a_shipped_recipe(workspace: Workspace) -> None:
    assert {load_recipe(workspace, name).strategy_name for name in NAMES} == set(STRATEGIES)


@pytest.mark.parametrize("under", ["cifar-fs", "mini-imagenet"])
def test_titles_tell_the_recipes_of_a_dataset_apart(workspace: Workspace, under: str) -> None:
    titles = [load_recipe(workspace, name).title for name in recipe_names(workspace, under)]
    assert len(set(titles)) == len(titles) > 20


def test_the_seed_of_training_is_given_to_its_configurations(workspace: Workspace) -> None:
    recipe = load_recipe(workspace, "cifar-fs/meta-static")
    pretraining, meta = recipe.pretrain_config(7), recipe.meta_config(7)
    assert pretraining is not None
    assert meta is not None
    assert (pretraining.seed, meta.seed) == (7, 7)
    assert load_recipe(workspace, "cifar-fs/protonet").pretrain_config(7) is None
    assert load_recipe(workspace, "cifar-fs/ridge").meta_config(7) is None


def test_settings_are_those_of_the_strategy_that_is_not_trained_on_episodes() -> None:
    assert Recipe.model_validate(FROZEN | {"name": "x"}).settings == {"penalty": 0.5}
    recipe = Recipe.model_validate(EPISODIC | {"name": "x"})
    assert (recipe.settings, recipe.strategy_name, recipe.precision) == ({}, "protonet", "float32")


def test_the_digest_is_of_what_decides_the_result() -> None:
    recipe = Recipe.model_validate(FROZEN | {"name": "x"})
    figure = {"accuracy": 50.0, "source": "a paper"}
    assert recipe.digest == Recipe.model_validate(FROZEN | {"name": "y", "title": "other", "published": [figure]}).digest
    others: list[dict[str, Any]] = [
        {"strategy": {"name": "ridge"}},
        {"evaluation": EVALUATION | {"seed": 1}},
        {"pretraining": {"network": "plain", "width": 5}},
    ]
    digests = {Recipe.model_validate(FROZEN | {"name": "x"} | other).digest for other in others}
    assert len(digests | {recipe.digest}) == 4


def test_a_recipe_of_the_workspace_goes_before_the_packages(workspace: Workspace) -> None:
    _write(workspace, "cifar-fs/ridge", FROZEN)
    assert load_recipe(workspace, "cifar-fs/ridge").title == "a row"
    assert recipe_names(workspace, "cifar-fs").count("cifar-fs/ridge") == 1
    assert recipe_names(workspace) == NAMES


def test_a_file_may_be_anywhere(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(EPISODIC))
    assert load_recipe(workspace, str(path)).name == "mine"


def test_a_folder_means_all_that_are_in_it_and_each_once(workspace: Workspace) -> None:
    for name in ("own/b", "own/a", "owner/c"):
        _write(workspace, name, EPISODIC)
    found = find_recipes(workspace, ["own/b", "own/", "owner"])
    assert [recipe.name for recipe in found] == ["own/b", "own/a", "owner/c"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": {"name": "magic"}}, r"field 'strategy': strategy 'magic' is unknown: expected one of nearest-mean, "),
        (
            {"strategy": {"name": "ridge", "settings": {"strength": 1}}},
            "strategy ridge has no setting 'strength': expected some of penalty",
        ),
        ({"strategy": {"name": "ridge", "settings": {"penalty": "much"}}}, "penalty.*much"),
        ({"strategy": {"name": "protonet"}}, r"protonet is trained on episodes: say how in \[meta_training\], and leave \[strategy\] out"),
        ({"strategy": {"name": "dynamic"}}, 'dynamic takes network = "dynamic"; got plain'),
        ({"pretraining": {"network": "plain", "width": 4, "epoch": 3}}, "field 'pretraining.epoch'"),
        ({"pretraining": {"network": "plain", "width": 4, "seed": 3}}, "a recipe is of any training seed, .*; leave it out and use --seed"),
        ({"meta_training": {"strategy": "protonet"}}, r"expected either \[strategy\] or, .*, \[meta_training\]"),
        ({"evaluation": EVALUATION | {"n_way": 1}}, "field 'evaluation.n_way'"),
        ({"evaluations": 3}, "field 'evaluations'"),
    ],
)
def test_what_is_wrong_is_refused_by_its_field(workspace: Workspace, changes: dict[str, Any], message: str) -> None:
    path = _write(workspace, "wrong", FROZEN | changes)
    with pytest.raises(ConfigurationError, match=f"^recipe {path}: field .*") as caught:
        load_recipe(workspace, "wrong")
    caught.match(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta_training": {"strategy": "ridge"}}, "strategy 'ridge' is not trained on episodes: expected one of maml, "),
        ({"meta_training": {"strategy": "protonet", "inner_lr": 0.1}}, "protonet has no setting 'inner_lr'"),
        ({"pretraining": {"network": "plain", "width": 4}}, r"protonet takes no \[pretraining\], since it starts from scratch; got plain"),
        ({"meta_training": {"strategy": "maml", "n_way": 5}}, "maml learns a 5-way classifier: evaluation.n_way is 3"),
        ({"meta_training": {"strategy": "meta-dynamic", "n_way": 3}}, 'meta-dynamic takes network = "dynamic"; got None'),
    ],
)
def test_what_is_wrong_with_training_on_episodes_is_refused(workspace: Workspace, changes: dict[str, Any], message: str) -> None:
    _write(workspace, "wrong", EPISODIC | changes)
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(workspace, "wrong")


def test_an_unknown_name_is_refused_with_those_that_are_near(workspace: Workspace) -> None:
    message = (
        "^no recipe is called 'cifar-fs/protonets'; did you mean cifar-fs/protonet or .*? See those that there are: fewshot-nsl recipes$"
    )
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(workspace, "cifar-fs/protonets")
    with pytest.raises(ConfigurationError, match=r"^recipe nowhere\.toml is no file; see those that have a name: fewshot-nsl recipes$"):
        load_recipe(workspace, "nowhere.toml")
    with pytest.raises(ConfigurationError, match="no recipe is called 'zzzz'"):
        find_recipes(workspace, ["cifar-fs", "zzzz"])


def test_what_is_no_toml_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    for content in (b"title = ", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=f"^{path} is not a TOML file: "):
            load_recipe(workspace, str(path))


def test_every_strategy_that_starts_from_a_pretrained_network_says_which() -> None:
    for name, entry in META_STRATEGIES.items():
        values = EPISODIC | {"name": "x", "meta_training": {"strategy": name, "n_way": 3}}
        if entry.pretrained:
            values["pretraining"] = {"network": entry.pretrained, "width": 4}
        assert Recipe.model_validate(values).strategy_name == name


def test_recipes_are_found_from_an_empty_folder(tmp_path: Path) -> None:
    assert recipe_names(open_workspace(tmp_path)) == NAMES


def test_the_recipe_in_the_guide_is_one(workspace: Workspace, tmp_path: Path) -> None:
    guide = SHIPPED.parents[1] / "docs" / "recipes.md"
    (block,) = re.findall(r"^```toml\n(.*?)^```", guide.read_text(), flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.toml").write_text(block)
    assert load_recipe(workspace, str(tmp_path / "mine.toml")).controls == ("cifar-fs/protonet",)
