"""What every backbone is."""

from torch import nn


class Backbone(nn.Module):
    """A module from images `[n, c, h, w]`, uint8 or float in pixel units 0-255, to features `[n, d]`."""

    features: int
    """d."""
