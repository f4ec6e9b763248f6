"""Layers for many tasks at once: the tasks' channels lie side by side, and each task is a group of them.

Images are `[n, tasks * c, h, w]`; a parameter is `[tasks, ...]` where each task has its own, and as in the layer itself where all share it.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones.first_statistics import NormByFirst2d, normalise_by_first
from fewshot_nsl.kernels.convolution import Geometry, convolution
from fewshot_nsl.similarity import StaticSimilarityConv2d
from fewshot_nsl.similarity.structure import get_structure


class TaskConv2d(nn.Module):
    """`nn.Conv2d`, its weights the layer's own."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.in_channels, self.groups = layer.in_channels, layer.groups
        self.window = (_pair(layer.stride), _pair(layer.padding), _pair(layer.dilation))

    def tasks(self, images: Float[Tensor, "n tasks_c h w"]) -> int:
        """How many are side by side."""
        return images.shape[1] // self.in_channels

    def kernel(self, tasks: int) -> Float[Tensor, "tasks_o i kh kw"]:
        """Of all tasks, one after the other."""
        return _per_task(self.weight, 4, tasks).flatten(0, 1)

    def forward(self, images: Float[Tensor, "n tasks_c h w"]) -> Float[Tensor, "n tasks_o h_out w_out"]:
        """Each task's convolution of its own channels."""
        tasks = self.tasks(images)
        output = convolution(images, self.kernel(tasks), Geometry(*self.window, tasks * self.groups))
        return output if self.bias is None else output + _per_task(self.bias, 1, tasks).flatten()[:, None, None]


class TaskStaticConv2d(TaskConv2d):
    """`StaticSimilarityConv2d`: shared or own filters under a shared or own M."""

    def __init__(self, layer: StaticSimilarityConv2d) -> None:
        super().__init__(layer)
        self.M, self.structure = layer.M, get_structure(layer.structure)

    def kernel(self, tasks: int) -> Float[Tensor, "tasks_o i kh kw"]:
        """`M' w` (Liu et al. 2019, section 3.2)."""
        weight, matrix = _per_task(self.weight, 4, tasks), self.structure.matrix(_per_task(self.M, 1, tasks))
        kernels = weight.flatten(3).flatten(1, 2)
        kernels = kernels * matrix[:, None] if matrix.dim() == 2 else kernels @ matrix
        return kernels.view(weight.shape).flatten(0, 1)


class TaskBatchNorm2d(nn.Module):
    """`nn.BatchNorm2d`: each task by its own batch, or the first images of it, or all by the running statistics, which stay as they are."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.channels = layer.weight, layer.bias, layer.eps, layer.num_features
        self.register_buffer("running_mean", layer.running_mean)
        self.register_buffer("running_var", layer.running_var)
        self.by_batch = layer.training or layer.running_mean is None
        self.first = layer.count if isinstance(layer, NormByFirst2d) else None

    def affine(self, tasks: int) -> tuple[Float[Tensor, " tasks_c"], Float[Tensor, " tasks_c"]]:
        """Weight and bias of every channel."""
        return _per_task(self.weight, 1, tasks).flatten(), _per_task(self.bias, 1, tasks).flatten()

    def running(self, tasks: int) -> tuple[Float[Tensor, " tasks_c"], Float[Tensor, " tasks_c"]]:
        """Running mean and variance of every channel."""
        return self.get_buffer("running_mean").repeat(tasks), self.get_buffer("running_var").repeat(tasks)

    def counted(
        self, images: Float[Tensor, "n tasks_c h w"]
    ) -> tuple[Float[Tensor, "counted tasks_c h w"], Float[Tensor, "others tasks_c h w"] | None]:
        """The images that the statistics of the batch are of, and the others, if there are any."""
        if self.first is None or len(images) <= self.first:
            return images, None
        counted, others = images.split([self.first, len(images) - self.first])
        return counted, others

    def forward(self, images: Float[Tensor, "n tasks_c h w"]) -> Float[Tensor, "n tasks_c h w"]:
        """Normalise each channel."""
        tasks = images.shape[1] // self.channels
        if self.first is not None:
            return normalise_by_first(images, self.first, *self.affine(tasks), self.eps)
        mean, variance = (None, None) if self.by_batch else self.running(tasks)
        return functional.batch_norm(images, mean, variance, *self.affine(tasks), training=self.by_batch, eps=self.eps)


def _per_task(value: Tensor, dims: int, tasks: int) -> Tensor:
    """`[tasks, ...]` of a parameter that has `dims` axes in its layer."""
    return value if value.dim() > dims else value.expand(tasks, *value.shape)


def _pair(value: int | tuple[int, ...] | str) -> tuple[int, int]:
    if isinstance(value, str):
        raise TypeError(value)
    return (value, value) if isinstance(value, int) else (value[0], value[1])
