import pytest
import torch

from fewshot_nsl.bench import MetaWork, made_up_batch


def test_sizes_are_by_default_the_standard_ones() -> None:
    work = MetaWork()
    assert (work.n_support, work.queries) == (25, 75)
    assert str(work) == "84x84, 4 tasks, 5 steps"


def test_one_is_one() -> None:
    assert str(MetaWork(image_size=32, tasks=1, steps=1)) == "32x32, 1 task, 1 step"


def test_episodes_have_the_sizes() -> None:
    work = MetaWork(image_size=16, tasks=2, n_way=3, n_shot=2, n_query=4, channels=1)
    batch = made_up_batch(work, torch.device("cpu"))
    assert batch.support.shape == (2, 6, 1, 16, 16)
    assert batch.query.shape == (2, 12, 1, 16, 16)
    assert batch.support_labels.tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    assert batch.query_labels.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]] * 2
    assert not torch.equal(batch.support[0], batch.support[1])


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_episodes_are_those_of_the_seed(seed: int, *, same: bool) -> None:
    work, device = MetaWork(image_size=16, tasks=1), torch.device("cpu")
    assert torch.equal(made_up_batch(work, device).query, made_up_batch(work, device, seed).query) is same
