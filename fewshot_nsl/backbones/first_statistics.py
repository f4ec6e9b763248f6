"""BN by the first images of a batch alone: what supports lay down, queries are normalised with, and queries do not see each other."""

import copy
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from fewshot_nsl.backbones.pooled import NormReluPool2d
from fewshot_nsl.errors import ConfigurationError

Network = TypeVar("Network", bound=nn.Module)


def normalise_by_first(
    images: Float[Tensor, "n c h w"], count: int, weight: Float[Tensor, " c"] | None, bias: Float[Tensor, " c"] | None, eps: float
) -> Float[Tensor, "n c h w"]:
    """`functional.batch_norm` in training, with the statistics of the first `count` images; those may be all."""
    if len(images) <= count:
        return functional.batch_norm(images, None, None, weight, bias, training=True, eps=eps)
    # Statistics are of float32 at least, as in torch's own BN.
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    variance, mean = torch.var_mean(wide[:count], (0, 2, 3), correction=0)
    slope = (variance + eps).rsqrt()
    if weight is not None:
        slope = slope * weight
    normalised = (wide - mean[:, None, None]) * slope[:, None, None]
    if bias is not None:
        normalised = normalised + bias[:, None, None]
    return normalised.to(images.dtype)


class NormByFirst2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` by the first `count` images of its batch; it keeps no statistics.

    Args:
        layer: whose parameters serve, themselves and no copies.
        count: of images.
    """

    def __init__(self, layer: nn.BatchNorm2d, count: int) -> None:
        super().__init__(layer.num_features, layer.eps, affine=False, track_running_stats=False)
        self.weight, self.bias, self.affine, self.count = layer.weight, layer.bias, layer.affine, count

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Normalise all images."""
        return normalise_by_first(input, self.count, self.weight, self.bias, self.eps)


class NormReluPoolByFirst2d(NormByFirst2d):
    """`NormReluPool2d`, likewise."""

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h//2 w//2"]:
        """Halves height and width, rounding down."""
        return functional.relu(functional.max_pool2d(super().forward(input), 2), inplace=True)


_BY_FIRST: dict[type[nn.Module], type[NormByFirst2d]] = {nn.BatchNorm2d: NormByFirst2d, NormReluPool2d: NormReluPoolByFirst2d}


def with_first_statistics(network: Network, count: int) -> Network:
    """`network`, every BN that goes by its batch going by the first `count` images of it; BN with running statistics stays.

    An output of a later image then depends on the first images and on itself. `network` stays as it is, and the result is no copy of its
    tensors: they are the same, under the same names.

    Raises:
        ConfigurationError: a BN that goes by its batch is of a kind that is not known here.
    """
    view: Network = _view(network, count)  # type: ignore[assignment]
    return view


def _view(module: nn.Module, count: int) -> nn.Module:
    if isinstance(module, _BatchNorm):
        return _by_first(module, count) if module.training or module.running_mean is None else module
    shallow = copy.copy(module)
    shallow._modules = {name: child and _view(child, count) for name, child in module._modules.items()}
    return shallow


def _by_first(layer: _BatchNorm, count: int) -> nn.Module:
    if type(layer) not in _BY_FIRST:
        raise ConfigurationError(
            f"the statistics of {type(layer).__name__} cannot be those of the supports alone: expected one of "
            f"{', '.join(kind.__name__ for kind in _BY_FIRST)}; use the transductive setting (transductive=True, --transductive)"
        )
    return _BY_FIRST[type(layer)](layer, count)  # type: ignore[arg-type]
