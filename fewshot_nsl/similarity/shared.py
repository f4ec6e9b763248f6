"""One predictor for all layers of a network (Liu et al. 2019, section 3.3: shared parameterisation)."""

import copy

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.dynamic import DynamicSimilarityConv2d
from fewshot_nsl.similarity.hyperspherical import HypersphericalConv2d
from fewshot_nsl.similarity.predictor import new_gain


class SharedPredictor(nn.Module):
    """A layer's adaptation network, BN and ReLU, the network's generator, and a gain: only BN and gain are the layer's own."""

    def __init__(self, adaptation: HypersphericalConv2d, generator: HypersphericalConv2d) -> None:
        super().__init__()
        self.adaptation, self.generator = adaptation, generator
        self.norm = nn.BatchNorm2d(len(adaptation.weight))
        self.gain = new_gain(len(generator.weight))

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n outputs h_out w_out"]:
        """Offsets from the identity's free numbers."""
        return self.gain[:, None, None] * self.generator(functional.relu(self.norm(self.adaptation(input))))


def share_predictors(model: nn.Module, example: Shaped[Tensor, "*images"], *, hidden_channels: int = 32) -> nn.Module:
    """A copy of a dynamic `model` whose layers share their predictors, each M the identity again.

    There is one generator for each kernel size (and number of free numbers), a 3x3 cosine convolution, and one adaptation network, a cosine
    convolution of the layer's own geometry, for all layers whose inputs have equal channels and resolution: the first convolution of a
    predictor of its own, which holds most of its parameters, is paid once for them. Shared parameters stand under several names in
    `state_dict()`, once in `parameters()`.

    Args:
        model: has dynamic similarity layers, `convert(model, "dynamic")`; it is left as it is.
        example: an input of the model: `model(example)` is run once, without gradients, to see the sizes.
        hidden_channels: that adaptation networks bring every input to.

    Raises:
        ConfigurationError: the model has no dynamic similarity layer, or the example does not reach one of them.
    """
    model = copy.deepcopy(model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, DynamicSimilarityConv2d)}
    if not layers:
        raise ConfigurationError(f"{type(model).__name__} has no dynamic similarity layer; make some first: convert(model, 'dynamic')")
    sizes = _input_sizes(model, layers, example)
    adaptations: dict[object, HypersphericalConv2d] = {}
    generators: dict[object, HypersphericalConv2d] = {}
    for name, layer in layers.items():
        outputs = layer.identity.numel()
        geometry = layer.kernel_size, layer.stride, layer.zeros_added, layer.dilation
        like = sizes[name], geometry, layer.weight.dtype, layer.weight.device
        if like not in adaptations:
            adaptations[like] = HypersphericalConv2d(layer.in_channels, hidden_channels, *geometry).to(layer.weight)  # type: ignore[arg-type]
        if (layer.kernel_size, outputs) not in generators:
            generators[layer.kernel_size, outputs] = HypersphericalConv2d(hidden_channels, outputs, (3, 3), padding=1).to(layer.weight)
        predictor = SharedPredictor(adaptations[like], generators[layer.kernel_size, outputs]).to(layer.weight)
        layer.predictor = predictor.train(layer.training)
    return model


def _input_sizes(model: nn.Module, layers: dict[str, DynamicSimilarityConv2d], example: Tensor) -> dict[str, torch.Size]:
    """Channels, height and width of what each layer gets."""
    sizes: dict[str, torch.Size] = {}
    training = {module: module.training for module in model.modules()}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: sizes.setdefault(name, inputs[0].shape[1:]) and None)
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            model.eval()
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
        for module, was in training.items():
            module.training = was
    missed = [name or "the model itself" for name in layers if name not in sizes]
    if missed:
        raise ConfigurationError(f"the example does not reach the dynamic similarity layers {', '.join(missed)}; give one that does")
    return sizes
