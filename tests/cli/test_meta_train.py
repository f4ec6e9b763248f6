import pytest
from typer.main import get_command

from fewshot_nsl.cli import app
from fewshot_nsl.strategies import MAMLConfig, MetaClassifierConfig, MetaStaticConfig


@pytest.mark.parametrize("setting", ["iterations", "meta_batch", "validate_every"])
def test_help_shows_the_default_of_each_strategy(setting: str) -> None:
    command = get_command(app).commands["meta-train"]  # type: ignore[attr-defined]
    shown = {parameter.name: parameter.show_default for parameter in command.params}
    of_static, of_maml = (getattr(config.checked({}), setting) for config in (MetaStaticConfig, MAMLConfig))
    assert shown[setting] == f"{of_static}; {of_maml} of maml"


def test_help_shows_the_default_of_each_inner_rate() -> None:
    command = get_command(app).commands["meta-train"]  # type: ignore[attr-defined]
    (parameter,) = (parameter for parameter in command.params if parameter.name == "inner_lr")
    assert MAMLConfig.checked({}).inner_lr == MetaStaticConfig().inner_lr
    assert parameter.show_default == f"{MetaStaticConfig().inner_lr}; {MetaClassifierConfig().inner_lr} of meta-classifier"


def test_help_shows_the_default_of_the_classifiers_rate() -> None:
    command = get_command(app).commands["meta-train"]  # type: ignore[attr-defined]
    (parameter,) = (parameter for parameter in command.params if parameter.name == "inner_lr_classifier")
    assert parameter.show_default == str(MetaStaticConfig().inner_lr_classifier)
