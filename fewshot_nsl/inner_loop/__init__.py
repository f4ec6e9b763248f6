"""Inner loop: gradient descent on chosen parameters of many tasks, through which an outer loss can be differentiated."""

from fewshot_nsl.inner_loop.differentiable import Parameters, TaskLoss, adapt, meta_gradient

__all__ = ["Parameters", "TaskLoss", "adapt", "meta_gradient"]
