"""What the plain nets share: convolution, BN and ReLU, and stages of them that end in a 2x2 max-pooling."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from fewshot_nsl.backbones.pooled import NormReluPool2d
from fewshot_nsl.errors import ConfigurationError

Convolution = Callable[..., nn.Module]
"""Called with `nn.Conv2d`'s arguments: `(in_channels, out_channels, kernel_size, padding=, bias=)`, and `stride=` where it is not 1."""

_TIMES = {3: "three", 4: "four"}


def block(in_channels: int, out_channels: int, convolution: Convolution) -> list[nn.Module]:
    """3x3 convolution, BN, ReLU: `[n, in_channels, h, w]` to `[n, out_channels, h, w]`."""
    return [
        # BN subtracts whatever a bias would add.
        convolution(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


def stage(in_channels: int, out_channels: int, depth: int, convolution: Convolution) -> nn.Sequential:
    """`depth` blocks and a 2x2 max-pooling: `[n, in_channels, h, w]` to `[n, out_channels, h // 2, w // 2]`."""
    sizes = [in_channels] + depth * [out_channels]
    layers = [layer for i, o in pairwise(sizes) for layer in block(i, o, convolution)]
    # The last BN pools too. Its place, and so the names of all weights, are those of a plain BN, ReLU and max-pooling.
    return nn.Sequential(*layers[:-2], NormReluPool2d(out_channels))


def stages(in_channels: int, widths: Sequence[int], depths: Sequence[int], convolution: Convolution) -> nn.Sequential:
    """A stage for each width, of the depth beside it."""
    sizes = pairwise([in_channels, *widths])
    return nn.Sequential(*(stage(i, o, depth, convolution) for (i, o), depth in zip(sizes, depths, strict=True)))


def check_sizes(name: str, image_size: int, width: int, *, halvings: int) -> None:
    """Refuse what a net of `halvings` poolings cannot be built for.

    Raises:
        ConfigurationError: images too small to be halved so often, or no filters.
    """
    if image_size < 2**halvings:
        times = _TIMES[halvings]
        raise ConfigurationError(f"{name} halves its images {times} times: expected at least {2**halvings} pixels, got {image_size}")
    check_width(name, width)


def check_width(name: str, width: int) -> None:
    """Refuse a net without filters.

    Raises:
        ConfigurationError: `width` is below 1.
    """
    if width < 1:
        raise ConfigurationError(f"{name}'s width is its number of filters: expected at least 1, got {width}")
