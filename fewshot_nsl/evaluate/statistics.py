"""Means of accuracies over episodes, and how far they can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Interval:
    """`mean ± half_width`, fractions in [0, 1]."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        """As papers print it, in percent."""
        return f"{100 * self.mean:.2f} ± {100 * self.half_width:.2f}"


def normal_interval(accuracies: Sequence[float]) -> Interval:
    """Mean over episodes and its 95 % interval, 1.96 * s / sqrt(episodes) with s the sample standard deviation (n - 1), as in the papers.

    One episode has no interval: its half width is nan.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else np.nan
    return Interval(float(values.mean()), float(Z_95 * spread / np.sqrt(len(values))))
