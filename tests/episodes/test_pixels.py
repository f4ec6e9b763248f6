import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes.pixels import Pixels


def test_rows_come_in_the_order_asked_and_may_repeat(tiny_store: ImageStore) -> None:
    rows = torch.tensor([7, 199, 0, 7])
    images = Pixels(tiny_store).read(rows)
    assert (images.shape, images.dtype) == ((4, 3, 16, 16), torch.uint8)
    assert np.array_equal(images.movedim(1, -1).numpy(), tiny_store.images[rows.numpy()])


def test_channels_are_last_in_memory(tiny_store: ImageStore) -> None:
    assert Pixels(tiny_store).read(torch.arange(5)).is_contiguous(memory_format=torch.channels_last)


def test_what_is_gathered_is_a_copy(tiny_store: ImageStore) -> None:
    pixels = Pixels(tiny_store)
    rows = torch.tensor([3])
    before = tiny_store.images[3].copy()
    pixels.read(rows).zero_()
    assert np.array_equal(tiny_store.images[3], before)
    assert pixels.read(rows).any()


def test_no_copy_of_the_store_is_held(tiny_store: ImageStore) -> None:
    images = tiny_store.images.copy()
    pixels = Pixels(replace(tiny_store, images=images))
    images[5] = 77
    assert (pixels.read(torch.tensor([5])) == 77).all()


def test_a_row_that_is_not_there_is_refused(tiny_store: ImageStore) -> None:
    with pytest.raises(IndexError):
        Pixels(tiny_store).read(torch.tensor([len(tiny_store.images)]))


def test_pickled_it_is_small_and_opens_the_store_again(tiny_store: ImageStore) -> None:
    data = pickle.dumps(Pixels(tiny_store))
    assert len(data) < 1000
    rows = torch.arange(10)
    assert torch.equal(pickle.loads(data).read(rows), Pixels(tiny_store).read(rows))
