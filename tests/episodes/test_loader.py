import threading
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch, EpisodeDataset, EpisodeLoader, EpisodeSampler
from fewshot_nsl.episodes.loader import resident_images
from fewshot_nsl.episodes.pixels import Pixels

CPU = torch.device("cpu")


@pytest.fixture
def sampler(tiny_store: ImageStore) -> EpisodeSampler:
    return EpisodeSampler(tiny_store.split_labels("val"), n_way=3, n_shot=2, n_query=4, seed=3)


@pytest.fixture
def dataset(tiny_store: ImageStore, sampler: EpisodeSampler) -> EpisodeDataset:
    return EpisodeDataset(tiny_store, sampler, episodes=7, tasks=2)


def _same(a: EpisodeBatch, b: EpisodeBatch) -> bool:
    return all(torch.equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


@pytest.mark.parametrize("ahead", [None, 1, 3])
def test_the_loader_gives_the_batches_of_the_dataset(dataset: EpisodeDataset, ahead: int | None) -> None:
    loader = EpisodeLoader(dataset, CPU, ahead=ahead)
    batches = list(loader)
    assert len(loader) == len(batches) == 4
    assert all(_same(batch, dataset[i]) for i, batch in enumerate(batches))
    assert _same(loader[2], dataset[2])


def test_rows_of_the_store_are_read_as_they_are_asked_for(dataset: EpisodeDataset, tiny_store: ImageStore) -> None:
    rows = torch.tensor([7, 3, 150, 3])
    images = EpisodeLoader(dataset, CPU).read(rows)
    assert torch.equal(images, torch.from_numpy(tiny_store.images[rows.numpy()]).movedim(-1, 1))


def test_it_can_be_iterated_again_and_twice_at_once(dataset: EpisodeDataset) -> None:
    loader = EpisodeLoader(dataset, CPU, ahead=2)
    for first, second in zip(loader, loader, strict=True):
        assert _same(first, second)


def test_leaving_early_leaves_no_thread(dataset: EpisodeDataset) -> None:
    before = set(threading.enumerate())
    for _ in EpisodeLoader(dataset, CPU, ahead=1):
        break
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("ahead", [0, 1])
def test_what_goes_wrong_ahead_is_raised(tiny_store: ImageStore, ahead: int) -> None:
    labels = np.append(np.full(len(tiny_store.images), -1), np.zeros(20, dtype=np.int64))
    beyond = EpisodeSampler(labels, n_way=1, n_shot=2, n_query=4, seed=3)
    with pytest.raises(IndexError):
        list(EpisodeLoader(EpisodeDataset(tiny_store, beyond, 7, 2), CPU, ahead=ahead))


def test_batches_that_are_kept_stay_as_they_were(dataset: EpisodeDataset) -> None:
    batches = [(batch, batch.support.clone()) for batch in EpisodeLoader(dataset, CPU, ahead=1)]
    assert all(torch.equal(batch.support, support) for batch, support in batches)


def test_a_cpu_looks_ahead_only_where_asked(dataset: EpisodeDataset) -> None:
    assert EpisodeLoader(dataset, CPU).ahead == 0


def test_on_a_cpu_nothing_is_resident(tiny_store: ImageStore) -> None:
    assert resident_images(tiny_store, CPU) is None


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_gpu
def test_a_resident_store_gives_the_batches_of_the_dataset(tiny_store: ImageStore, dataset: EpisodeDataset) -> None:
    device = torch.device("cuda")
    resident = resident_images(tiny_store, device)
    assert resident is not None
    assert resident.is_cuda
    for i, batch in enumerate(EpisodeLoader(dataset, device)):
        assert batch.support.is_cuda
        assert batch.query_labels.is_cuda
        assert _same(batch.to(CPU), dataset[i])


@needs_gpu
def test_a_store_that_does_not_fit_is_gathered_from_the_map(tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    device = torch.device("cuda")
    free, _ = torch.cuda.mem_get_info(device)
    rows = int(free // tiny_store.images[0].nbytes)
    images, labels = np.broadcast_to(tiny_store.images[0], (rows, 16, 16, 3)), np.broadcast_to(tiny_store.labels[0], rows)
    huge = replace(tiny_store, images=images, labels=labels)
    assert resident_images(huge, device) is None
    loader = EpisodeLoader(EpisodeDataset(huge, sampler, 20, 2), device)
    assert loader.ahead == 1
    batches = list(loader)
    assert all(_same(batch.to(CPU), loader.dataset[i]) for i, batch in enumerate(batches))
    assert _same(loader[0].to(CPU), loader.dataset[0])


@needs_gpu
def test_what_is_gathered_for_a_gpu_is_pinned(dataset: EpisodeDataset) -> None:
    assert Pixels(dataset.store, pinned=True).read(torch.arange(3)).is_pinned()
