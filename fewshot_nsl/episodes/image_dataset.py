"""The images of one split, one by one: what every torch program takes."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes.pixels import Pixels

Item = tuple[UInt8[Tensor, "c h w"], int]
"""An image, 0-255, and its label."""


class ImageDataset(Dataset[Item]):
    """Item i is image i of `split` and its label within the split, 0 ... classes - 1; for `DataLoader`, learn2learn and torchmeta.

    Images come in the store's order, class by class: a `DataLoader` is to shuffle. It asks for a whole batch at once, which is one gather.

    Args:
        store: where the images are.
        split: "train", "val" or "test".

    Attributes:
        labels: of each image, int64.
        classes: label -> name.

    Raises:
        DataError: the store has no such split.
    """

    def __init__(self, store: ImageStore, split: str) -> None:
        labels = store.split_labels(split)
        self._rows = store.splits[split]
        ids, self.labels = np.unique(labels[labels >= 0], return_inverse=True)
        self.classes = tuple(store.classes[i] for i in ids)
        self._pixels = Pixels(store)

    def __len__(self) -> int:
        """Images."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Item:
        """Image `index`, from 0; from the end where it is negative."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Several images, as a `DataLoader` asks for those of a batch."""
        images = self._pixels.read(torch.tensor([self._rows[i] for i in indices], dtype=torch.int64))
        return [(image, int(self.labels[i])) for image, i in zip(images, indices, strict=True)]
