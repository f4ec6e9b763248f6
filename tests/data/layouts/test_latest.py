import weakref
from itertools import count

import pytest

from fewshot_nsl.data.layouts.latest import Latest


class _Large:
    """What can be watched."""


def test_the_same_key_is_read_once_and_another_again() -> None:
    numbers = count()
    latest = Latest(lambda key: f"{key}{next(numbers)}")
    assert [latest(key) for key in ("a", "a", "b", "a")] == ["a0", "a0", "b1", "a2"]


def test_one_is_let_go_of_before_another_is_read() -> None:
    kept: list[weakref.ref[_Large]] = []

    def read(_: str) -> _Large:
        assert all(each() is None for each in kept)
        large = _Large()
        kept.append(weakref.ref(large))
        return large

    latest = Latest(read)
    for key in ("a", "b", "c"):
        latest(key)
        assert kept[-1]() is not None
    assert len(kept) == 3


def test_after_a_failure_the_same_key_is_read_again() -> None:
    answers = iter([None, "text"])

    def read(_: str) -> str:
        if (answer := next(answers)) is None:
            raise ValueError("not yet")
        return answer

    latest = Latest(read)
    with pytest.raises(ValueError, match="not yet"):
        latest("a")
    assert latest("a") == "text"
