"""Training: pretraining on base classes, meta-training on episodes, checkpoints, logs, and going on where a run stopped."""

from fewshot_nsl.training.checkpoint import Checkpoint, CheckpointCard, load_checkpoint, save_checkpoint
from fewshot_nsl.training.from_pretrained import train_from_pretrained
from fewshot_nsl.training.meta_train import meta_train
from fewshot_nsl.training.pretrain import PretrainConfig, pretrain
from fewshot_nsl.training.restore import check_store, find_checkpoint, find_pretrained, gather_rows, restore_backbone, restore_strategy
from fewshot_nsl.training.run import Run, find_run
from fewshot_nsl.training.table import evaluate_rows

__all__ = [
    "Checkpoint",
    "CheckpointCard",
    "PretrainConfig",
    "Run",
    "check_store",
    "evaluate_rows",
    "find_checkpoint",
    "find_pretrained",
    "find_run",
    "gather_rows",
    "load_checkpoint",
    "meta_train",
    "pretrain",
    "restore_backbone",
    "restore_strategy",
    "save_checkpoint",
    "train_from_pretrained",
]
