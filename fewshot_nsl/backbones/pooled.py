"""BN, ReLU and 2x2 max-pooling in one module, which pools first where it may: a quarter of the numbers then go through the others."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class NormReluPool2d(nn.BatchNorm2d):
    """`max_pool2d(relu(batch_norm(x)), 2)`, to the last bit, with `nn.BatchNorm2d`'s parameters, statistics and names.

    With fixed statistics BN is one straight line a channel. A rising line and ReLU keep the order of numbers, so the largest may be taken
    first; where the line falls (its weight is negative), the smallest. Statistics of the batch, as in training or where none are kept, are
    of all numbers, and nothing is moved.
    """

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h//2 w//2"]:
        """Halves height and width, rounding down."""
        if self.training or self.running_mean is None or not _may_branch(input):
            return functional.max_pool2d(functional.relu(super().forward(input), inplace=True), 2)
        falling = self.weight < 0
        if not falling.any():
            pooled = functional.max_pool2d(input, 2)
        else:
            sign = torch.where(falling, -1.0, 1.0).to(input.dtype)[:, None, None]
            pooled = functional.max_pool2d(input * sign, 2) * sign
        return functional.relu(super().forward(pooled), inplace=True)


def _may_branch(input: Tensor) -> bool:
    """Whether looking at the weights costs nothing: a GPU would be waited for, a compiler and `torch.func` cannot look."""
    return input.is_cpu and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
