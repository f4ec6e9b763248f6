"""What is checked of another library's tasks before they become an `EpisodeBatch`: their pixels, and their labels."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fewshot_nsl.errors import DataError, EpisodeError

_ROUNDING = 1e-3
"""How far from a whole number a pixel may lie: k / 255 in float32, times 255, errs by 1e-5."""

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


Collated = Sequence[Tensor | Sequence[object]]
"""`(images, labels)`; what torch's collation makes no tensor of, as names of classes, stays a list."""


def checked_tasks(tasks: Collated, white: int, advice: str) -> tuple[UInt8[Tensor, "tasks n c h w"], Int64[Tensor, "tasks n"]]:
    """The images of several tasks as uint8, and their labels.

    Args:
        tasks: several; every one is to have the labels 0 ... way-1, all of them, with the same way.
        white: the value of a white pixel, where the images are not uint8 already.
        advice: what to try where the labels are others.

    Raises:
        DataError: the images are none, or not whole numbers 0 to 255 once white is 255.
        EpisodeError: the labels are no integers, not one an image, or others.
    """
    images, labels = tasks
    if not isinstance(images, Tensor) or images.ndim != 5:
        kind = f"shape {list(images.shape)}" if isinstance(images, Tensor) else f"the type {type(images).__name__}"
        raise DataError(f"images have {kind}, expected a tensor [tasks, n, c, h, w]; add ToTensor to the dataset's transform")
    if not isinstance(labels, Tensor) or labels.dtype not in _INTEGERS:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise EpisodeError(f"labels are {got}, expected a tensor of integers; {advice}")
    if labels.shape != images.shape[:2] or not labels.numel():
        raise EpisodeError(f"labels have shape {list(labels.shape)}, expected one for each of {list(images.shape[:2])} images (tasks, n)")
    labels = labels.long()
    expected = set(range(int(labels.max()) + 1))
    for task in labels.tolist():
        if set(task) != expected:
            shown = ", ".join(map(str, sorted(set(task))[:8]))
            raise EpisodeError(f"a task has the labels {shown}: expected 0 to way - 1, as many in every task; {advice}")
    return _whole_pixels(images, white), labels


def _whole_pixels(images: Tensor, white: int) -> UInt8[Tensor, "tasks n c h w"]:
    if images.dtype == torch.uint8:
        return images
    scaled = images.float() * (255 / white)
    whole = scaled.round()
    wrong = ~((scaled - whole).abs() <= _ROUNDING) | (whole < 0) | (whole > 255)  # the first is true of NaN
    advice = "pass white=1 if ToTensor made them, and take Normalize out of the dataset's transform"
    if wrong.any():
        raise DataError(f"images have a pixel of {images[wrong][0].item():.6g}, expected 0 to {white} (white) in 255 equal steps; {advice}")
    # ToTensor makes 0 and 1 of a black and white drawing: whole as well, and read as 0 to 255 they would be two shades of black.
    if white == 255 and whole.max() == 1:
        raise DataError(f"images have no pixel above 1, expected 0 to 255 (white); {advice}")
    return whole.to(torch.uint8)
