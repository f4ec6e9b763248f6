"""Training: pretraining on base classes, meta-training on episodes, checkpoints, logs, and going on where a run stopped."""

from fewshot_nsl.training.checkpoint import Checkpoint, CheckpointCard, load_checkpoint, save_checkpoint
from fewshot_nsl.training.from_pretrained import train_from_pretrained
from fewshot_nsl.training.ledger import Result, Results, claims, collect_results, summary
from fewshot_nsl.training.meta_train import meta_train
from fewshot_nsl.training.pretrain import PretrainConfig, pretrain
from fewshot_nsl.training.recipe import EpisodeChoice, Published, Recipe, StrategyChoice, find_recipes, load_recipe, recipe_names
from fewshot_nsl.training.rehearsal import shortened
from fewshot_nsl.training.reproduce import evaluate_recipe, find_result, find_start, train_recipe, trained_row
from fewshot_nsl.training.restore import check_store, find_checkpoint, find_pretrained, gather_rows, restore_backbone, restore_strategy
from fewshot_nsl.training.row import Row
from fewshot_nsl.training.run import Run, find_run
from fewshot_nsl.training.table import evaluate_rows

__all__ = [
    "Checkpoint",
    "CheckpointCard",
    "EpisodeChoice",
    "PretrainConfig",
    "Published",
    "Recipe",
    "Result",
    "Results",
    "Row",
    "Run",
    "StrategyChoice",
    "check_store",
    "claims",
    "collect_results",
    "evaluate_recipe",
    "evaluate_rows",
    "find_checkpoint",
    "find_pretrained",
    "find_recipes",
    "find_result",
    "find_run",
    "find_start",
    "gather_rows",
    "load_checkpoint",
    "load_recipe",
    "meta_train",
    "pretrain",
    "recipe_names",
    "restore_backbone",
    "restore_strategy",
    "save_checkpoint",
    "shortened",
    "summary",
    "train_from_pretrained",
    "train_recipe",
    "trained_row",
]
