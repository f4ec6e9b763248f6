import threading
from collections.abc import Iterator

import pytest

from fewshot_nsl.episodes.ahead import make_ahead

AHEAD = pytest.mark.parametrize("ahead", [0, 1, 3, 9])


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = _threads()
    yield
    assert _threads() == before


@AHEAD
@pytest.mark.parametrize("count", [0, 1, 5])
def test_all_come_in_order(ahead: int, count: int) -> None:
    assert list(make_ahead(str, count, ahead)) == [str(i) for i in range(count)]


def test_without_looking_ahead_there_is_no_thread() -> None:
    assert list(make_ahead(lambda _: threading.current_thread(), 3, 0)) == [threading.current_thread()] * 3


def test_one_thread_makes_them_all() -> None:
    makers = set(make_ahead(lambda _: threading.current_thread(), 5, 2))
    assert len(makers) == 1
    assert threading.current_thread() not in makers


def test_the_next_are_made_while_the_caller_works_and_no_more_than_asked() -> None:
    made = [threading.Event() for _ in range(10)]
    items = make_ahead(lambda index: made[index].set(), 10, 2)
    next(items)
    assert made[2].wait(10)
    assert not made[3].is_set()  # nobody has asked for it: that would be a third ahead
    next(items)
    assert made[3].wait(10)
    items.close()  # type: ignore[attr-defined]


@AHEAD
def test_an_error_is_raised_in_its_turn(ahead: int) -> None:
    def make(index: int) -> int:
        if index == 2:
            raise ZeroDivisionError("the third")
        return index

    items = make_ahead(make, 5, ahead)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ZeroDivisionError, match="the third"):
        next(items)


@AHEAD
def test_leaving_early_makes_no_more(ahead: int) -> None:
    made: list[int] = []
    for _ in make_ahead(made.append, 1000, ahead):
        if 3 in made:
            break
    assert len(made) <= 4 + ahead


def test_what_was_not_begun_is_not_made_when_the_caller_leaves() -> None:
    begun, go_on, made = threading.Event(), threading.Event(), []

    def make(index: int) -> int:
        if index == 1:
            begun.set()
            assert go_on.wait(10)
        made.append(index)
        return index

    items = make_ahead(make, 10, 5)
    assert next(items) == 0
    assert begun.wait(10)
    threading.Timer(0.05, go_on.set).start()
    items.close()  # type: ignore[attr-defined]
    assert made == [0, 1]


def test_an_error_of_the_caller_ends_the_thread() -> None:
    def fail() -> None:
        for index in make_ahead(str, 100, 2):
            raise KeyError(index)

    with pytest.raises(KeyError, match="0"):
        fail()
