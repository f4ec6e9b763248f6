"""The shared evaluator: every strategy on the same episodes, with intervals, written down."""

from fewshot_nsl.evaluate.evaluator import evaluate, read_images
from fewshot_nsl.evaluate.paired import PairedDifference, holm, paired_difference
from fewshot_nsl.evaluate.pictures import picture_dynamic_similarity, picture_kernel_shapes, picture_similarity
from fewshot_nsl.evaluate.results import Evaluation, ResultRow, read_evaluations, result_name, write_evaluation
from fewshot_nsl.evaluate.statistics import Interval, normal_interval

__all__ = [
    "Evaluation",
    "Interval",
    "PairedDifference",
    "ResultRow",
    "evaluate",
    "holm",
    "normal_interval",
    "paired_difference",
    "picture_dynamic_similarity",
    "picture_kernel_shapes",
    "picture_similarity",
    "read_evaluations",
    "read_images",
    "result_name",
    "write_evaluation",
]
