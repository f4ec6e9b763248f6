"""Stages for many tasks at once: convolution, BN, ReLU and 2x2 max-pooling, where pooling goes first and most numbers are never written."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from fewshot_nsl.inner_loop.layers import TaskBatchNorm2d, TaskConv2d
from fewshot_nsl.kernels import Kernels
from fewshot_nsl.kernels.convolution import Geometry, convolution
from fewshot_nsl.kernels.stage import affine_relu, conv_pool, pool, pool_with_moments

_FUSED = ((1, 1), (1, 1), (1, 1))
"""Stride, padding and dilation that `conv_pool` has."""
_FEW = 4
"""Channels of images as people have them. A patch of many more has moments that cost more than the convolution."""


class TaskNormReluPool2d(TaskBatchNorm2d):
    """`NormReluPool2d`. Alone it pools what it is given; `TaskSequential` joins it with the convolution before it."""

    def forward(self, images: Float[Tensor, "n tasks_c h w"]) -> Float[Tensor, "n tasks_c h//2 w//2"]:
        """BN, ReLU, pooling."""
        return functional.max_pool2d(functional.relu(super().forward(images)), 2)


class TaskSequential(nn.Sequential):
    """`nn.Sequential`, a convolution and the `NormReluPool2d` after it being one.

    Pooling goes before BN and ReLU: a rising line and ReLU keep the order of numbers. Where BN's line falls (its weight is negative), the
    filter changes its sign, and the line with it. BN's moments are those of all numbers, pooled or not.
    """

    def __init__(self, layers: dict[str, nn.Module], kernels: Kernels) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.kernels = kernels
        self._patches = WeakTensorKeyDictionary()

    def forward(self, input: Tensor) -> Tensor:
        """One layer after the other."""
        layers, hidden = list(self.children()), input
        while layers:
            layer, after = layers.pop(0), layers[0] if layers else None
            if isinstance(layer, TaskConv2d) and layer.bias is None and isinstance(after, TaskNormReluPool2d):
                hidden = self._stage(hidden, layer, after)
                layers.pop(0)
            else:
                hidden = layer(hidden)
        return hidden

    def _stage(self, images: Tensor, layer: TaskConv2d, norm: TaskNormReluPool2d) -> Tensor:
        tasks = layer.tasks(images)
        weight, bias = norm.affine(tasks)
        sign = torch.where(weight.detach() < 0, -1.0, 1.0).to(weight.dtype)
        kernel, weight = layer.kernel(tasks) * sign[:, None, None, None], weight * sign
        geometry = Geometry(*layer.window, tasks * layer.groups)
        fused = layer.window == _FUSED and layer.groups == 1 and kernel.shape[2:] == (3, 3)

        def pooled_alone(part: Tensor) -> Tensor:
            return conv_pool(part, kernel, tasks, self.kernels) if fused else pool(convolution(part, kernel, geometry), self.kernels)

        # Statistics of the batch need every number of the convolution, or, below it, the moments of what its taps see.
        if not norm.by_batch:
            pooled, (mean, variance) = pooled_alone(images), norm.running(tasks)
            mean = mean * sign
        elif fused and not images.requires_grad and layer.in_channels <= _FEW:
            pooled = pooled_alone(images)
            mean, variance = self._moments_of_patches(norm.counted(images)[0], kernel, tasks)
        else:
            counted, others = norm.counted(images)
            pooled, mean, variance = pool_with_moments(convolution(counted, kernel, geometry), self.kernels)
            if others is not None:
                pooled = torch.cat([pooled, pooled_alone(others)])
        slope = weight * (variance + norm.eps).rsqrt()
        return affine_relu(pooled, slope, bias - slope * mean, self.kernels)

    def _moments_of_patches(self, images: Tensor, kernel: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of the convolution's output from those of what its taps see, which stay while steps are taken."""
        if images not in self._patches:
            self._patches[images] = patch_moments(images, tasks)
        mean, covariance = self._patches[images]
        flat = kernel.flatten(1).unflatten(0, (tasks, -1))
        return (flat @ mean[:, :, None]).flatten(), ((flat @ covariance) * flat).sum(-1).flatten()


def patch_moments(
    images: Float[Tensor, "n tasks_c h w"], tasks: int
) -> tuple[Float[Tensor, "tasks patch"], Float[Tensor, "tasks patch patch"]]:
    """Mean and biased covariance of the 3x3 patches of each task's images, zeros outside; channels before taps."""
    n, _, h, w = images.shape
    total = second = torch.zeros((), dtype=torch.float64, device=images.device)
    for image in images.split(1):
        # [1, tasks * c, h, w, 3, 3]: a view. It is copied faster than `functional.unfold` writes the same.
        windows = functional.pad(image, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
        patches = windows.permute(1, 4, 5, 2, 3, 0).reshape(tasks, -1, h * w)
        total = total + patches.sum(-1).double()
        second = second + (patches @ patches.mT).double()
    count = n * h * w
    mean = total / count
    covariance = second / count - mean[:, :, None] * mean[:, None, :]
    return mean.to(images.dtype), covariance.to(images.dtype)
