"""The images of a store as torch reads them."""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fewshot_nsl.data import ImageStore


class Pixels:
    """Gathers images of a store into new tensors, on as many threads as torch has, and holds no copy of the store.

    Pickled, it is as small as the store.

    Args:
        store: where the images are.
        pinned: whether the tensors lie in pinned memory, from which a GPU copies while the CPU goes on; this needs a GPU.
    """

    def __init__(self, store: ImageStore, pinned: bool = False) -> None:
        self.store, self.pinned = store, pinned
        with warnings.catch_warnings():
            # torch has no read-only tensors and warns of every such array; this one is read and never given away.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            self._images = torch.from_numpy(store.images)

    def read(self, rows: Int64[Tensor, " n"]) -> UInt8[Tensor, "n c h w"]:
        """Images of `rows`; in memory their channels are last, as in the store."""
        images = torch.empty((len(rows), *self._images.shape[1:]), dtype=torch.uint8, pin_memory=self.pinned)
        return torch.index_select(self._images, 0, rows, out=images).movedim(-1, 1)

    def __reduce__(self) -> tuple[Callable[[ImageStore, bool], "Pixels"], tuple[ImageStore, bool]]:
        return Pixels, (self.store, self.pinned)
