"""Mean and standard deviation of each channel, summed in integers, so that neither order nor machine changes a digit."""

import math

import numpy as np
from jaxtyping import UInt8


class ChannelStatistics:
    """Running per-channel sums over images of `channels` channels; pixel units, 0-255."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._total = [0] * channels
        self._squares = [0] * channels

    def add(self, images: UInt8[np.ndarray, "n h w c"]) -> None:
        """Count every pixel of `images`."""
        pixels = images.reshape(-1, images.shape[-1])
        self._count += len(pixels)
        for channel in range(pixels.shape[1]):
            histogram = np.bincount(pixels[:, channel], minlength=256).tolist()
            self._total[channel] += sum(value * times for value, times in enumerate(histogram))
            self._squares[channel] += sum(value * value * times for value, times in enumerate(histogram))

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, 0-255."""
        return tuple(total / self._count for total in self._total)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel (over n, not n - 1), in pixel units."""
        sums = zip(self._total, self._squares, strict=True)
        return tuple(math.sqrt(self._count * squares - total * total) / self._count for total, squares in sums)
