"""Two rows on the same episodes: how much they differ, and whether that could be chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy import stats

from fewshot_nsl.errors import EpisodeError


@dataclass(frozen=True)
class PairedDifference:
    """First minus second, a fraction; the episodes' own difficulty cancels."""

    mean: float
    half_width: float
    """Of the 95 % interval, by Student's t."""
    p_t: float
    """Of Student's paired t-test that the mean is 0, two-sided."""
    p_wilcoxon: float
    """Of Wilcoxon's signed-rank test that the differences lie evenly about 0, two-sided."""

    def __str__(self) -> str:
        """In percent points."""
        return f"{100 * self.mean:+.2f} ± {100 * self.half_width:.2f}"


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Of accuracies of the same episodes, in the same order.

    Where all differences are equal there is no spread to test by: p is 1 if they are 0, otherwise 0.

    Raises:
        EpisodeError: not as many of the one as of the other, or fewer than two.
    """
    if len(first) != len(second) or len(first) < 2:
        raise EpisodeError(
            f"a paired difference of {len(first)} and {len(second)} episodes: expected as many of both, two at least; evaluate both alike"
        )
    differences = np.subtract(first, second, dtype=np.float64)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / np.sqrt(len(differences))
    if error == 0:
        sure = float(mean == 0)
        return PairedDifference(mean, 0.0, sure, sure)
    half_width = float(stats.t.ppf(0.975, len(differences) - 1) * error)
    p_t = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return PairedDifference(mean, half_width, p_t, float(stats.wilcoxon(differences).pvalue))


def holm(p_values: Sequence[float]) -> Float64[np.ndarray, " tests"]:
    """p-values of several tests, each corrected for all of them: below 0.05 keeps the chance of any false finding at 5 % (Holm 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected
