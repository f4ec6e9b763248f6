"""Recipes: a row of a table as one TOML file, complete, and checked before any work."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from fewshot_nsl.config import Config, first_wrong_field
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies import (
    META_STRATEGIES,
    STRATEGIES,
    InnerLoopConfig,
    MetaTrainConfig,
    check_settings,
    check_strategy,
    get_meta_strategy,
)
from fewshot_nsl.training.pretrain import PretrainConfig
from fewshot_nsl.workspace import Workspace

FOLDER = "evaluate/recipes"


def _meta_config(values: Any) -> Any:
    """The configuration of the strategy that is named."""
    if not isinstance(values, Mapping):
        return values
    return get_meta_strategy(str(values.get("strategy"))).config.checked(values)


def _without_seed(values: Any) -> Any:
    if isinstance(values, Mapping) and "seed" in values:
        raise ValueError("a recipe is of any training seed, so none stands in it; leave it out and use --seed")
    return values


_AnySeed = BeforeValidator(_without_seed)


class StrategyChoice(Config):
    """A strategy that is not trained on episodes: its name, and settings of its constructor."""

    name: str = Field(description="a name in STRATEGIES")
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _settings_are_its_own(self) -> "StrategyChoice":
        if check_strategy(self.name) in META_STRATEGIES:
            raise ValueError(f"{self.name} is trained on episodes: say how in [meta_training], and leave [strategy] out")
        check_settings(self.name, self.settings)
        return self


class EpisodeChoice(Config):
    """The test episodes."""

    split: str
    n_way: int = Field(gt=1)
    n_shot: int = Field(gt=0)
    n_query: int = Field(gt=0, description="per class")
    episodes: int = Field(gt=1)
    seed: int = Field(ge=0, description="of the episodes")


class Published(Config):
    """A figure of the same method on the same data in somebody's paper."""

    accuracy: float = Field(gt=0, le=100, description="percent, as printed")
    interval: float | None = Field(default=None, gt=0, description="half width of the 95 % interval, percent, as printed")
    source: str
    remark: str | None = Field(default=None, description="what differs from this recipe")


class Recipe(Config):
    """A row: data, pretraining where there is any, training on episodes where there is any, a strategy, and test episodes."""

    name: str = Field(description="`<folder>/<file>` among the recipes; of another file its stem")
    title: str
    dataset: str
    pretraining: Annotated[PretrainConfig | None, _AnySeed] = None
    meta_training: Annotated[SerializeAsAny[MetaTrainConfig] | None, BeforeValidator(_meta_config), _AnySeed] = None
    strategy: StrategyChoice | None = None
    evaluation: EpisodeChoice
    controls: tuple[str, ...] = Field(default=(), description="names of recipes that it is to be measured against")
    published: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Recipe":
        if (self.strategy is None) == (self.meta_training is None):
            raise ValueError("expected either [strategy] or, for one that is trained on episodes, [meta_training]")
        if self.meta_training is not None:
            needed: str | None = get_meta_strategy(self.meta_training.strategy).pretrained
        else:
            needed = STRATEGIES[self.strategy_name].network
        given = self.pretraining.network if self.pretraining else None
        if given != needed:
            expected = f'network = "{needed}"' if needed else "no [pretraining], since it starts from scratch"
            raise ValueError(f"{self.strategy_name} takes {expected}; got {given}")
        if isinstance(self.meta_training, InnerLoopConfig) and self.meta_training.n_way != self.evaluation.n_way:
            raise ValueError(
                f"{self.strategy_name} learns a {self.meta_training.n_way}-way classifier: evaluation.n_way is {self.evaluation.n_way}"
            )
        return self

    @property
    def strategy_name(self) -> str:
        """In `STRATEGIES`."""
        if self.meta_training is not None:
            return self.meta_training.strategy
        assert self.strategy is not None
        return self.strategy.name

    @property
    def settings(self) -> dict[str, Any]:
        """Of the strategy's constructor, where it is not trained on episodes."""
        return self.strategy.settings if self.strategy else {}

    @property
    def precision(self) -> str:
        """That of training."""
        configs = [config for config in (self.meta_training, self.pretraining) if config]
        return configs[0].precision

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the result: all but names and published figures."""
        decides = self.model_dump(mode="json", exclude={"name", "title", "controls", "published"})
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def pretrain_config(self, seed: int) -> PretrainConfig | None:
        """How the backbone is pretrained, if it is."""
        return self.pretraining and self.pretraining.model_copy(update={"seed": seed})

    def meta_config(self, seed: int) -> MetaTrainConfig | None:
        """How the strategy is trained on episodes, if it is."""
        return self.meta_training and self.meta_training.model_copy(update={"seed": seed})


def recipe_names(workspace: Workspace, under: str = "") -> list[str]:
    """Sorted names of the recipes, the workspace's own and the package's; `under` is a folder of them."""
    names = workspace.list(FOLDER, ".toml")
    return [name for name in names if name.startswith(f"{under}/")] if under else names


def find_recipes(workspace: Workspace, names: Iterable[str]) -> list[Recipe]:
    """The recipes of these names; a folder's name means all that are in it. Each once, in this order.

    Raises:
        ConfigurationError: as `load_recipe`.
    """
    found = [member for name in names for member in recipe_names(workspace, name.rstrip("/")) or [name]]
    return [load_recipe(workspace, name) for name in dict.fromkeys(found)]


def load_recipe(workspace: Workspace, name: str) -> Recipe:
    """The recipe of this name, as `cifar-fs/protonet`, or in the file of this path.

    Raises:
        ConfigurationError: there is none, or it is no TOML, or a key or value of it is wrong.
    """
    if name.endswith(".toml"):
        path, called = Path(name), Path(name).stem
    else:
        path, called = workspace.find(f"{FOLDER}/{name}.toml") or Path(), name
    if not path.is_file():
        if name.endswith(".toml"):
            raise ConfigurationError(f"recipe {name} is no file; see those that have a name: fewshot-nsl recipes")
        near = difflib.get_close_matches(name, recipe_names(workspace), n=3, cutoff=0.4)
        meant = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ConfigurationError(f"no recipe is called '{name}'{meant} See those that there are: fewshot-nsl recipes")
    try:
        return Recipe.model_validate({"name": called} | tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not a TOML file: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(f"recipe {path}: field {first_wrong_field(error)}") from error
