"""What a learner gets: a batch of tasks, images as uint8 on the device."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class EpisodeBatch:
    """Several tasks of one size. Images are uint8, 0-255; labels are 0 ... way-1; the order inside a set means nothing.

    `support_rows`, `query_rows` and `classes` say which rows and class ids of the store these are.
    """

    support: UInt8[Tensor, "tasks n_support c h w"]
    support_labels: Int64[Tensor, "tasks n_support"]
    query: UInt8[Tensor, "tasks n_query c h w"]
    query_labels: Int64[Tensor, "tasks n_query"]
    support_rows: Int64[Tensor, "tasks n_support"]
    query_rows: Int64[Tensor, "tasks n_query"]
    classes: Int64[Tensor, "tasks way"]

    def to(self, device: torch.device) -> "EpisodeBatch":
        """The same batch on `device`."""
        return EpisodeBatch(**{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)})
