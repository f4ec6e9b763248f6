"""BN, ReLU and 2x2 max-pooling in one module, which pools first where it may: a quarter of the numbers then go through the others."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.kernels import Kernels
from fewshot_nsl.kernels.stage import affine_relu, pool_with_moments


class NormReluPool2d(nn.BatchNorm2d):
    """`max_pool2d(relu(batch_norm(x)), 2)`, to the last bit, with `nn.BatchNorm2d`'s parameters, statistics and names.

    With fixed statistics BN is one straight line a channel. A rising line and ReLU keep the order of numbers, so the largest may be taken
    first; where the line falls (its weight is negative), the smallest. Statistics of the batch, as in training or where none are kept, are
    of all numbers: torch's operators then pool between BN and ReLU. In training on `kernels` pooling is first there too, which agrees to
    rounding.
    """

    kernels: Kernels | None = None
    """What training is computed with on a CPU; None: torch's own operators. See `use_kernels`."""

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h//2 w//2"]:
        """Halves height and width, rounding down."""
        # In half precision torch's own operators keep the statistics in float32.
        by_kernels = self.kernels is not None and input.dtype == self.weight.dtype
        by_batch = self.training or self.running_mean is None
        if not _may_branch(input) or (by_batch and not (self.training and by_kernels)):
            return self.finish(super().forward(input))
        falling = self.weight < 0
        sign = torch.where(falling, -1.0, 1.0).to(input.dtype)[:, None, None] if falling.any() else None
        turned = input if sign is None else input * sign
        if by_batch and self.kernels is not None:
            return self._train(turned, sign, self.kernels)
        pooled = functional.max_pool2d(turned, 2)
        return functional.relu(super().forward(pooled if sign is None else pooled * sign), inplace=True)

    def finish(self, normed: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h//2 w//2"]:
        """What comes after BN alone: ReLU and pooling."""
        return functional.relu(functional.max_pool2d(normed, 2), inplace=True)

    def _train(self, turned: Tensor, sign: Tensor | None, kernels: Kernels) -> Tensor:
        """From the input, its sign changed where the line falls."""
        pooled, mean, variance = pool_with_moments(turned, kernels)
        slope = self.weight * (variance + self.eps).rsqrt()
        if sign is not None:
            slope = slope * sign.flatten()
        self._follow(mean.detach() if sign is None else mean.detach() * sign.flatten(), variance.detach(), turned.numel() // len(mean))
        return affine_relu(pooled, slope, self.bias - slope * mean, kernels)

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Let the running statistics follow, as `nn.BatchNorm2d` does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)


def use_kernels(network: nn.Module, kernels: Kernels | None) -> None:
    """Let `network` be trained with these kernels on a CPU; None: with torch's own operators."""
    for module in network.modules():
        if isinstance(module, NormReluPool2d):
            module.kernels = kernels


def _may_branch(input: Tensor) -> bool:
    """Whether looking at the weights costs nothing: a GPU would be waited for, a compiler and `torch.func` cannot look."""
    return input.is_cpu and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
