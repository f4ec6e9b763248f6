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
