"""Backbones: networks from images `[n, c, h, w]`, uint8 or float in pixel units 0-255, to features `[n, d]`."""

from fewshot_nsl.backbones.as_backbone import ModuleBackbone, as_backbone
from fewshot_nsl.backbones.backbone import Backbone
from fewshot_nsl.backbones.batch_statistics import with_batch_statistics
from fewshot_nsl.backbones.cnn4 import CNN4
from fewshot_nsl.backbones.cnn4_maps import CNN4Maps
from fewshot_nsl.backbones.cnn9 import CNN9
from fewshot_nsl.backbones.conditioned import Modulation, conditioned, conditioned_layers, modulating
from fewshot_nsl.backbones.describe import (
    BACKBONES,
    USUAL_STRUCTURES,
    BackboneChoice,
    ModelDescription,
    SimilarityChoice,
    SimilarityKind,
    build_model,
    usual_width,
)
from fewshot_nsl.backbones.first_statistics import with_first_statistics
from fewshot_nsl.backbones.normalise import Normalise
from fewshot_nsl.backbones.of_timm import timm_backbone
from fewshot_nsl.backbones.plain import PlainCIFAR, PlainImageNet
from fewshot_nsl.backbones.pooled import NormReluPool2d, use_kernels
from fewshot_nsl.backbones.resnet import ResNet18, ResNet50
from fewshot_nsl.backbones.resnet12 import ResNet12

__all__ = [
    "BACKBONES",
    "CNN4",
    "CNN9",
    "USUAL_STRUCTURES",
    "Backbone",
    "BackboneChoice",
    "CNN4Maps",
    "ModelDescription",
    "Modulation",
    "ModuleBackbone",
    "NormReluPool2d",
    "Normalise",
    "PlainCIFAR",
    "PlainImageNet",
    "ResNet12",
    "ResNet18",
    "ResNet50",
    "SimilarityChoice",
    "SimilarityKind",
    "as_backbone",
    "build_model",
    "conditioned",
    "conditioned_layers",
    "modulating",
    "timm_backbone",
    "use_kernels",
    "usual_width",
    "with_batch_statistics",
    "with_first_statistics",
]
