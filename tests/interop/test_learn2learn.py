"""The tasks here have the form that learn2learn's `Taskset` gives; `test_peers.py` uses learn2learn itself."""

import random
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch, EpisodeDataset, EpisodeSampler, ImageDataset
from fewshot_nsl.errors import EpisodeError
from fewshot_nsl.interop import from_learn2learn, labels_to_indices, to_learn2learn


def _task(images: ImageDataset, n_way: int, k: int, seed: int = 0) -> list[Tensor]:
    """As NWays, KShots, LoadData and RemapLabels make it: `k` images of each class, all in a random order."""
    draw = random.Random(seed)
    index = labels_to_indices(images)
    classes = draw.sample(sorted(index), n_way)
    places = [place for label in classes for place in draw.sample(index[label], k)]
    draw.shuffle(places)
    task: list[Tensor] = default_collate([[image, classes.index(label)] for image, label in map(images.__getitem__, places)])
    return task


@pytest.fixture
def images(tiny_store: ImageStore) -> ImageDataset:
    return ImageDataset(tiny_store, "train")


@pytest.fixture
def batch(tiny_store: ImageStore) -> EpisodeBatch:
    sampler = EpisodeSampler(tiny_store.split_labels("train"), n_way=3, n_shot=2, n_query=4, seed=1)
    return EpisodeDataset(tiny_store, sampler, episodes=3, tasks=3)[0]


def _pixels(images: Tensor, labels: Tensor) -> Counter[tuple[int, bytes]]:
    """Which image has which label, whatever the order."""
    return Counter((int(label), image.contiguous().numpy().tobytes()) for image, label in zip(images, labels, strict=True))


def test_the_index_names_every_image_under_its_label(images: ImageDataset) -> None:
    index = labels_to_indices(images)
    assert sorted(place for places in index.values() for place in places) == list(range(len(images)))
    assert all(images[place][1] == label for label, places in index.items() for place in places)


def test_the_index_is_of_plain_lists_and_numbers_and_reads_no_image(images: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ImageDataset, "__getitems__")
    index = labels_to_indices(images)  # learn2learn hands these to random.sample, which takes no array
    assert all(type(label) is int and type(places) is list and type(places[0]) is int for label, places in index.items())


def test_a_task_becomes_a_batch_of_the_same_images_under_the_same_labels(images: ImageDataset) -> None:
    data, labels = _task(images, n_way=3, k=6)
    batch = from_learn2learn([(data, labels)], n_shot=2)
    assert batch.support_labels.tolist() == [[0, 0, 1, 1, 2, 2]]
    assert batch.query_labels[0].bincount().tolist() == [4, 4, 4]
    supports, queries = _pixels(batch.support[0], batch.support_labels[0]), _pixels(batch.query[0], batch.query_labels[0])
    assert supports + queries == _pixels(data, labels)


def test_the_first_images_of_each_label_are_its_supports(images: ImageDataset) -> None:
    data, labels = _task(images, n_way=3, k=6)
    batch = from_learn2learn([(data, labels)], n_shot=2)
    expected = torch.stack([data[(labels == label).nonzero()[place, 0]] for label in range(3) for place in range(2)])
    assert torch.equal(batch.support[0], expected)


def test_several_tasks_make_one_batch(images: ImageDataset) -> None:
    tasks = [_task(images, n_way=3, k=6, seed=seed) for seed in range(3)]
    batch = from_learn2learn(tasks, n_shot=1)
    assert batch.support.shape == (3, 3, 3, 16, 16)
    for i, task in enumerate(tasks):
        alone = from_learn2learn([task], n_shot=1)
        assert torch.equal(batch.query[i], alone.query[0])
        assert torch.equal(batch.query_labels[i], alone.query_labels[0])


def test_what_a_task_does_not_know_is_minus_one(images: ImageDataset) -> None:
    batch = from_learn2learn([_task(images, n_way=3, k=6)], n_shot=2)
    assert batch.support_rows.tolist() == [[-1] * 6]
    assert batch.query_rows.tolist() == [[-1] * 12]
    assert batch.classes.tolist() == [[-1] * 3]


def test_there_and_back_gives_the_batch(batch: EpisodeBatch) -> None:
    # The sampler's episodes are class by class already, so that even the order is kept.
    back = from_learn2learn(to_learn2learn(batch), n_shot=2)
    for name in ("support", "support_labels", "query", "query_labels"):
        assert torch.equal(getattr(back, name), getattr(batch, name)), name


def test_a_task_is_class_by_class_with_supports_first(batch: EpisodeBatch) -> None:
    tasks = to_learn2learn(batch)
    assert len(tasks) == 3
    for i, (data, labels) in enumerate(tasks):
        assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
        assert torch.equal(data.unflatten(0, (3, 6))[:, :2].flatten(0, 1), batch.support[i])
        assert torch.equal(data.unflatten(0, (3, 6))[:, 2:].flatten(0, 1), batch.query[i])


def test_an_uneven_episode_becomes_a_task_too(tiny_store: ImageStore) -> None:
    sampler = EpisodeSampler(tiny_store.split_labels("train"), 3, [1, 3, 2], 4, seed=1)
    ((_, labels),) = to_learn2learn(EpisodeDataset(tiny_store, sampler, episodes=1)[0])
    assert labels.bincount().tolist() == [5, 7, 6]


def test_no_task_is_refused() -> None:
    with pytest.raises(EpisodeError, match=r"no task .* taskset.sample\(\)"):
        from_learn2learn([], n_shot=1)


def test_no_shot_is_refused(images: ImageDataset) -> None:
    with pytest.raises(EpisodeError, match="n_shot is 0"):
        from_learn2learn([_task(images, n_way=3, k=6)], n_shot=0)


def test_a_class_without_a_query_is_refused(images: ImageDataset) -> None:
    data, labels = _task(images, n_way=3, k=6)
    with pytest.raises(EpisodeError, match=r"class 0 of a task has 6 images, expected more than the 6 shots; ask KShots"):
        from_learn2learn([(data, labels)], n_shot=6)
    last = (labels == 2).nonzero()[-1, 0]
    kept = torch.arange(len(labels)) != last
    with pytest.raises(EpisodeError, match=r"class 2 of a task has 5 images"):
        from_learn2learn([(data[kept], labels[kept])], n_shot=5)


def test_tasks_of_several_sizes_are_refused(images: ImageDataset) -> None:
    tasks = [_task(images, n_way=3, k=k) for k in (6, 7)]
    with pytest.raises(EpisodeError, match=r"tasks of \[18, 3, 16, 16\] and \[21, 3, 16, 16\] images make no batch"):
        from_learn2learn(tasks, n_shot=2)
