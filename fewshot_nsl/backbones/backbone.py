"""What every backbone is."""

from torch import nn


class Backbone(nn.Module):
    """A module from images `[n, c, h, w]`, uint8 or float in pixel units 0-255, to features `[n, d]`."""

    features: int
    """d."""
    map_shape: tuple[int, int, int] | None = None
    """Channels, height and width, where the features are a flattened map."""
    channels_apart: bool = False
    """Whether its own code treats every channel alike (flattens, adds, averages), so that channels of many tasks may lie side by side."""
