from dataclasses import fields

import pytest
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeDataset, EpisodeSampler


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))]
)
def test_the_whole_batch_goes_to_a_device(tiny_store: ImageStore, device: str) -> None:
    batch = EpisodeDataset(tiny_store, EpisodeSampler(tiny_store.split_labels("val"), 2, 1, 1, seed=0), 1)[0]
    moved = batch.to(torch.device(device))
    for field in fields(batch):
        value = getattr(moved, field.name)
        assert value.device.type == device
        assert torch.equal(value.cpu(), getattr(batch, field.name))


@pytest.mark.parametrize(("tasks", "sizes"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_a_split_batch_has_the_same_tasks_in_order(tiny_store: ImageStore, tasks: int, sizes: list[int]) -> None:
    batch = EpisodeDataset(tiny_store, EpisodeSampler(tiny_store.split_labels("val"), 2, 1, 1, seed=0), 5, tasks=5)[0]
    parts = batch.split(tasks)
    assert [len(part.support) for part in parts] == sizes
    for field in fields(batch):
        assert torch.equal(torch.cat([getattr(part, field.name) for part in parts]), getattr(batch, field.name))
