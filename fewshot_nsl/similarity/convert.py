"""Give any torch model neural similarity, and take a learned static one back into plain convolutions."""

import copy
from collections.abc import Callable
from functools import partial as bind
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from fewshot_nsl.errors import ConfigurationError, NotFoldable
from fewshot_nsl.similarity.dynamic import DynamicSimilarityConv2d
from fewshot_nsl.similarity.kernel_shape import ShapeThreshold, shape_parameters
from fewshot_nsl.similarity.linear import DynamicSimilarityLinear, StaticSimilarityLinear
from fewshot_nsl.similarity.predictor import Predictor
from fewshot_nsl.similarity.shift import ShiftSimilarityConv2d
from fewshot_nsl.similarity.static import StaticSimilarityConv2d
from fewshot_nsl.similarity.structure import Structure

Where = Callable[[str, nn.Conv2d], bool]
_FOLDABLE = StaticSimilarityConv2d | StaticSimilarityLinear | ShiftSimilarityConv2d
_DYNAMIC = DynamicSimilarityConv2d | DynamicSimilarityLinear


def convert(
    model: nn.Module,
    kind: str,
    *,
    structure: str | Structure | None = None,
    predictor: str | Predictor = "sphere",
    shape_threshold: ShapeThreshold = None,
    where: Where | None = None,
) -> nn.Module:
    """A copy of `model` with similarity convolutions; it computes what `model` computes, since every M starts as the identity.

    Args:
        model: any module; it is left as it is. A convolution that serves in several places still serves in all of them.
        kind: "static" or "dynamic".
        structure: of M; by default "unconstrained" for static and "diagonal" for dynamic similarity.
        predictor: of dynamic similarity; a static one has none. For one that all layers share see `share_predictors`.
        shape_threshold: to learn the kernels' shapes too; see `KernelShape`.
        where: takes a layer's dotted name and the layer, says whether to convert it; by default every kernel of more than one tap.

    Raises:
        ConfigurationError: unknown `kind`, `structure` or `predictor`; nothing to convert (`left_alone(model)` says why).
    """
    kinds: dict[str, Callable[..., nn.Conv2d]] = {
        "static": bind(StaticSimilarityConv2d, structure=structure or "unconstrained", shape_threshold=shape_threshold),
        "dynamic": bind(DynamicSimilarityConv2d, structure=structure or "diagonal", predictor=predictor, shape_threshold=shape_threshold),
    }
    if kind not in kinds:
        raise ConfigurationError(f"kind of similarity '{kind}' is unknown: expected one of {', '.join(kinds)}")
    model = copy.deepcopy(model)
    names = [name for name, reason in _verdicts(model, where) if reason is None]
    if not names:
        reasons = "; ".join(f"{name or 'it'} {reason}" for name, reason in list(left_alone(model, where=where).items())[:3])
        raise ConfigurationError(f"{type(model).__name__} has no plain convolution to convert: {reasons or 'it has no convolution at all'}")
    return _replace(model, names, lambda layer: _similar(layer, kinds[kind]))


def left_alone(model: nn.Module, *, where: Where | None = None) -> dict[str, str]:
    """The convolutions that `convert` with this `where` leaves as they are, by name: why."""
    return {name: reason for name, reason in _verdicts(model, where) if reason is not None}


def fold(model: nn.Module, *, partial: bool = False) -> nn.Module:
    """A copy of `model` in which every static similarity layer is the plain layer of the same output, a shift a pair of layers.

    Args:
        model: any module; it is left as it is.
        partial: leave dynamic layers as they are, where they would be refused.

    Raises:
        NotFoldable: there is a dynamic layer; all are named.
    """
    model = copy.deepcopy(model)
    layers = list(model.named_modules(remove_duplicate=False))
    dynamic = [name or type(layer).__name__ for name, layer in layers if isinstance(layer, _DYNAMIC)]
    if dynamic and not partial:
        raise NotFoldable(f"layers {', '.join(dynamic)} have a similarity that depends on the input; fold(model, partial=True) leaves them")
    names = [name for name, layer in layers if isinstance(layer, _FOLDABLE)]
    return _replace(model, names, lambda layer: layer.fold())


def similarity_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameter M of every static similarity layer, by its name in `model.named_parameters()`."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, _FOLDABLE)]
    return {f"{name}.M".removeprefix("."): layer.M for name, layer in layers}


def predictor_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters that say what dynamic similarity is, by name; what is shared is there once."""
    others = similarity_parameters(model) | shape_parameters(model)
    return {name: value for name, value in added_parameters(model).items() if name not in others}


def added_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All that similarity adds to a network, by name: every M, the predictors, the kernel shapes. What is shared is there once."""
    layers = [module for module in model.modules() if isinstance(module, _FOLDABLE | _DYNAMIC)]
    added = {id(value) for layer in layers for name, value in layer.named_parameters() if name not in ("weight", "bias")}
    return {name: value for name, value in model.named_parameters() if id(value) in added}


def _verdicts(model: nn.Module, where: Where | None) -> list[tuple[str, str | None]]:
    """Every convolution's names, and why it is left alone, if it is; those inside a predictor are no layers of the network."""
    predicting = {part for layer in model.modules() if isinstance(layer, _DYNAMIC) for part in layer.predictor.modules()}
    layers = model.named_modules(remove_duplicate=False)
    convolutions = [(name, layer) for name, layer in layers if isinstance(layer, _ConvNd) and layer not in predicting]
    return [(name, _reason(name, layer, where)) for name, layer in convolutions]


def _reason(name: str, layer: nn.Module, where: Where | None) -> str | None:
    if isinstance(layer, _FOLDABLE | _DYNAMIC):
        return "is a similarity layer already"
    if not isinstance(layer, nn.Conv2d):
        return f"is a {type(layer).__name__}, no convolution of images"
    if type(layer) is not nn.Conv2d:
        return f"is a {type(layer).__name__}, which may compute something else than nn.Conv2d"
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        return "has a weight that is computed, no parameter"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "has hooks, which may change what it computes"
    if where is not None:
        return None if where(name, layer) else "is not wanted by `where`"
    return None if layer.weight[0, 0].numel() > 1 else "has kernels of one tap, for which M is a number"


def _replace(model: nn.Module, names: list[str], build: Callable[[Any], nn.Module]) -> nn.Module:
    """Put `build(layer)` in the place of each named layer, once for a layer of several names."""
    made: dict[nn.Module, nn.Module] = {}
    for name in names:
        layer = model.get_submodule(name)
        if layer in made.values():  # a block of several names: already replaced inside it
            continue
        if layer not in made:
            made[layer] = build(layer)
        if not name:
            return made[layer]
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, made[layer])
    return model


def _similar(layer: nn.Conv2d, kind: Callable[..., nn.Conv2d]) -> nn.Conv2d:
    """A similarity convolution with this layer's geometry and its very parameters."""
    similar = kind(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
        layer.weight.device,
        layer.weight.dtype,
    )
    similar.weight, similar.bias = layer.weight, layer.bias
    return similar.train(layer.training)
