"""The bridge to torchmeta: batches in the layout of its `BatchMetaDataLoader`, both ways, and two things that it loads from.

Its batch is `{"train": (inputs, targets), "test": (inputs, targets)}`, supports and queries: inputs `[tasks, n, c, h, w]`, targets
`[tasks, n]`.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch, EpisodeDataset, Episodes, ImageDataset
from fewshot_nsl.errors import EpisodeError
from fewshot_nsl.interop.foreign import Collated, checked_tasks

_ADVICE = "give the meta-dataset target_transform=Categorical(n_way)"


def to_torchmeta(batch: EpisodeBatch) -> dict[str, tuple[Tensor, Tensor]]:
    """The batch as `BatchMetaDataLoader` would give it, but for the images, which stay uint8 where `ToTensor` makes floats of 0 to 1."""
    return {"train": (batch.support, batch.support_labels), "test": (batch.query, batch.query_labels)}


def from_torchmeta(batch: Mapping[str, Collated], *, white: int = 255) -> EpisodeBatch:
    """A batch of `BatchMetaDataLoader`, with the keys "train" and "test" or "support" and "query".

    It does not know which images of which classes it holds: `support_rows`, `query_rows` and `classes` are -1.

    Args:
        batch: as the loader gives it.
        white: the value of a white pixel in images that are not uint8; 1 after torchvision's `ToTensor`.

    Raises:
        DataError: images that are not whole numbers 0 to 255, as after `Normalize`.
        EpisodeError: other keys, or targets other than 0 ... way-1.
    """
    keys = next((keys for keys in (("train", "test"), ("support", "query")) if all(key in batch for key in keys)), None)
    if keys is None:
        raise EpisodeError(
            f"a batch with {', '.join(map(str, batch)) or 'nothing'}: expected 'train' and 'test', or 'support' and 'query'; use "
            "ClassSplitter(num_train_per_class=n_shot, num_test_per_class=n_query)"
        )
    (support, support_labels), (query, query_labels) = (checked_tasks(batch[key], white, _ADVICE) for key in keys)
    ways = [int(labels.max()) + 1 for labels in (support_labels, query_labels)]
    if ways[0] != ways[1]:
        raise EpisodeError(f"supports of {ways[0]} classes and queries of {ways[1]}: expected the same classes in both; {_ADVICE}")
    return EpisodeBatch(
        support=support,
        support_labels=support_labels,
        query=query,
        query_labels=query_labels,
        support_rows=torch.full_like(support_labels, -1),
        query_rows=torch.full_like(query_labels, -1),
        classes=support_labels.new_full((len(support_labels), ways[0]), -1),
    )


class TorchmetaTasks(Dataset[OrderedDict[str, TensorDataset]]):
    """Our episodes, always the same, for their loader: `BatchMetaDataLoader(TorchmetaTasks(...), batch_size=4, shuffle=False)`.

    Item i is episode `start + i`, an ordered dictionary of two datasets, "train" and "test"; images are uint8.

    Args:
        store: where the images are.
        sampler: an `EpisodeSampler` made from the labels of `store`, or frozen episodes of it.
        episodes: how many in all.
        start: number of the first.
    """

    def __init__(self, store: ImageStore, sampler: Episodes, episodes: int, start: int = 0) -> None:
        self.dataset = EpisodeDataset(store, sampler, episodes, start=start)

    def __len__(self) -> int:
        """Episodes."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> OrderedDict[str, TensorDataset]:
        """Episode `index`, from 0."""
        batch = to_torchmeta(self.dataset[index])
        return OrderedDict((key, TensorDataset(images[0], labels[0])) for key, (images, labels) in batch.items())


class TorchmetaClasses:
    """A split of a store as a `ClassDataset`, for `CombinationMetaDataset(TorchmetaClasses(store, "train"), n_way, ...)`.

    torchmeta then draws its own tasks, by its own random numbers. Item i is the dataset of class i's images, uint8. There are no class
    augmentations: a store has its turned classes, if any, as classes.

    Args:
        store: where the images are.
        split: "train", "val" or "test".

    Raises:
        DataError: the store has no such split.
    """

    def __init__(self, store: ImageStore, split: str) -> None:
        self.images = ImageDataset(store, split)
        self.meta_split = split
        self.meta_train, self.meta_val, self.meta_test = split == "train", split == "val", split == "test"
        self.class_augmentations: list[Callable[[object], object]] = []

    @property
    def num_classes(self) -> int:
        """Classes of the split."""
        return len(self.images.classes)

    def __len__(self) -> int:
        """Classes of the split: torchmeta counts augmented ones too, of which there are none."""
        return self.num_classes

    def __getitem__(self, index: int) -> "TorchmetaClass":
        """The images of class `index`, 0 to `num_classes` - 1."""
        if not 0 <= index < len(self):
            raise IndexError(f"class {index} of {len(self)}")
        return TorchmetaClass(self.images, index)


class TorchmetaClass(Dataset[tuple[UInt8[Tensor, "c h w"], object]]):
    """The images of one class with torchmeta's target: `(name, None)`, the second for "not augmented", until a transform is appended."""

    def __init__(self, images: ImageDataset, index: int) -> None:
        self.images, self.index = images, index
        (self._places,) = (images.labels == index).nonzero()
        self._transforms: list[Callable[[object], object]] = []

    def target_transform_append(self, transform: Callable[[object], object] | None) -> None:
        """Pass targets through `transform` too, after those appended before."""
        if transform is not None:
            self._transforms.append(transform)

    def __len__(self) -> int:
        """Images."""
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "c h w"], object]:
        """Image `index` and its target."""
        image, _ = self.images[int(self._places[index])]
        target: object = (self.images.classes[self.index], None)
        for transform in self._transforms:
            target = transform(target)
        return image, target

    def __hash__(self) -> int:
        """Of the class's number: `ClassSplitter` seeds its choice of supports with it."""
        return hash(self.index)
