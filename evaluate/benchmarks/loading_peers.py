"""Run by `loading.py` in the environment that `peers.py` builds: learn2learn and torchmeta, fed the training images of a store from memory.

Prints a JSON list of the names of what it can run; then for each name that is written to it, loads a round of episodes and prints the name.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from peers_imports import prepare_imports
from torch import Tensor
from torch.utils.data import Dataset

from fewshot_nsl.data import open_store
from fewshot_nsl.devices import keep_freed_memory
from fewshot_nsl.workspace import open_workspace


class InMemory(Dataset[tuple[Tensor, int]]):
    """Images in one tensor, labels in a list: nothing is decoded, converted or copied for an item."""

    def __init__(self, images: Tensor, labels: list[int]) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.labels[index]


def learn2learn_tasks(images: Tensor, by_class: dict[int, list[int]], n_way: int, k: int, fused: bool) -> Iterator[object]:
    """Endless tasks: by the transforms of its own benchmarks, or with the first two of them fused, which it calls efficient."""
    import learn2learn
    from learn2learn.data.transforms import ConsecutiveLabels, FusedNWaysKShots, KShots, LoadData, NWays, RemapLabels

    labels = [label for label, places in sorted(by_class.items()) for _ in places]
    dataset = learn2learn.data.MetaDataset(InMemory(images, labels), labels_to_indices=by_class)
    drawn = [FusedNWaysKShots(dataset, n=n_way, k=k)] if fused else [NWays(dataset, n=n_way), KShots(dataset, k=k)]
    rest = [LoadData(dataset), RemapLabels(dataset), *([] if fused else [ConsecutiveLabels(dataset)])]
    return iter(learn2learn.data.TaskDataset(dataset, [*drawn, *rest]))


def torchmeta_batches(images: Tensor, by_class: dict[int, list[int]], sizes: tuple[int, int, int], tasks: int) -> Iterator[object]:
    """Batches of tasks, more than will be asked for; no transform, and no worker processes: on two cores they make it slower."""
    from torchmeta.transforms import Categorical, ClassSplitter
    from torchmeta.utils.data import BatchMetaDataLoader, ClassDataset, CombinationMetaDataset
    from torchmeta.utils.data import Dataset as TorchmetaDataset

    class OneClass(TorchmetaDataset):
        def __init__(self, index: int) -> None:
            super().__init__(index)
            places = by_class[index]
            self.images = images[places[0] : places[-1] + 1]

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, place: int) -> tuple[Tensor, int]:
            return self.images[place], self.target_transform(self.index)

    class Classes(ClassDataset):
        num_classes = len(by_class)

        def __getitem__(self, index: int) -> OneClass:
            return OneClass(index)

    n_way, n_shot, n_query = sizes
    splitter = ClassSplitter(shuffle=True, num_train_per_class=n_shot, num_test_per_class=n_query)
    dataset = CombinationMetaDataset(Classes(meta_train=True), n_way, target_transform=Categorical(n_way), dataset_transform=splitter)
    return iter(BatchMetaDataLoader(dataset, batch_size=tasks))


def main() -> None:
    """Serve rounds until the end of the input."""
    keep_freed_memory()  # as ours has it
    prepare_imports()
    root = Path(sys.argv[1])
    n_way, n_shot, n_query, episodes, tasks = map(int, sys.argv[2:])
    store = open_store(open_workspace(root.parents[1]), root.name)
    rows = store.splits["train"]
    images = torch.from_numpy(np.ascontiguousarray(store.images[rows.start : rows.stop].transpose(0, 3, 1, 2)))
    labels = store.labels[rows.start : rows.stop]
    by_class = {int(label): np.flatnonzero(labels == label).tolist() for label in np.unique(labels)}
    works: dict[str, Callable[[], None]] = {}
    for name, given, fused in (
        ("learn2learn, fused transforms", images, True),
        ("learn2learn, its benchmarks' transforms", images, False),
        ("learn2learn, its benchmarks' transforms, float32 as its datasets are", images.float(), False),
    ):
        items = learn2learn_tasks(given, by_class, n_way, n_shot + n_query, fused)
        works[name] = partial(exhaust, items, episodes)
    batches = torchmeta_batches(images, by_class, (n_way, n_shot, n_query), tasks)
    works["torchmeta"] = partial(exhaust, batches, episodes // tasks)
    print(json.dumps(list(works)), flush=True)
    for line in sys.stdin:
        works[line.strip()]()
        print(line.strip(), flush=True)


def exhaust(items: Iterator[object], count: int) -> None:
    """The next `count` of them."""
    for _ in islice(items, count):
        pass


if __name__ == "__main__":
    main()
