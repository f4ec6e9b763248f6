"""timm's models as backbones. timm is not installed with the package: `pip install "fewshot-nsl[timm]"`."""

import difflib

import torch

from fewshot_nsl.backbones.as_backbone import ModuleBackbone, as_backbone
from fewshot_nsl.errors import ConfigurationError


def timm_backbone(name: str, *, pretrained: bool = True) -> ModuleBackbone:
    """The features of a model of timm, before its classifier; whole images, resized and normalised as the model was trained with.

    Args:
        name: as timm has it, `resnet18` or `resnet18.a1_in1k`.
        pretrained: with the weights that timm downloads and keeps; otherwise with random ones.

    Raises:
        ConfigurationError: timm is not installed, or has no model of this name, or one whose features are no vectors.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"backbone '{name}' is of timm, which is not installed; run: pip install timm") from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigurationError(f"timm has no model '{name}'; {meant}See those that there are: timm.list_models()")
    model = timm.create_model(name, pretrained=pretrained, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(model)
    with torch.no_grad():
        features = model(torch.zeros(1, *config["input_size"]))
    mean, std = ([255 * value for value in config[key]] for key in ("mean", "std"))
    return as_backbone(model, features=features.shape[-1], mean=mean, std=std, image_size=config["input_size"][-1])
