"""The list of strategies, and what each is made of."""

from collections.abc import Callable
from dataclasses import dataclass

from fewshot_nsl.strategies.meta_static import MetaStatic
from fewshot_nsl.strategies.nearest_mean import NearestMean
from fewshot_nsl.strategies.retrained import RetrainedClassifier
from fewshot_nsl.strategies.static_finetuned import StaticFinetuned
from fewshot_nsl.strategies.strategy import Strategy


@dataclass(frozen=True)
class StrategyEntry:
    """A row of the table."""

    title: str
    network: str
    """Which checkpoint it is evaluated from: the network "plain" or "dynamic" as pretrained, or the strategy's own."""
    build: Callable[..., Strategy]
    """Called with the pretrained backbone, and the strategy's settings by keyword."""


META_STRATEGIES: dict[str, Callable[..., MetaStatic]] = {
    "meta-static": MetaStatic,
}
"""Those trained on episodes: they have `loss(batch)` and a checkpoint of their own."""

STRATEGIES: dict[str, StrategyEntry] = {
    "nearest-mean": StrategyEntry("plain, nearest class mean", "plain", NearestMean),
    "retrained": StrategyEntry("plain, retrained classifier", "plain", RetrainedClassifier),
    "static": StrategyEntry("static NSN, finetuned", "plain", StaticFinetuned),
    "meta-static": StrategyEntry("static NSN, meta-learned", "meta-static", MetaStatic),
    "dynamic": StrategyEntry("dynamic NSN, retrained classifier", "dynamic", RetrainedClassifier),
}
