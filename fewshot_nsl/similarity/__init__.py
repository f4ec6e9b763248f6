"""Neural similarity: convolutions whose inner product is replaced by a learned bilinear form (Liu et al., NeurIPS 2019)."""

from fewshot_nsl.similarity.convert import convert, fold, similarity_parameters
from fewshot_nsl.similarity.dynamic import DynamicSimilarityConv2d
from fewshot_nsl.similarity.functional import similarity_conv2d
from fewshot_nsl.similarity.hyperspherical import HypersphericalConv2d, hyperspherical_conv2d
from fewshot_nsl.similarity.predictor import PREDICTORS, SpherePredictor
from fewshot_nsl.similarity.static import StaticSimilarityConv2d
from fewshot_nsl.similarity.structure import STRUCTURES, Structure

__all__ = [
    "PREDICTORS",
    "STRUCTURES",
    "DynamicSimilarityConv2d",
    "HypersphericalConv2d",
    "SpherePredictor",
    "StaticSimilarityConv2d",
    "Structure",
    "convert",
    "fold",
    "hyperspherical_conv2d",
    "similarity_conv2d",
    "similarity_parameters",
]
