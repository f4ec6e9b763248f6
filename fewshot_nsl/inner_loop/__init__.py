"""Inner loop: gradient descent on chosen parameters of many tasks, through which an outer loss can be differentiated."""

from fewshot_nsl.inner_loop.engine import ENGINES, Engine, choose_engine, fast, higher
from fewshot_nsl.inner_loop.grouped import GroupedNetwork, can_be_grouped
from fewshot_nsl.inner_loop.parameters import Adapt, Parameters, Rates, TaskLoss
from fewshot_nsl.inner_loop.task_network import FrozenNetwork, LoopedNetwork, TaskNetwork

__all__ = [
    "ENGINES",
    "Adapt",
    "Engine",
    "FrozenNetwork",
    "GroupedNetwork",
    "LoopedNetwork",
    "Parameters",
    "Rates",
    "TaskLoss",
    "TaskNetwork",
    "can_be_grouped",
    "choose_engine",
    "fast",
    "higher",
]
