"""What is timed, as data: the sizes of a meta-step, and made-up images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch


@dataclass(frozen=True)
class MetaWork:
    """Sizes of one second-order outer step on CNN-4; by default the field's standard (Finn et al. 2017, Mini-ImageNet, 5-way 5-shot)."""

    image_size: int = 84
    tasks: int = 4
    steps: int = 5
    """Inner steps."""
    n_way: int = 5
    n_shot: int = 5
    n_query: int = 15
    """Of a class."""
    channels: int = 3
    width: int = 32
    """Filters of a layer."""

    @property
    def n_support(self) -> int:
        """Support images of a task."""
        return self.n_way * self.n_shot

    @property
    def queries(self) -> int:
        """Query images of a task."""
        return self.n_way * self.n_query

    def __str__(self) -> str:
        """What tells two of them apart, in names of figures."""
        return f"{self.image_size}x{self.image_size}, {_count(self.tasks, 'task')}, {_count(self.steps, 'step')}"


def made_up_batch(work: MetaWork, device: torch.device, seed: int = 0) -> EpisodeBatch:
    """Noise images and their labels, class by class; the arithmetic does not ask what is on a picture."""
    generator = torch.Generator().manual_seed(seed)

    def images(count: int) -> torch.Tensor:
        shape = (work.tasks, count, work.channels, work.image_size, work.image_size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    def labels(each: int) -> torch.Tensor:
        return torch.arange(work.n_way).repeat_interleave(each).repeat(work.tasks, 1)

    def nowhere(count: int) -> torch.Tensor:
        return torch.full((work.tasks, count), -1)

    batch = EpisodeBatch(
        support=images(work.n_support),
        support_labels=labels(work.n_shot),
        query=images(work.queries),
        query_labels=labels(work.n_query),
        support_rows=nowhere(work.n_support),
        query_rows=nowhere(work.queries),
        classes=nowhere(work.n_way),
    )
    return batch.to(device)


def made_up_store(image_size: int, classes: int, images_per_class: int, *, split: str, seed: int = 0) -> ImageStore:
    """A store in memory, all of one split: a pattern a class, each image half pattern and half noise, so that a classifier has work."""
    rng = np.random.default_rng(seed)
    shape = (image_size, image_size, 3)
    patterns = rng.integers(0, 128, (classes, 1, *shape), dtype=np.uint8)
    images = patterns + rng.integers(0, 128, (classes, images_per_class, *shape), dtype=np.uint8)
    return ImageStore(
        name="made-up",
        root=Path(),
        images=images.reshape(-1, *shape),
        labels=np.repeat(np.arange(classes), images_per_class),
        classes=tuple(map(str, range(classes))),
        splits={split: range(classes * images_per_class)},
        fingerprint="",
        mean=(127.5,) * 3,
        std=(64.0,) * 3,
        augmentations=("crop", "flip"),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
