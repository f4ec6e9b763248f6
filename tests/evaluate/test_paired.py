import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewshot_nsl.errors import EpisodeError
from fewshot_nsl.evaluate import PairedDifference, holm, paired_difference

FRACTIONS = st.integers(0, 75).map(lambda right: right / 75)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(FRACTIONS, FRACTIONS), min_size=8, max_size=40))
def test_equals_scipy(pairs: list[tuple[float, float]]) -> None:
    first, second = (list(each) for each in zip(*pairs, strict=True))
    differences = np.subtract(first, second)
    if np.ptp(differences) < 1e-9:
        return
    found = paired_difference(first, second)
    test = stats.ttest_rel(first, second)
    interval = test.confidence_interval(0.95)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(tuple(interval), abs=1e-9)
    assert found.p_t == pytest.approx(test.pvalue)
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(first, second).pvalue, abs=0.2)


def test_by_hand() -> None:
    found = paired_difference([0.5, 0.7, 0.6, 0.9], [0.4, 0.5, 0.5, 0.5])  # 0.1, 0.2, 0.1, 0.4: s = sqrt(0.06 / 3), t = 2.828 of 3
    assert found.mean == pytest.approx(0.2)
    assert found.half_width == pytest.approx(3.182446 * np.sqrt(0.02) / 2, rel=1e-6)
    assert found.p_t == pytest.approx(0.0663, abs=1e-4)
    assert str(found) == "+20.00 ± 22.50"


def test_what_is_hard_for_both_cancels() -> None:
    random = np.random.default_rng(0)
    hard = random.uniform(0.3, 0.9, 600)
    better = hard + 0.01 + random.normal(0, 0.02, 600)
    assert paired_difference(list(better), list(hard)).p_t < 1e-6
    assert paired_difference(list(hard), list(better)).mean < 0


def test_equal_differences_leave_nothing_to_chance() -> None:
    assert paired_difference([0.5, 0.25], [0.5, 0.25]) == PairedDifference(0.0, 0.0, 1.0, 1.0)
    assert paired_difference([0.75, 0.5], [0.5, 0.25]) == PairedDifference(0.25, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("first", "second"), [([0.5, 0.5], [0.5]), ([0.5], [0.5]), ([], [])])
def test_what_cannot_be_paired_is_refused(first: list[float], second: list[float]) -> None:
    message = f"a paired difference of {len(first)} and {len(second)} episodes: expected as many of both, two at least"
    with pytest.raises(EpisodeError, match=message):
        paired_difference(first, second)


def test_a_true_null_is_rejected_in_one_of_twenty() -> None:
    random = np.random.default_rng(1)
    draws = random.binomial(75, 0.7, (2, 2000, 60)) / 75
    found = [paired_difference(list(first), list(second)) for first, second in zip(*draws, strict=True)]
    for rate in (np.mean([each.p_t < 0.05 for each in found]), np.mean([abs(each.mean) > each.half_width for each in found])):
        assert 0.04 < rate < 0.06


def test_holm_of_a_worked_example() -> None:
    # Wikipedia, "Holm-Bonferroni method": 0.01, 0.04, 0.03, 0.005 at 0.05: the first and the last are rejected
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.001, 0.2))
def test_holm_rejects_what_its_steps_reject(p_values: list[float], level: float) -> None:
    rejected: set[int] = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p <= level} == rejected


def test_holm_of_nothing_is_nothing() -> None:
    assert len(holm([])) == 0
