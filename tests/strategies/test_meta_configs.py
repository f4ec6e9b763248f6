import inspect
from typing import Any

import pytest

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies import (
    META_STRATEGIES,
    InnerLoopConfig,
    MAMLConfig,
    MetaClassifierConfig,
    MetaDynamicConfig,
    MetaStaticConfig,
    MetaTrainConfig,
)

EVERY = pytest.mark.parametrize("name", META_STRATEGIES)


@EVERY
def test_a_strategy_is_built_with_its_settings_and_has_the_same_defaults(name: str) -> None:
    entry = META_STRATEGIES[name]
    config = entry.config.checked({})
    assert config.strategy == name
    defaults = {key: parameter.default for key, parameter in inspect.signature(entry.build).parameters.items()}
    assert config.arguments().items() <= defaults.items()


@pytest.mark.parametrize("name", [name for name, entry in META_STRATEGIES.items() if issubclass(entry.config, InnerLoopConfig)])
def test_every_setting_of_the_inner_loop_reaches_the_strategy(name: str) -> None:
    inner: dict[str, Any] = {"inner_lr": 0.5, "inner_steps": 3, "inner_test_steps": 7, "first_order": True, "n_way": 4}
    arguments = META_STRATEGIES[name].config.checked(inner).arguments()
    assert arguments.items() >= {"lr": 0.5, "steps": 3, "test_steps": 7, "first_order": True, "n_way": 4}.items()


def test_where_only_the_classifier_moves_its_rate_is_that_of_meta_static() -> None:
    assert MetaClassifierConfig().arguments()["lr"] == MetaStaticConfig().arguments()["lr_classifier"]


def test_the_classifiers_rate_is_one_of_its_own_where_similarity_moves_too() -> None:
    for config in (MetaStaticConfig(inner_lr_classifier=3.0), MetaDynamicConfig(inner_lr_classifier=3.0)):
        assert config.arguments()["lr_classifier"] == 3
    message = "^maml has no setting 'inner_lr_classifier': expected some of .*inner_lr, .*; leave it out$"
    with pytest.raises(ConfigurationError, match=message):
        MAMLConfig.checked({"inner_lr_classifier": 3.0})


def test_the_published_setting_is_not_written_and_the_other_is() -> None:
    assert "transductive" not in MAMLConfig.checked({}).model_dump()
    inductive = MAMLConfig.checked({"transductive": False})
    assert inductive.model_dump()["transductive"] is inductive.arguments()["transductive"] is False
    with pytest.raises(ConfigurationError, match=r"^meta-static has no setting 'transductive': expected some of .*; leave it out$"):
        MetaStaticConfig.checked({"transductive": False})


def test_a_backbone_is_chosen_where_training_starts_from_scratch() -> None:
    assert MAMLConfig.checked({"backbone": "resnet12"}).width == 64
    with pytest.raises(ConfigurationError, match=r"^meta-static has no setting 'width': expected some of .*; leave it out$"):
        MetaStaticConfig.checked({"width": 8})


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (MetaStaticConfig, {"strategy": "retrained"}, "strategy of MetaStaticConfig: .*'meta-static', got 'retrained'"),
        (MetaStaticConfig, {"n_way": 1}, "n_way of MetaStaticConfig: .*greater than 1, got 1"),
        (MetaStaticConfig, {"inner_lr": 0}, "inner_lr of MetaStaticConfig: .*greater than 0, got 0"),
        (MAMLConfig, {"meta_batch": 0}, "meta_batch of MAMLConfig: .*greater than 0, got 0"),
        (MAMLConfig, {"backbone": "vgg"}, "backbone 'vgg' is unknown: expected one of cnn4"),
    ],
)
def test_configurations_are_checked(config: type[MetaTrainConfig], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config.checked(values)
