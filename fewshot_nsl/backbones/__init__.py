"""Backbones: networks from images `[n, c, h, w]`, uint8 or float in pixel units 0-255, to features `[n, d]`."""

from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.cnn4 import CNN4
from fewshot_nsl.backbones.describe import BACKBONES, ModelDescription, build_model
from fewshot_nsl.backbones.normalise import Normalise

__all__ = ["BACKBONES", "CNN4", "Backbone", "ModelDescription", "Normalise", "build_model"]
