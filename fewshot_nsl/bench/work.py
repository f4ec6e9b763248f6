"""The meta-step that is timed, as data: its sizes, and made-up episodes of these sizes."""

from dataclasses import dataclass

import torch

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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
