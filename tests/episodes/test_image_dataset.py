import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import ImageDataset
from fewshot_nsl.errors import DataError


@pytest.fixture
def dataset(tiny_store: ImageStore) -> ImageDataset:
    return ImageDataset(tiny_store, "val")


def test_items_are_the_images_of_the_split_with_labels_from_zero(tiny_store: ImageStore, dataset: ImageDataset) -> None:
    assert len(dataset) == 60
    assert dataset.classes == ("bat", "cat", "dog")
    first = tiny_store.splits["val"].start
    for i, (image, label) in enumerate(iter(dataset)):
        assert (image.shape, image.dtype, type(label)) == ((3, 16, 16), torch.uint8, int)
        assert np.array_equal(image.movedim(0, -1).numpy(), tiny_store.images[first + i])
        assert dataset.classes[label] == tiny_store.classes[tiny_store.labels[first + i]]


def test_labels_are_those_of_the_items(dataset: ImageDataset) -> None:
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [label for _, label in iter(dataset)]


def test_a_batch_is_its_items(dataset: ImageDataset) -> None:
    indices = [59, 3, 20, 3]
    for (image, label), i in zip(dataset.__getitems__(indices), indices, strict=True):
        assert torch.equal(image, dataset[i][0])
        assert label == dataset[i][1]


def test_numbers_outside_are_refused_and_negative_ones_count_from_the_end(dataset: ImageDataset) -> None:
    assert torch.equal(dataset[-1][0], dataset[59][0])
    assert dataset[-60][1] == 0
    for index in (60, -61):
        with pytest.raises(IndexError):
            dataset[index]


def test_a_split_that_is_not_there_is_refused(tiny_store: ImageStore) -> None:
    with pytest.raises(DataError, match="tiny has no split 'training'"):
        ImageDataset(tiny_store, "training")


def test_a_data_loader_gives_whole_batches(dataset: ImageDataset) -> None:
    batches = list(DataLoader(dataset, batch_size=25))
    assert [tuple(images.shape) for images, _ in batches] == [(25, 3, 16, 16), (25, 3, 16, 16), (10, 3, 16, 16)]
    assert torch.equal(torch.cat([images for images, _ in batches]), torch.stack([image for image, _ in iter(dataset)]))
    assert torch.cat([labels for _, labels in batches]).tolist() == dataset.labels.tolist()


def test_workers_that_start_afresh_give_the_same(dataset: ImageDataset) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = DataLoader(dataset, 30), DataLoader(dataset, 30, num_workers=1, multiprocessing_context=context)
    for (images, labels), (others, their) in zip(here, there, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, their)


def test_pickled_it_carries_no_images(dataset: ImageDataset) -> None:
    assert len(pickle.dumps(dataset)) < 3000
