import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import Episode, EpisodeDataset, Episodes, EpisodeSampler, FrozenEpisodes, freeze, read_frozen
from fewshot_nsl.errors import EpisodeError


def _sampler(store: ImageStore, n_shot: int | list[int] = 2, n_query: int = 4, *, balanced: bool = True) -> EpisodeSampler:
    return EpisodeSampler(store.split_labels("val"), 3, n_shot, n_query, seed=7, balanced=balanced)


@pytest.fixture
def frozen(tiny_store: ImageStore, tmp_path: Path) -> FrozenEpisodes:
    path = tmp_path / "set.parquet"
    freeze(tiny_store, _sampler(tiny_store), path, split="val", episodes=30)
    return read_frozen(path, tiny_store)


def _by_label(rows: np.ndarray, labels: np.ndarray) -> list[set[int]]:
    return [set(rows[labels == label].tolist()) for label in range(3)]


def test_it_has_the_very_episodes_of_the_sampler(tiny_store: ImageStore, frozen: FrozenEpisodes) -> None:
    sampler = _sampler(tiny_store)
    assert len(frozen) == 30
    for i, episode in enumerate(frozen):
        assert all(np.array_equal(array, getattr(sampler[i], name)) for name, array in vars(episode).items())
        assert all(array.dtype == np.int64 for array in vars(episode).values())


@pytest.mark.parametrize(("n_shot", "balanced"), [([1, 3, 2], True), (2, False), ([4, 1, 1], False)])
def test_uneven_shots_and_unbalanced_queries_are_kept(
    tiny_store: ImageStore, tmp_path: Path, n_shot: int | list[int], balanced: bool
) -> None:
    sampler = _sampler(tiny_store, n_shot, balanced=balanced)
    path = tmp_path / "set.parquet"
    freeze(tiny_store, sampler, path, split="val", episodes=30)
    frozen = read_frozen(path, tiny_store)
    assert frozen.n_shot == sampler.n_shot
    assert frozen.description.balanced is balanced
    for i, episode in enumerate(frozen):
        drawn = sampler[i]
        assert np.array_equal(episode.classes, drawn.classes)
        assert np.array_equal(episode.support_rows, drawn.support_rows)
        assert np.array_equal(episode.support_labels, drawn.support_labels)
        assert _by_label(episode.query_rows, episode.query_labels) == _by_label(drawn.query_rows, drawn.query_labels)


def test_it_says_how_it_was_drawn(tiny_store: ImageStore, frozen: FrozenEpisodes) -> None:
    assert (frozen.split, frozen.n_way, frozen.n_shot, frozen.n_query, frozen.seed) == ("val", 3, (2, 2, 2), 4, 7)
    assert (frozen.description.dataset, frozen.description.store_fingerprint) == ("tiny", tiny_store.fingerprint)
    assert frozen.description.n_shot == 2


def test_it_is_taken_where_a_sampler_is(tiny_store: ImageStore, frozen: FrozenEpisodes) -> None:
    assert isinstance(frozen, Episodes)
    assert np.array_equal(frozen.rows, _sampler(tiny_store).rows)
    batch = EpisodeDataset(tiny_store, frozen, episodes=7, tasks=4, start=5)[1]
    drawn = EpisodeDataset(tiny_store, _sampler(tiny_store), episodes=7, tasks=4, start=5)[1]
    assert len(batch.query) == 3
    assert batch.support.equal(drawn.support)
    assert batch.query.equal(drawn.query)


def test_it_travels_to_another_process(frozen: FrozenEpisodes) -> None:
    again = pickle.loads(pickle.dumps(frozen))
    assert np.array_equal(again[29].query_rows, frozen[29].query_rows)


def test_an_episode_that_is_changed_by_its_user_changes_nothing(frozen: FrozenEpisodes) -> None:
    before = frozen[3].support_rows.tolist()
    for array in vars(frozen[3]).values():
        array[:] = 0
    assert frozen[3].support_rows.tolist() == before


@pytest.mark.parametrize("index", [-1, 30])
def test_numbers_of_no_episode_are_refused(frozen: FrozenEpisodes, index: int) -> None:
    with pytest.raises(EpisodeError, match=f"episode {index} is out of range: the frozen set has 30"):
        frozen[index]


def _hashed(store: ImageStore, episodes: list[Episode]) -> str:
    """The fingerprint from its description, slowly."""
    first = {name: store.labels.tolist().index(number) for number, name in enumerate(store.classes)}
    rows = []
    for number, episode in enumerate(episodes):
        for label, class_ in enumerate(episode.classes):
            name = store.classes[class_]
            supports = [(0, row) for row in episode.support_rows[episode.support_labels == label]]
            queries = [(1, row) for row in episode.query_rows[episode.query_labels == label]]
            rows += [(number, query, label, name, int(row) - first[name]) for query, row in supports + queries]
    names = sorted({row[3] for row in rows})
    text = "".join(f"{line}\n" for line in ["fewshot-nsl episodes 1", store.fingerprint, "val", *names])
    numbers = [value for row in rows for value in (*row[:3], names.index(row[3]), row[4])]
    return hashlib.sha256(text.encode() + b"".join(value.to_bytes(4, "little") for value in numbers)).hexdigest()


def test_the_fingerprint_is_that_of_the_documented_bytes(tiny_store: ImageStore, frozen: FrozenEpisodes) -> None:
    assert frozen.fingerprint == _hashed(tiny_store, list(frozen))


def test_other_episodes_have_another_fingerprint(tiny_store: ImageStore, tmp_path: Path, frozen: FrozenEpisodes) -> None:
    labels = tiny_store.split_labels("val")
    others = [
        freeze(tiny_store, sampler, tmp_path / f"{i}.parquet", split="val", episodes=episodes)
        for i, (sampler, episodes) in enumerate(
            [
                (_sampler(tiny_store), 29),
                (_sampler(tiny_store, 1), 30),
                (_sampler(tiny_store, 2, 5), 30),
                (EpisodeSampler(labels, 3, 2, 4, seed=8), 30),
                (EpisodeSampler(labels, 2, 2, 4, seed=7), 30),
            ]
        )
    ]
    assert len({frozen.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_fewer_shots_and_queries_are_the_first_of_more(tiny_store: ImageStore, tmp_path: Path) -> None:
    few, shots, queries = (
        freeze(tiny_store, _sampler(tiny_store, *sizes), tmp_path / f"{sizes}.parquet", split="val", episodes=10)
        for sizes in ((1, 3), (5, 3), (1, 8))
    )
    for less, more in zip(few, shots, strict=True):
        assert np.array_equal(less.support_rows, more.support_rows.reshape(3, 5)[:, 0])
    for less, more in zip(few, queries, strict=True):
        assert np.array_equal(less.query_rows.reshape(3, 3), more.query_rows.reshape(3, 8)[:, :3])
