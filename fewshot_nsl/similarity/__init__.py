"""Neural similarity: layers whose inner product is replaced by a learned bilinear form (Liu et al., NeurIPS 2019)."""

from fewshot_nsl.similarity.attention import GlobalSimilarity, orthogonality
from fewshot_nsl.similarity.convert import added_parameters, convert, fold, left_alone, predictor_parameters, similarity_parameters
from fewshot_nsl.similarity.dynamic import DynamicSimilarityConv2d
from fewshot_nsl.similarity.functional import similarity_conv2d
from fewshot_nsl.similarity.hyperspherical import HypersphericalConv2d, hyperspherical_conv2d
from fewshot_nsl.similarity.kernel_shape import KernelShape, boolean_shape, sgd_groups, shape_parameters
from fewshot_nsl.similarity.linear import DynamicSimilarityLinear, HypersphericalLinear, StaticSimilarityLinear, similarity_linear
from fewshot_nsl.similarity.predictor import PREDICTORS, PlainPredictor, SpherePredictor
from fewshot_nsl.similarity.recurrent import SimilarityGRUCell, SimilarityLSTMCell, similarity_cell
from fewshot_nsl.similarity.shared import SharedPredictor, share_predictors
from fewshot_nsl.similarity.shift import Shift, ShiftSimilarityConv2d
from fewshot_nsl.similarity.sparsity import HardSparse, keep_largest, l1_penalty
from fewshot_nsl.similarity.static import StaticSimilarityConv2d
from fewshot_nsl.similarity.structure import STRUCTURES, Structure

__all__ = [
    "PREDICTORS",
    "STRUCTURES",
    "DynamicSimilarityConv2d",
    "DynamicSimilarityLinear",
    "GlobalSimilarity",
    "HardSparse",
    "HypersphericalConv2d",
    "HypersphericalLinear",
    "KernelShape",
    "PlainPredictor",
    "SharedPredictor",
    "Shift",
    "ShiftSimilarityConv2d",
    "SimilarityGRUCell",
    "SimilarityLSTMCell",
    "SpherePredictor",
    "StaticSimilarityConv2d",
    "StaticSimilarityLinear",
    "Structure",
    "added_parameters",
    "boolean_shape",
    "convert",
    "fold",
    "hyperspherical_conv2d",
    "keep_largest",
    "l1_penalty",
    "left_alone",
    "orthogonality",
    "predictor_parameters",
    "sgd_groups",
    "shape_parameters",
    "share_predictors",
    "similarity_cell",
    "similarity_conv2d",
    "similarity_linear",
    "similarity_parameters",
]
