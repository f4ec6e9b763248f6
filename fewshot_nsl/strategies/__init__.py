"""Strategies: how a learner meets an episode. One file each; `STRATEGIES` lists them."""

from fewshot_nsl.strategies.maml import MAML
from fewshot_nsl.strategies.meta_configs import MAMLConfig, MetaStaticConfig, MetaTrainConfig
from fewshot_nsl.strategies.meta_learner import MetaLearner
from fewshot_nsl.strategies.meta_static import MetaStatic
from fewshot_nsl.strategies.nearest_mean import NearestMean
from fewshot_nsl.strategies.precise import FeatureStrategy, PreciseEncoder
from fewshot_nsl.strategies.predict import predict
from fewshot_nsl.strategies.registry import META_STRATEGIES, STRATEGIES, MetaStrategyEntry, StrategyEntry, get_meta_strategy
from fewshot_nsl.strategies.retrained import RetrainedClassifier
from fewshot_nsl.strategies.static_finetuned import StaticFinetuned
from fewshot_nsl.strategies.strategy import Adapting, Classifier, FeatureLearner, Learner, Strategy

__all__ = [
    "MAML",
    "META_STRATEGIES",
    "STRATEGIES",
    "Adapting",
    "Classifier",
    "FeatureLearner",
    "FeatureStrategy",
    "Learner",
    "MAMLConfig",
    "MetaLearner",
    "MetaStatic",
    "MetaStaticConfig",
    "MetaStrategyEntry",
    "MetaTrainConfig",
    "NearestMean",
    "PreciseEncoder",
    "RetrainedClassifier",
    "StaticFinetuned",
    "Strategy",
    "StrategyEntry",
    "get_meta_strategy",
    "predict",
]
