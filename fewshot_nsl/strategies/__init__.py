"""Strategies: how a learner meets an episode. One file each; `STRATEGIES` lists them."""

from fewshot_nsl.strategies.cosine import CosineClassifier
from fewshot_nsl.strategies.episode_learner import EpisodeLearner
from fewshot_nsl.strategies.finetuned import Finetuned
from fewshot_nsl.strategies.k_shot import DiscriminativeKShot
from fewshot_nsl.strategies.leo import LEO
from fewshot_nsl.strategies.maml import MAML
from fewshot_nsl.strategies.matching_net import MatchingNet
from fewshot_nsl.strategies.meta_classifier import MetaClassifier
from fewshot_nsl.strategies.meta_configs import (
    CoTrainedConfig,
    InnerLoopConfig,
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
from fewshot_nsl.strategies.meta_learner import MetaLearner
from fewshot_nsl.strategies.meta_static import MetaStatic
from fewshot_nsl.strategies.metric_learner import MetricLearner
from fewshot_nsl.strategies.nearest_mean import NearestMean
from fewshot_nsl.strategies.nearest_neighbour import NearestNeighbour
from fewshot_nsl.strategies.norm_finetuned import NormFinetuned
from fewshot_nsl.strategies.precise import FeatureStrategy, PreciseEncoder
from fewshot_nsl.strategies.predict import predict
from fewshot_nsl.strategies.protonet import ProtoNet
from fewshot_nsl.strategies.r2d2 import R2D2
from fewshot_nsl.strategies.registry import (
    META_STRATEGIES,
    STRATEGIES,
    MetaStrategyEntry,
    StrategyEntry,
    check_settings,
    check_strategy,
    get_meta_strategy,
)
from fewshot_nsl.strategies.relation_net import RelationNet
from fewshot_nsl.strategies.retrained import RetrainedClassifier
from fewshot_nsl.strategies.ridge import RidgeClassifier
from fewshot_nsl.strategies.simple_shot import SimpleShot
from fewshot_nsl.strategies.static_finetuned import StaticFinetuned
from fewshot_nsl.strategies.strategy import (
    Adapting,
    Classifier,
    CoTrains,
    FeatureLearner,
    Learner,
    LearnsBase,
    LearnsClassifier,
    Precise,
    Strategy,
)
from fewshot_nsl.strategies.tadam import TADAM

__all__ = [
    "LEO",
    "MAML",
    "META_STRATEGIES",
    "R2D2",
    "STRATEGIES",
    "TADAM",
    "Adapting",
    "Classifier",
    "CoTrainedConfig",
    "CoTrains",
    "CosineClassifier",
    "DiscriminativeKShot",
    "EpisodeLearner",
    "FeatureLearner",
    "FeatureStrategy",
    "Finetuned",
    "InnerLoopConfig",
    "LEOConfig",
    "Learner",
    "LearnsBase",
    "LearnsClassifier",
    "MAMLConfig",
    "MatchingNet",
    "MatchingNetConfig",
    "MetaClassifier",
    "MetaClassifierConfig",
    "MetaDynamic",
    "MetaDynamicConfig",
    "MetaLearner",
    "MetaStatic",
    "MetaStaticConfig",
    "MetaStrategyEntry",
    "MetaTrainConfig",
    "MetricLearner",
    "NearestMean",
    "NearestNeighbour",
    "NormFinetuned",
    "Precise",
    "PreciseEncoder",
    "ProtoNet",
    "ProtoNetConfig",
    "R2D2Config",
    "RelationNet",
    "RelationNetConfig",
    "RetrainedClassifier",
    "RidgeClassifier",
    "SimpleShot",
    "StaticFinetuned",
    "Strategy",
    "StrategyEntry",
    "TADAMConfig",
    "check_settings",
    "check_strategy",
    "get_meta_strategy",
    "predict",
]
