import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from fewshot_nsl.cli import app
from fewshot_nsl.cli.meta_train import meta_train
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies import META_STRATEGIES, MetaTrainConfig


def _shown() -> dict[str, str]:
    """What the help says of each option's default."""
    command = get_command(app).commands["meta-train"]  # type: ignore[attr-defined]
    return {parameter.name: str(parameter.show_default) for parameter in command.params}


@pytest.mark.parametrize("name", META_STRATEGIES)
def test_help_shows_the_numbers_that_a_strategy_has_by_default(name: str) -> None:
    config, shown = META_STRATEGIES[name].config.checked({}), _shown()
    numbers = {setting: value for setting in type(config).model_fields if type(value := getattr(config, setting)) in (int, float)}
    for setting, value in numbers.items():
        if setting in shown and setting not in ("seed", "width"):
            assert str(value) in re.findall(r"[\d.]+\d|\d", shown[setting]), setting


def test_every_setting_has_an_option() -> None:
    configs = [entry.config for name, entry in META_STRATEGIES.items() if name != "leo"]  # whose many are a recipe's
    settings = {setting for config in configs for setting in config.model_fields}
    assert settings - set(_shown()) == {"validation_n_way"}
    assert "strategy" in MetaTrainConfig.model_fields


@pytest.mark.parametrize(("recipe", "option"), [("maml", "--inductive"), ("maml-inductive", "--transductive")])
def test_the_other_setting_than_a_recipes_is_refused(tmp_path: Path, recipe: str, option: str) -> None:
    alone = typer.Typer()
    alone.command()(meta_train)
    other = option == "--transductive"
    message = f"^recipe cifar-fs/{recipe} says transductive {not other}, and {other} is asked for; leave one of them out$"
    with pytest.raises(ConfigurationError, match=message):
        CliRunner().invoke(alone, ["--recipe", f"cifar-fs/{recipe}", option, "--workspace", str(tmp_path)], catch_exceptions=False)
