"""Run by `test_peers.py` with the Python that `evaluate/benchmarks/peers.py` prints: the bridges with learn2learn and torchmeta themselves.

    PYTHONPATH=evaluate/benchmarks PYTHON tests/interop/with_peers.py WORKSPACE NAME

`NAME` is a dataset prepared in `WORKSPACE`, whose train split has three classes or more of six images or more.
"""

import sys
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from fewshot_nsl.data import ImageStore, open_store
from fewshot_nsl.episodes import EpisodeDataset, EpisodeSampler, ImageDataset
from fewshot_nsl.interop import (
    TorchmetaClasses,
    TorchmetaTasks,
    from_learn2learn,
    from_torchmeta,
    labels_to_indices,
    to_learn2learn,
    to_torchmeta,
)
from fewshot_nsl.workspace import open_workspace

WAY, SHOT, QUERY = 3, 2, 4


class Reads(ImageDataset):
    """Counts the images that were read."""

    count = 0

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        self.count += len(indices)
        return super().__getitems__(indices)


def class_of_each(store: ImageStore, images: Tensor) -> Tensor:
    """Of images `[..., c, h, w]`, by their pixels; an image that is not of the train split is an error."""
    train = store.splits["train"]
    known = {store.images[row].tobytes(): int(store.labels[row]) for row in train}
    flat = images.flatten(0, -4).movedim(1, -1).contiguous().numpy()
    return torch.tensor([known[image.tobytes()] for image in flat]).reshape(images.shape[:-3])


def check_labels(classes: Tensor, labels: Tensor) -> None:
    """One class a label and one label a class, in every task."""
    for each, task in zip(classes, labels, strict=True):
        pairs = set(zip(each.tolist(), task.tolist(), strict=True))
        assert len(pairs) == WAY, pairs
        assert {label for _, label in pairs} == set(range(WAY)), pairs


def check_learn2learn(store: ImageStore) -> None:
    """`MetaDataset` and `TaskDataset` fed by a store; their tasks taken; ours partitioned by its own function."""
    import learn2learn
    from learn2learn.data import transforms
    from learn2learn.data.utils import partition_task

    images = Reads(store, "train")
    dataset = learn2learn.data.MetaDataset(images, labels_to_indices=labels_to_indices(images))
    assert images.count == 0, f"wrapping read {images.count} images"
    assert len(dataset) == len(images)
    assert dataset.labels == list(range(len(images.classes)))
    assert [dataset.indices_to_labels[i] for i in range(len(dataset))] == images.labels.tolist()

    steps = [transforms.NWays(dataset, WAY), transforms.KShots(dataset, SHOT + QUERY), transforms.LoadData(dataset)]
    fused = [transforms.FusedNWaysKShots(dataset, n=WAY, k=SHOT + QUERY), transforms.LoadData(dataset)]
    for first in (steps, fused):
        tasks = learn2learn.data.TaskDataset(dataset, [*first, transforms.RemapLabels(dataset)], num_tasks=4)
        drawn = [tasks[i] for i in range(4)]
        data, labels = drawn[0]
        assert data.shape == (WAY * (SHOT + QUERY), *images[0][0].shape)
        assert data.dtype == torch.uint8
        batch = from_learn2learn(drawn, n_shot=SHOT)
        assert batch.support.shape[:2] == (4, WAY * SHOT)
        assert batch.query.shape[:2] == (4, WAY * QUERY)
        classes = class_of_each(store, torch.cat([batch.support, batch.query], dim=1))
        check_labels(classes, torch.cat([batch.support_labels, batch.query_labels], dim=1))

        (support, support_labels), (query, query_labels) = partition_task(data, labels, shots=SHOT)
        assert torch.equal(support, batch.support[0])
        assert torch.equal(support_labels, batch.support_labels[0])
        assert torch.equal(query, batch.query[0])
        assert torch.equal(query_labels, batch.query_labels[0])

    ours = EpisodeDataset(store, EpisodeSampler(store.split_labels("train"), WAY, SHOT, QUERY, seed=0), episodes=2, tasks=2)[0]
    for i, (data, labels) in enumerate(to_learn2learn(ours)):
        (support, support_labels), (query, query_labels) = partition_task(data, labels, shots=SHOT)
        assert torch.equal(support, ours.support[i])
        assert torch.equal(query, ours.query[i])
        assert torch.equal(support_labels, ours.support_labels[i])
        assert torch.equal(query_labels, ours.query_labels[i])


def check_torchmeta(store: ImageStore) -> None:
    """`BatchMetaDataLoader` fed by our episodes, and by our classes through their own sampling; their batches taken."""
    from torchmeta.transforms import Categorical, ClassSplitter  # type: ignore[import-not-found]
    from torchmeta.utils.data import BatchMetaDataLoader, CombinationMetaDataset  # type: ignore[import-not-found]

    sampler = EpisodeSampler(store.split_labels("train"), WAY, SHOT, QUERY, seed=0)
    ours = EpisodeDataset(store, sampler, episodes=5, tasks=2)
    for workers in (0, 1):
        loader = BatchMetaDataLoader(TorchmetaTasks(store, sampler, 5), batch_size=2, shuffle=False, num_workers=workers)
        batches = list(loader)
        assert len(batches) == len(ours)
        for i, batch in enumerate(batches):
            expected = to_torchmeta(ours[i])
            assert list(batch) == list(expected)
            for key, (inputs, targets) in expected.items():
                assert torch.equal(batch[key][0], inputs)
                assert torch.equal(batch[key][1], targets)

    splitter = ClassSplitter(shuffle=True, num_train_per_class=SHOT, num_test_per_class=QUERY)
    classes = TorchmetaClasses(store, "train")
    tasks = CombinationMetaDataset(classes, WAY, target_transform=Categorical(WAY), dataset_transform=splitter)
    for batch in islice(BatchMetaDataLoader(tasks, batch_size=2), 2):
        taken = from_torchmeta(batch)
        assert taken.support.shape[:2] == (2, WAY * SHOT)
        assert taken.query.shape[:2] == (2, WAY * QUERY)
        check_labels(
            class_of_each(store, torch.cat([taken.support, taken.query], dim=1)),
            torch.cat([taken.support_labels, taken.query_labels], dim=1),
        )
    plain = CombinationMetaDataset(classes, WAY)  # targets stay (name, augmentation)
    image, (name, augmentation) = plain[(2, 0, 1)][0]
    assert (name, augmentation) == (classes.images.classes[2], 0)
    assert np.array_equal(image.movedim(0, -1).numpy(), store.images[store.splits["train"].start + int((classes.images.labels < 2).sum())])


def main() -> None:
    """Check both; a failed check is a traceback."""
    from peers_imports import prepare_imports  # type: ignore[import-not-found]

    prepare_imports()
    folder, name = sys.argv[1:]
    store = open_store(open_workspace(folder), name)
    check_learn2learn(store)
    check_torchmeta(store)
    print("both libraries agree")


if __name__ == "__main__":
    main()
