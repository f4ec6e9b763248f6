"""The loader here has the form of torchmeta's `BatchMetaDataLoader`; `test_peers.py` uses torchmeta itself."""

import pickle
from collections import OrderedDict
from dataclasses import fields

import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, default_collate

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch, EpisodeDataset, EpisodeSampler
from fewshot_nsl.errors import DataError, EpisodeError
from fewshot_nsl.interop import TorchmetaClasses, TorchmetaTasks, from_torchmeta, to_torchmeta

Batch = dict[str, list[Tensor]]


@pytest.fixture
def sampler(tiny_store: ImageStore) -> EpisodeSampler:
    return EpisodeSampler(tiny_store.split_labels("train"), n_way=3, n_shot=2, n_query=4, seed=1)


@pytest.fixture
def batch(tiny_store: ImageStore, sampler: EpisodeSampler) -> EpisodeBatch:
    return EpisodeDataset(tiny_store, sampler, episodes=3, tasks=3)[0]


def _collate(tasks: list[OrderedDict[str, Dataset[object]]]) -> Batch:
    """As `BatchMetaCollate`: the items of each set are collated, then the tasks."""
    each = [OrderedDict((key, default_collate([part[i] for i in range(len(part))])) for key, part in task.items()) for task in tasks]  # type: ignore[arg-type]
    collated: Batch = default_collate(each)
    return collated


def test_a_batch_has_their_layout(batch: EpisodeBatch) -> None:
    layout = to_torchmeta(batch)
    assert list(layout) == ["train", "test"]
    assert [tuple(part.shape) for part in layout["train"]] == [(3, 6, 3, 16, 16), (3, 6)]
    inputs, targets = layout["test"]
    assert torch.equal(inputs, batch.query)
    assert torch.equal(targets, batch.query_labels)


@pytest.mark.parametrize("keys", [("train", "test"), ("support", "query")])
def test_their_batch_becomes_ours(batch: EpisodeBatch, keys: tuple[str, str]) -> None:
    support, query = to_torchmeta(batch).values()
    back = from_torchmeta({keys[1]: query, keys[0]: support})
    for name in ("support", "support_labels", "query", "query_labels"):
        assert torch.equal(getattr(back, name), getattr(batch, name)), name
    assert back.classes.tolist() == [[-1] * 3] * 3
    assert set(back.support_rows.flatten().tolist()) == set(back.query_rows.flatten().tolist()) == {-1}
    assert {field.name: getattr(back, field.name).shape for field in fields(back)} == {
        field.name: getattr(batch, field.name).shape for field in fields(batch)
    }


def test_a_batch_that_was_not_split_is_refused(batch: EpisodeBatch) -> None:
    with pytest.raises(EpisodeError, match=r"a batch with train: expected 'train' and 'test'.* use ClassSplitter"):
        from_torchmeta({"train": to_torchmeta(batch)["train"]})


def test_queries_of_fewer_classes_than_supports_are_refused(batch: EpisodeBatch) -> None:
    support, (images, _) = to_torchmeta(batch).values()
    with pytest.raises(EpisodeError, match="supports of 3 classes and queries of 2"):
        from_torchmeta({"train": support, "test": (images, torch.tensor([[0, 1] * 6] * 3))})


def test_their_loader_gives_our_episodes(tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    loader = DataLoader(TorchmetaTasks(tiny_store, sampler, episodes=5, start=7), batch_size=2, collate_fn=_collate)
    ours = EpisodeDataset(tiny_store, sampler, episodes=5, tasks=2, start=7)
    theirs = [from_torchmeta(batch) for batch in loader]
    assert len(theirs) == len(ours) == 3
    for i, batch in enumerate(theirs):
        for name in ("support", "support_labels", "query", "query_labels"):
            assert torch.equal(getattr(batch, name), getattr(ours[i], name)), name


def test_there_is_no_episode_outside(tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    tasks = TorchmetaTasks(tiny_store, sampler, episodes=5)
    assert len(tasks) == 5
    with pytest.raises(IndexError):
        tasks[5]


def test_classes_are_those_of_the_split_with_their_images(tiny_store: ImageStore) -> None:
    classes = TorchmetaClasses(tiny_store, "val")
    assert (classes.meta_train, classes.meta_val, classes.meta_test, classes.meta_split) == (False, True, False, "val")
    assert len(classes) == classes.num_classes == 3
    images = torch.from_numpy(tiny_store.images[tiny_store.splits["val"].start : tiny_store.splits["val"].stop]).movedim(-1, 1)
    for i, name in enumerate(("bat", "cat", "dog")):
        items = [classes[i][place] for place in range(len(classes[i]))]
        assert torch.equal(torch.stack([image for image, _ in items]), images[20 * i : 20 * i + 20])
        assert {target for _, target in items} == {(name, None)}


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_class_outside(tiny_store: ImageStore, index: int) -> None:
    with pytest.raises(IndexError, match=f"class {index} of 3"):
        TorchmetaClasses(tiny_store, "val")[index]


def test_an_unknown_split_is_refused(tiny_store: ImageStore) -> None:
    with pytest.raises(DataError, match="tiny has no split 'meta'"):
        TorchmetaClasses(tiny_store, "meta")


def test_a_class_ends(tiny_store: ImageStore) -> None:
    with pytest.raises(IndexError):
        TorchmetaClasses(tiny_store, "train")[0][20]


def test_transforms_of_the_target_run_in_the_order_they_were_appended(tiny_store: ImageStore) -> None:
    one, another = TorchmetaClasses(tiny_store, "train")[1], TorchmetaClasses(tiny_store, "train")[1]
    one.target_transform_append(lambda target: [target])
    one.target_transform_append(None)
    one.target_transform_append(lambda target: (target, "second"))
    assert one[0][1] == ([("elm", None)], "second")
    assert another[0][1] == ("elm", None)


def test_classes_concatenate_as_their_tasks_do(tiny_store: ImageStore) -> None:
    classes = TorchmetaClasses(tiny_store, "train")
    task: ConcatDataset[tuple[Tensor, object]] = ConcatDataset([classes[2], classes[0]])
    assert len(task) == 40
    assert [task[place][1] for place in (0, 19, 20, 39)] == [("fig", None), ("fig", None), ("ash", None), ("ash", None)]


def test_a_class_hashes_by_its_number_so_that_their_splitter_chooses_the_same_again(tiny_store: ImageStore) -> None:
    classes = TorchmetaClasses(tiny_store, "train")
    assert hash(classes[2]) == hash(classes[2]) == hash(2)
    assert [classes[i].index for i in range(4)] == [0, 1, 2, 3]


def test_workers_can_be_sent_the_classes(tiny_store: ImageStore) -> None:
    sent = pickle.loads(pickle.dumps(TorchmetaClasses(tiny_store, "train")))
    assert torch.equal(sent[3][4][0], TorchmetaClasses(tiny_store, "train")[3][4][0])
