"""Images of the base classes for strategies that learn them all at once now and then."""

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from fewshot_nsl.data import ImageStore
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies import CoTrains
from fewshot_nsl.training.streams import stream


def base_targets(store: ImageStore) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Rows of the images of `train`, and their classes counted from 0."""
    labels = store.split_labels("train")
    rows = np.flatnonzero(labels >= 0)
    return torch.from_numpy(rows), torch.from_numpy(np.unique(labels[rows], return_inverse=True)[1])


def count_base_classes(store: ImageStore) -> int:
    """Classes of `train`."""
    return int(base_targets(store)[1].max()) + 1


class BaseImages:
    """Which steps of training are of base images, and of which: functions of seed and step, and nothing else.

    Args:
        strategy: says how often, and how many images.
        store: its split `train`.
        steps: in all.
        seed: of training.

    Raises:
        ConfigurationError: the strategy has a classifier of another number of classes.
    """

    def __init__(self, strategy: CoTrains, store: ImageStore, *, steps: int, seed: int) -> None:
        self.strategy, self.steps, self.seed = strategy, steps, seed
        self._rows, self._targets = base_targets(store)
        if (classes := count_base_classes(store)) != strategy.base_classes:
            raise ConfigurationError(
                f"{store.name} has {classes} base classes, and the classifier of them was built for {strategy.base_classes}: "
                f"build the strategy with base_classes={classes}"
            )

    def draw(self, index: int) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]] | None:
        """Rows and classes of what step `index` is of, on the CPU; None where it is of episodes."""
        generator = stream(self.seed, "base", index)
        if torch.rand((), generator=generator) >= self.strategy.base_share(index, self.steps):
            return None
        places = torch.randperm(len(self._rows), generator=generator)[: self.strategy.base_batch]
        return self._rows[places], self._targets[places]
