import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Philox

from fewshot_nsl.episodes.shuffle import draw_places, random_words

WORDS = st.integers(0, 2**64 - 1)


def _fisher_yates(words: list[int], size: int) -> list[int]:
    places = list(range(size))
    for i, word in enumerate(words):
        j = i + word % (size - i)
        places[i], places[j] = places[j], places[i]
    return places[: len(words)]


def test_words_are_those_of_a_generator_of_their_own() -> None:
    indices = [3, 0, 2**64 - 1]
    streams = random_words(2**64 - 1, indices, (5, 1, 8))
    for stream, words in enumerate(streams):
        for row, index in zip(words, indices, strict=True):
            counter = np.array([0, index, stream, 0], dtype=np.uint64)
            alone = Philox(key=np.array([2**64 - 1, 0], dtype=np.uint64), counter=counter).random_raw(len(row))
            assert np.array_equal(row, alone)


def test_words_never_change() -> None:
    assert random_words(7, [3], (0, 4))[1].tolist() == [
        [9203821639201711694, 12361866525752856373, 1569923912996376800, 10418082246861493904]
    ]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_places_are_those_of_a_shuffle_step_by_step(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    count = data.draw(st.integers(1, min(sizes)))
    words = data.draw(st.lists(st.lists(WORDS, min_size=count, max_size=count), min_size=len(sizes), max_size=len(sizes)))
    drawn = draw_places(np.array(words, dtype=np.uint64), np.array(sizes))
    assert drawn.tolist() == [_fisher_yates(row, size) for row, size in zip(words, sizes, strict=True)]


def test_draws_may_lie_in_any_shape() -> None:
    words = random_words(0, range(6), (4,))[0]
    sizes = np.arange(10, 16)
    drawn = draw_places(words.reshape(2, 3, 4), sizes.reshape(2, 3))
    assert drawn.shape == (2, 3, 4)
    assert np.array_equal(drawn.reshape(6, 4), draw_places(words, sizes))


@pytest.mark.parametrize("size", [10, 2**40])
def test_as_many_places_as_are_asked_and_none_twice(size: int) -> None:
    drawn = draw_places(random_words(0, range(100), (10,))[0], np.full(100, size))
    assert all(len(set(row)) == 10 and min(row) >= 0 and max(row) < size for row in drawn.tolist())
