import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewshot_nsl.evaluate import Interval, normal_interval


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_equals_scipy(accuracies: list[float]) -> None:
    interval = normal_interval(accuracies)
    error = stats.sem(accuracies)  # of the sample deviation, n - 1
    assert interval.mean == pytest.approx(np.mean(accuracies))
    assert interval.half_width == pytest.approx(stats.norm.ppf(0.975) * error, abs=1e-12)


def test_by_hand() -> None:
    interval = normal_interval([0.2, 0.4, 0.6, 0.8])  # s = sqrt(0.2 / 3)
    assert interval.mean == pytest.approx(0.5)
    assert interval.half_width == pytest.approx(1.96 * math.sqrt(0.2 / 3) / 2, rel=1e-4)


def test_equal_accuracies_have_no_spread() -> None:
    assert normal_interval([0.5] * 10) == Interval(0.5, 0.0)


def test_one_episode_has_no_interval() -> None:
    interval = normal_interval([0.5])
    assert interval.mean == 0.5
    assert math.isnan(interval.half_width)


def test_is_printed_in_percent_as_in_papers() -> None:
    assert str(Interval(0.71256, 0.0065)) == "71.26 ± 0.65"
    assert str(Interval(1.0, 0.0)) == "100.00 ± 0.00"
