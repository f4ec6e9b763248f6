import multiprocessing
import pickle
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import Episode, EpisodeBatch, EpisodeDataset, EpisodeSampler


@pytest.fixture
def sampler(tiny_store: ImageStore) -> EpisodeSampler:
    return EpisodeSampler(tiny_store.split_labels("val"), n_way=3, n_shot=2, n_query=4, seed=3)


@pytest.fixture
def dataset(tiny_store: ImageStore, sampler: EpisodeSampler) -> EpisodeDataset:
    return EpisodeDataset(tiny_store, sampler, episodes=7, tasks=2)


def _same(a: EpisodeBatch, b: EpisodeBatch) -> bool:
    return all(torch.equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


def test_shapes_and_types(dataset: EpisodeDataset) -> None:
    batch = dataset[0]
    assert {field.name: (tuple(getattr(batch, field.name).shape), getattr(batch, field.name).dtype) for field in fields(batch)} == {
        "support": ((2, 6, 3, 16, 16), torch.uint8),
        "support_labels": ((2, 6), torch.int64),
        "query": ((2, 12, 3, 16, 16), torch.uint8),
        "query_labels": ((2, 12), torch.int64),
        "support_rows": ((2, 6), torch.int64),
        "query_rows": ((2, 12), torch.int64),
        "classes": ((2, 3), torch.int64),
    }


def test_images_are_those_of_the_rows(tiny_store: ImageStore, dataset: EpisodeDataset) -> None:
    batch = dataset[1]
    for images, rows in ((batch.support, batch.support_rows), (batch.query, batch.query_rows)):
        assert np.array_equal(images.movedim(2, -1).numpy(), tiny_store.images[rows.numpy()])


def test_labels_are_those_of_the_store(tiny_store: ImageStore, dataset: EpisodeDataset) -> None:
    batch = dataset[1]
    for labels, rows in ((batch.support_labels, batch.support_rows), (batch.query_labels, batch.query_rows)):
        assert np.array_equal(batch.classes.gather(1, labels).numpy(), tiny_store.labels[rows.numpy()])


def test_a_batch_holds_the_episodes_of_its_numbers(tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    dataset = EpisodeDataset(tiny_store, sampler, episodes=7, tasks=3, start=100)
    assert len(dataset) == 3
    rows = torch.cat([dataset[i].support_rows for i in range(3)])
    assert np.array_equal(rows.numpy(), np.stack([sampler[100 + i].support_rows for i in range(7)]))
    assert len(dataset[2].support) == 1


@pytest.mark.parametrize("index", [-1, 4])
def test_there_is_no_batch_outside(dataset: EpisodeDataset, index: int) -> None:
    with pytest.raises(IndexError, match=f"batch {index} of 4"):
        dataset[index]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # more than some machines have processors
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_worker_processes_change_nothing(dataset: EpisodeDataset, workers: int) -> None:
    batches = list(DataLoader(dataset, batch_size=None, num_workers=workers))
    assert len(batches) == 4
    assert all(_same(batch, dataset[i]) for i, batch in enumerate(batches))


def test_workers_that_start_afresh_open_the_store_again(dataset: EpisodeDataset) -> None:
    context = multiprocessing.get_context("spawn")
    batches = list(DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context=context))
    assert all(_same(batch, dataset[i]) for i, batch in enumerate(batches))


def test_an_uneven_episode_is_a_batch_too(tiny_store: ImageStore) -> None:
    sampler = EpisodeSampler(tiny_store.split_labels("val"), 3, [1, 3, 2], 4, seed=3)
    batch = EpisodeDataset(tiny_store, sampler, 2, 2)[0]
    assert batch.support.shape == (2, 6, 3, 16, 16)
    assert batch.support_labels.tolist() == [[0, 1, 1, 1, 2, 2]] * 2


def test_supports_lie_together_in_memory_and_so_do_queries(dataset: EpisodeDataset) -> None:
    batch = dataset[0]
    for images in (batch.support, batch.query):
        flat = images.flatten(0, 1)
        assert flat.data_ptr() == images.data_ptr()
        assert flat.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("episodes", "tasks"), [(7, 2), (150, 7), (150, 100), (130, 1), (64, 64), (0, 3)])
def test_all_that_is_drawn_in_order_is_drawn_one_by_one_too(
    tiny_store: ImageStore, sampler: EpisodeSampler, episodes: int, tasks: int
) -> None:
    dataset = EpisodeDataset(tiny_store, sampler, episodes, tasks, start=9)
    batches = list(dataset.draw_all())
    assert len(batches) == len(dataset)
    for i, batch in enumerate(batches):
        alone = dataset.draw(i)
        assert len(batch) == len(alone)
        for a, b in zip(batch, alone, strict=True):
            assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_episodes_of_ones_own_are_taken(tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    class Own:
        rows = sampler.rows

        def __getitem__(self, index: int) -> Episode:
            return sampler[index]

        def draw(self, indices: Sequence[int]) -> list[Episode]:
            return [self[index] for index in indices]

    plain = EpisodeDataset(tiny_store, Own(), episodes=7, tasks=2, start=5)
    several = EpisodeDataset(tiny_store, sampler, episodes=7, tasks=2, start=5)
    assert all(_same(plain[i], several[i]) for i in range(4))


def test_unbalanced_episodes_make_batches_too(tiny_store: ImageStore) -> None:
    sampler = EpisodeSampler(tiny_store.split_labels("val"), 3, 2, 4, seed=3, balanced=False)
    batch = EpisodeDataset(tiny_store, sampler, 7, 7)[0]
    assert batch.query.shape == (7, 12, 3, 16, 16)
    assert np.array_equal(batch.classes.gather(1, batch.query_labels).numpy(), tiny_store.labels[batch.query_rows.numpy()])


def test_pickled_it_carries_no_images(dataset: EpisodeDataset) -> None:
    assert len(pickle.dumps(dataset)) < 10_000
