"""The list of strategies, and what each is made of."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import create_model

from fewshot_nsl.config import Config
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies.cosine import CosineClassifier
from fewshot_nsl.strategies.episode_learner import EpisodeLearner
from fewshot_nsl.strategies.finetuned import Finetuned
from fewshot_nsl.strategies.k_shot import DiscriminativeKShot
from fewshot_nsl.strategies.leo import LEO
from fewshot_nsl.strategies.maml import MAML
from fewshot_nsl.strategies.matching_net import MatchingNet
from fewshot_nsl.strategies.meta_classifier import MetaClassifier
from fewshot_nsl.strategies.meta_configs import (
    LEOConfig,
    MAMLConfig,
    MatchingNetConfig,
    MetaClassifierConfig,
    MetaDynamicConfig,
    MetaStaticConfig,
    MetaTrainConfig,
    ProtoNetConfig,
    R2D2Config,
    RelationNetConfig,
    TADAMConfig,
)
from fewshot_nsl.strategies.meta_dynamic import MetaDynamic
from fewshot_nsl.strategies.meta_static import MetaStatic
from fewshot_nsl.strategies.nearest_mean import NearestMean
from fewshot_nsl.strategies.nearest_neighbour import NearestNeighbour
from fewshot_nsl.strategies.norm_finetuned import NormFinetuned
from fewshot_nsl.strategies.protonet import ProtoNet
from fewshot_nsl.strategies.r2d2 import R2D2
from fewshot_nsl.strategies.relation_net import RelationNet
from fewshot_nsl.strategies.retrained import RetrainedClassifier
from fewshot_nsl.strategies.ridge import RidgeClassifier
from fewshot_nsl.strategies.simple_shot import SimpleShot
from fewshot_nsl.strategies.static_finetuned import StaticFinetuned
from fewshot_nsl.strategies.strategy import Strategy
from fewshot_nsl.strategies.tadam import TADAM


@dataclass(frozen=True)
class StrategyEntry:
    """A row of the table."""

    title: str
    network: str
    """Which checkpoint it is evaluated from: the network "plain" or "dynamic" as pretrained, or the strategy's own."""
    build: Callable[..., Strategy]
    """Called with a backbone, and the strategy's settings by keyword."""

    @property
    def settings(self) -> type[Config]:
        """Those settings with their defaults, as far as they decide the answer: an engine does not."""
        keywords = [
            parameter
            for parameter in inspect.signature(self.build).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "engine"
        ]
        fields: dict[str, Any] = {parameter.name: (parameter.annotation, parameter.default) for parameter in keywords}
        return create_model("settings", __base__=Config, **fields)


@dataclass(frozen=True)
class MetaStrategyEntry:
    """A strategy that is trained on episodes."""

    build: Callable[..., EpisodeLearner]
    """Called with a backbone, and `config.arguments()` by keyword, with `base_classes` where it is a `CoTrainedConfig`."""
    config: type[MetaTrainConfig]
    """How it is trained, with its defaults."""
    pretrained: Literal["plain", "dynamic"] | None = None
    """The network, as pretrained, that it starts from; None: random weights of a backbone that its configuration chooses."""

    @property
    def from_scratch(self) -> bool:
        """Whether it starts from random weights."""
        return self.pretrained is None


META_STRATEGIES: dict[str, MetaStrategyEntry] = {
    "maml": MetaStrategyEntry(MAML, MAMLConfig),
    "matching-net": MetaStrategyEntry(MatchingNet, MatchingNetConfig),
    "protonet": MetaStrategyEntry(ProtoNet, ProtoNetConfig),
    "r2d2": MetaStrategyEntry(R2D2, R2D2Config),
    "relation-net": MetaStrategyEntry(RelationNet, RelationNetConfig),
    "leo": MetaStrategyEntry(LEO, LEOConfig, pretrained="plain"),
    "tadam": MetaStrategyEntry(TADAM, TADAMConfig),
    "meta-static": MetaStrategyEntry(MetaStatic, MetaStaticConfig, pretrained="plain"),
    "meta-dynamic": MetaStrategyEntry(MetaDynamic, MetaDynamicConfig, pretrained="dynamic"),
    "meta-classifier": MetaStrategyEntry(MetaClassifier, MetaClassifierConfig, pretrained="plain"),
}
"""Those trained on episodes: they have `loss(batch)` and a checkpoint of their own."""

STRATEGIES: dict[str, StrategyEntry] = {
    "nearest-mean": StrategyEntry("plain, nearest class mean", "plain", NearestMean),
    "retrained": StrategyEntry("plain, retrained classifier", "plain", RetrainedClassifier),
    "nearest-neighbour": StrategyEntry("plain, nearest neighbour", "plain", NearestNeighbour),
    "simple-shot": StrategyEntry("plain, SimpleShot", "plain", SimpleShot),
    "cosine": StrategyEntry("plain, cosine classifier", "plain", CosineClassifier),
    "ridge": StrategyEntry("plain, ridge regression", "plain", RidgeClassifier),
    "k-shot": StrategyEntry("plain, discriminative k-shot", "plain", DiscriminativeKShot),
    "finetuned": StrategyEntry("plain, finetuned", "plain", Finetuned),
    "finetuned-norm": StrategyEntry("plain, BN finetuned", "plain", NormFinetuned),
    "maml": StrategyEntry("MAML", "maml", MAML),
    "matching-net": StrategyEntry("MatchingNet", "matching-net", MatchingNet),
    "protonet": StrategyEntry("ProtoNet", "protonet", ProtoNet),
    "r2d2": StrategyEntry("R2-D2, ridge regression", "r2d2", R2D2),
    "relation-net": StrategyEntry("RelationNet", "relation-net", RelationNet),
    "leo": StrategyEntry("LEO", "leo", LEO),
    "tadam": StrategyEntry("TADAM", "tadam", TADAM),
    "static": StrategyEntry("static NSN, finetuned", "plain", StaticFinetuned),
    "meta-static": StrategyEntry("static NSN, meta-learned", "meta-static", MetaStatic),
    "meta-classifier": StrategyEntry("plain, meta-learned classifier", "meta-classifier", MetaClassifier),
    "dynamic": StrategyEntry("dynamic NSN, retrained classifier", "dynamic", RetrainedClassifier),
    "meta-dynamic": StrategyEntry("dynamic NSN, meta-learned", "meta-dynamic", MetaDynamic),
}


def check_strategy(name: str) -> str:
    """`name`, if it is a strategy's.

    Raises:
        ConfigurationError: it is not.
    """
    if name not in STRATEGIES:
        raise ConfigurationError(f"strategy '{name}' is unknown: expected one of {', '.join(STRATEGIES)}")
    return name


def check_settings(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of the strategy of this name: those in `values`, the others as its constructor has them.

    Raises:
        ConfigurationError: no such strategy or setting, or a value of another type.
    """
    settings = STRATEGIES[check_strategy(name)].settings
    for setting in values:
        if setting not in settings.model_fields:
            expected = f"some of {', '.join(settings.model_fields)}" if settings.model_fields else "none"
            raise ConfigurationError(f"strategy {name} has no setting '{setting}': expected {expected}; leave it out")
    return settings.checked(values).model_dump()


def get_meta_strategy(name: str) -> MetaStrategyEntry:
    """The strategy of this name that is trained on episodes.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in META_STRATEGIES:
        raise ConfigurationError(f"strategy '{name}' is not trained on episodes: expected one of {', '.join(META_STRATEGIES)}")
    return META_STRATEGIES[name]
