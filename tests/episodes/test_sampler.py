import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Philox
from scipy.stats import chisquare, hypergeom

from fewshot_nsl.episodes import Episode, EpisodeSampler
from fewshot_nsl.errors import EpisodeError

LABELS = np.repeat(np.arange(6), 8)
"""6 classes, 8 rows each."""


def _same(a: Episode, b: Episode) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_raw_words_of_the_generator_never_change() -> None:
    """Everything that is random in an episode comes from these; another numpy that gives other words breaks every frozen episode."""
    words = Philox(key=[7, 0], counter=[0, 3, 1, 0]).random_raw(4).tolist()
    assert words == [9203821639201711694, 12361866525752856373, 1569923912996376800, 10418082246861493904]


def test_episodes_never_change() -> None:
    sampler = EpisodeSampler(LABELS, n_way=3, n_shot=2, n_query=3, seed=7)
    episode = sampler[3]
    assert episode.classes.tolist() == [5, 0, 1]
    assert episode.support_rows.tolist() == [46, 41, 5, 3, 8, 9]
    assert episode.query_rows.tolist() == [43, 40, 47, 0, 4, 1, 15, 14, 13]


def test_large_seeds_and_numbers_are_taken_to_the_last_bit() -> None:
    assert EpisodeSampler(LABELS, 3, 2, 3, seed=2**64 - 1)[2**64 - 1].support_rows.tolist() == [33, 37, 13, 15, 27, 25]
    by_seed = {tuple(EpisodeSampler(LABELS, 3, 2, 3, seed=2**63 + i)[0].support_rows) for i in range(5)}
    by_number = {tuple(EpisodeSampler(LABELS, 3, 2, 3, seed=0)[2**63 + i].support_rows) for i in range(5)}
    assert len(by_seed) == len(by_number) == 5


def test_an_episode_does_not_depend_on_what_was_asked_before() -> None:
    forwards, backwards = (EpisodeSampler(LABELS, 3, 2, 3, seed=0) for _ in range(2))
    first = [forwards[i] for i in range(10)]
    again = [backwards[i] for i in reversed(range(10))][::-1]
    assert all(_same(a, b) for a, b in zip(first, again, strict=True))
    assert _same(forwards[4], first[4])


@pytest.mark.parametrize("balanced", [True, False])
def test_several_at_once_are_those_one_by_one(balanced: bool) -> None:
    sampler = EpisodeSampler(LABELS, 3, [2, 1, 3], 3, seed=0, balanced=balanced)
    numbers = [7, 0, 2**64 - 1, 7]
    drawn = sampler.draw(numbers)
    assert all(_same(a, sampler[i]) for a, i in zip(drawn, numbers, strict=True))
    assert sampler.draw([]) == []


def test_what_is_done_with_an_episode_changes_no_other() -> None:
    sampler = EpisodeSampler(LABELS, 3, 2, 3, seed=0)
    first, second = sampler.draw([4, 4])
    for array in vars(first).values():
        array[:] = -1
    assert _same(second, sampler[4])


def test_the_labels_given_may_change_afterwards() -> None:
    labels = LABELS.copy()
    sampler = EpisodeSampler(labels, 3, 2, 3, seed=0)
    before = sampler[4]
    labels[:] = 0
    assert _same(sampler[4], before)


def test_other_numbers_and_other_seeds_give_other_episodes() -> None:
    sampler, other = EpisodeSampler(LABELS, 3, 2, 3, seed=0), EpisodeSampler(LABELS, 3, 2, 3, seed=1)
    drawn = {tuple(episode.support_rows) for i in range(50) for episode in (sampler[i], other[i])}
    assert len(drawn) == 100


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 2**64 - 1), index=st.integers(0, 2**64 - 1))
def test_every_episode_is_one(data: st.DataObject, seed: int, index: int) -> None:
    n_classes = data.draw(st.integers(1, 6))
    sizes = data.draw(st.lists(st.integers(3, 9), min_size=n_classes, max_size=n_classes))
    labels = np.repeat(10 * np.arange(n_classes), sizes)
    labels = data.draw(st.permutations(labels.tolist()).map(np.array))
    n_way = data.draw(st.integers(1, n_classes))
    shots = data.draw(st.lists(st.integers(1, min(sizes) - 1), min_size=n_way, max_size=n_way))
    n_query = data.draw(st.integers(1, min(sizes) - max(shots)))
    episode = EpisodeSampler(labels, n_way, shots, n_query, seed)[index]

    assert len(set(episode.classes.tolist())) == n_way
    assert episode.support_labels.tolist() == [i for i, shot in enumerate(shots) for _ in range(shot)]
    assert episode.query_labels.tolist() == [i for i in range(n_way) for _ in range(n_query)]
    assert np.array_equal(labels[episode.support_rows], episode.classes[episode.support_labels])
    assert np.array_equal(labels[episode.query_rows], episode.classes[episode.query_labels])
    rows = [*episode.support_rows.tolist(), *episode.query_rows.tolist()]
    assert len(set(rows)) == len(rows)
    assert all(array.dtype == np.int64 for array in vars(episode).values())


def test_the_number_of_queries_moves_no_support_and_more_only_add() -> None:
    few, many = EpisodeSampler(LABELS, 3, 2, 2, seed=5), EpisodeSampler(LABELS, 3, 2, 6, seed=5)
    for i in range(20):
        assert np.array_equal(few[i].classes, many[i].classes)
        assert np.array_equal(few[i].support_rows, many[i].support_rows)
        assert np.array_equal(few[i].query_rows.reshape(3, 2), many[i].query_rows.reshape(3, 6)[:, :2])


def test_supports_of_fewer_shots_are_the_first_of_more() -> None:
    one, five = EpisodeSampler(LABELS, 3, 1, 3, seed=5), EpisodeSampler(LABELS, 3, 5, 3, seed=5)
    for i in range(20):
        assert np.array_equal(one[i].classes, five[i].classes)
        assert np.array_equal(one[i].support_rows, five[i].support_rows.reshape(3, 5)[:, 0])


def test_each_way_may_have_its_number_of_shots() -> None:
    uneven, even = EpisodeSampler(LABELS, 3, [4, 1, 2], 3, seed=5), EpisodeSampler(LABELS, 3, 4, 3, seed=5)
    assert uneven.n_shot == (4, 1, 2)
    for i in range(20):
        assert uneven[i].support_labels.tolist() == [0, 0, 0, 0, 1, 2, 2]
        expected = even[i].support_rows.reshape(3, 4)
        assert uneven[i].support_rows.tolist() == [*expected[0], expected[1, 0], *expected[2, :2]]


def test_rows_with_a_negative_label_take_no_part() -> None:
    labels = np.where(np.arange(48) % 2 == 0, LABELS, -1)
    labels[LABELS == 4] = -3
    sampler = EpisodeSampler(labels, 5, 1, 3, seed=0)
    assert sampler.classes.tolist() == [0, 1, 2, 3, 5]
    assert np.array_equal(sampler.rows, np.flatnonzero(labels >= 0))
    shown = {row for i in range(100) for row in (*sampler[i].support_rows.tolist(), *sampler[i].query_rows.tolist())}
    assert shown == set(sampler.rows.tolist())


def test_the_order_of_rows_within_a_class_is_that_of_the_labels() -> None:
    shuffled = np.random.default_rng(0).permutation(LABELS)
    places = np.argsort(shuffled, kind="stable")
    plain, moved = EpisodeSampler(LABELS, 3, 2, 3, seed=1)[0], EpisodeSampler(shuffled, 3, 2, 3, seed=1)[0]
    assert np.array_equal(places[plain.support_rows], moved.support_rows)


LEVEL = 1e-3
"""The seed is fixed, so these pass or fail for good; by chance alone one in a thousand seeds would fail."""


def test_classes_and_pairs_of_places_are_drawn_equally_often() -> None:
    sampler = EpisodeSampler(LABELS, 2, 1, 1, seed=11)
    pairs = np.zeros((6, 6), dtype=int)
    for episode in sampler.draw(range(6000)):
        pairs[tuple(episode.classes)] += 1
    assert not pairs.diagonal().any()
    assert chisquare(pairs[~np.eye(6, dtype=bool)]).pvalue > LEVEL


def test_images_of_a_class_are_drawn_equally_often() -> None:
    sampler = EpisodeSampler(LABELS, 1, 1, 1, seed=12)
    support, query = np.zeros(48, dtype=int), np.zeros(48, dtype=int)
    pairs = np.zeros((8, 8), dtype=int)
    for episode in sampler.draw(range(6000)):
        support[episode.support_rows] += 1
        query[episode.query_rows] += 1
        pairs[episode.support_rows[0] % 8, episode.query_rows[0] % 8] += 1
    assert chisquare(support).pvalue > LEVEL
    assert chisquare(query).pvalue > LEVEL
    assert chisquare(pairs[~np.eye(8, dtype=bool)]).pvalue > LEVEL


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 2**64 - 1), index=st.integers(0, 2**64 - 1))
def test_every_unbalanced_episode_is_one_with_the_supports_of_the_balanced(data: st.DataObject, seed: int, index: int) -> None:
    sizes = data.draw(st.lists(st.integers(3, 9), min_size=1, max_size=6))
    labels = np.array(data.draw(st.permutations(np.repeat(10 * np.arange(len(sizes)), sizes).tolist())))
    n_way = data.draw(st.integers(1, len(sizes)))
    shots = data.draw(st.lists(st.integers(1, min(sizes) - 1), min_size=n_way, max_size=n_way))
    n_query = data.draw(st.integers(1, (sum(sorted(sizes)[:n_way]) - sum(shots)) // n_way))
    sampler = EpisodeSampler(labels, n_way, shots, n_query, seed, balanced=False)
    episode = sampler[index]

    assert len(episode.query_rows) == len(episode.query_labels) == n_way * n_query
    assert np.array_equal(labels[episode.query_rows], episode.classes[episode.query_labels])
    rows = [*episode.support_rows.tolist(), *episode.query_rows.tolist()]
    assert len(set(rows)) == len(rows)
    assert all(array.dtype == np.int64 for array in vars(episode).values())
    balanced = EpisodeSampler(labels, n_way, shots, 1, seed)[index]
    for name in ("classes", "support_rows", "support_labels"):
        assert np.array_equal(getattr(episode, name), getattr(balanced, name))
    assert _same(EpisodeSampler(labels, n_way, shots, n_query, seed, balanced=False).draw([0, index])[1], episode)


def test_unbalanced_episodes_never_change() -> None:
    episode = EpisodeSampler(LABELS, 3, 2, 3, seed=7, balanced=False)[3]
    assert episode.classes.tolist() == [5, 0, 1]
    assert episode.support_rows.tolist() == [46, 41, 5, 3, 8, 9]
    assert episode.query_rows.tolist() == [1, 15, 7, 10, 11, 6, 42, 47, 14]
    assert episode.query_labels.tolist() == [1, 2, 1, 2, 2, 1, 0, 0, 2]


def test_more_unbalanced_queries_only_add() -> None:
    few, many = (EpisodeSampler(LABELS, 3, 2, n_query, seed=5, balanced=False) for n_query in (2, 6))
    for i in range(20):
        assert np.array_equal(few[i].query_rows, many[i].query_rows[:6])


def test_every_image_that_is_no_support_is_an_unbalanced_query_equally_often() -> None:
    labels = np.repeat(np.arange(4), [3, 4, 6, 3])
    first, pairs, counts = np.zeros(12, dtype=int), np.zeros((12, 12), dtype=int), np.zeros((9000, 4), dtype=int)
    for i, episode in enumerate(EpisodeSampler(labels, 4, 1, 1, seed=13, balanced=False).draw(range(9000))):
        left = np.setdiff1d(np.arange(16), episode.support_rows)
        places = np.searchsorted(left, episode.query_rows)
        first[places[0]] += 1
        pairs[places[1], places[3]] += 1
        counts[i] = np.bincount(labels[episode.query_rows], minlength=4)
    assert chisquare(first).pvalue > LEVEL
    assert chisquare(pairs[~np.eye(12, dtype=bool)]).pvalue > LEVEL
    # So many of the four are of a class as a hypergeometric law says: 2, 3, 5 and 2 of 12 images are left.
    for label, images in enumerate((2, 3, 5, 2)):
        expected = hypergeom(12, images, 4).pmf(np.arange(min(images, 4) + 1))
        found = np.bincount(counts[:, label], minlength=len(expected))
        assert chisquare(found, 9000 * expected).pvalue > LEVEL


def test_unbalanced_queries_may_leave_classes_out() -> None:
    episodes = EpisodeSampler(LABELS, 3, 1, 1, seed=0, balanced=False).draw(range(100))
    assert {len(set(episode.query_labels.tolist())) for episode in episodes} == {1, 2, 3}


def test_unbalanced_episodes_may_take_every_image_there_is() -> None:
    for episode in EpisodeSampler(LABELS, 6, [1, 2, 3, 4, 1, 1], 6, seed=0, balanced=False).draw(range(20)):
        assert sorted([*episode.support_rows, *episode.query_rows]) == list(range(48))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_query": 7}, "the 3 smallest classes have 24 images, an episode takes 6 shots and 21 queries = 27; ask for fewer"),
        ({"n_shot": [1, 1, 9], "n_query": 1}, "class 0 has 8 images, an episode takes 9 shots; ask for fewer"),
        ({"labels": np.repeat(np.arange(3), [9, 9, 2]), "n_way": 2, "n_shot": 1, "n_query": 5}, "the 2 smallest classes have 11 images"),
        ({"labels": np.repeat(np.arange(3), [9, 9, 2]), "n_way": 2, "n_shot": 3, "n_query": 1}, "class 2 has 2 images, an episode takes 3"),
    ],
)
def test_impossible_unbalanced_sizes_are_refused_at_once(sizes: dict[str, object], message: str) -> None:
    arguments = {"labels": LABELS, "n_way": 3, "n_shot": 2, "n_query": 6, "seed": 0, "balanced": False}
    EpisodeSampler(**arguments)  # type: ignore[arg-type]
    with pytest.raises(EpisodeError, match=message):
        EpisodeSampler(**(arguments | sizes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_way": 7}, "6 classes cannot make a 7-way episode; ask for fewer ways"),
        ({"n_way": 0}, "an episode of 0 ways, 2 shots and 3 queries: each is to be at least 1"),
        ({"n_shot": 0}, "3 ways, 0 shots and 3 queries: each is to be at least 1"),
        ({"n_query": 0}, "3 ways, 2 shots and 0 queries: each is to be at least 1"),
        ({"n_shot": [1, 0, 1]}, r"3 ways, \[1, 0, 1\] shots and 3 queries: each is to be at least 1"),
        ({"n_shot": []}, "each is to be at least 1"),
        ({"n_shot": [1, 2]}, "n_shot lists 2 numbers for 3 ways: expected one per way"),
        ({"n_shot": 6}, "class 0 has 8 images, an episode takes 6 shots and 3 queries = 9; ask for fewer"),
        ({"n_shot": [1, 6, 1]}, "class 0 has 8 images, an episode takes 6 shots and 3 queries = 9"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"seed": 2**64}, "seed 18446744073709551616 is out of range"),
    ],
)
def test_impossible_sizes_are_refused_at_once(sizes: dict[str, object], message: str) -> None:
    arguments = {"labels": LABELS, "n_way": 3, "n_shot": 2, "n_query": 3, "seed": 0} | sizes
    with pytest.raises(EpisodeError, match=message):
        EpisodeSampler(**arguments)  # type: ignore[arg-type]


def test_the_class_that_is_too_small_is_named() -> None:
    labels = np.append(np.repeat([4, 9], 5), [7, 7])
    with pytest.raises(EpisodeError, match="class 7 has 2 images"):
        EpisodeSampler(labels, 2, 1, 2, seed=0)


def test_no_labels_at_all_are_refused() -> None:
    for labels in (np.array([], dtype=np.int64), np.full(5, -1)):
        with pytest.raises(EpisodeError, match="0 classes cannot make a 1-way episode"):
            EpisodeSampler(labels, 1, 1, 1, seed=0)


@pytest.mark.parametrize("index", [-1, 2**64])
def test_numbers_of_no_episode_are_refused(index: int) -> None:
    with pytest.raises(EpisodeError, match=f"episode {index} is out of range"):
        EpisodeSampler(LABELS, 3, 2, 3, seed=0)[index]
