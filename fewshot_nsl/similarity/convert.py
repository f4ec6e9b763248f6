"""Give any torch model neural similarity, and take a learned static one back into plain convolutions."""

import copy
from collections.abc import Callable
from functools import partial as bind
from typing import Any

from torch import nn

from fewshot_nsl.errors import ConfigurationError, NotFoldable
from fewshot_nsl.similarity.dynamic import DynamicSimilarityConv2d
from fewshot_nsl.similarity.predictor import Predictor
from fewshot_nsl.similarity.static import StaticSimilarityConv2d

Where = Callable[[str, nn.Conv2d], bool]


def convert(
    model: nn.Module,
    kind: str,
    *,
    structure: str | None = None,
    predictor: str | Predictor = "sphere",
    where: Where | None = None,
) -> nn.Module:
    """A copy of `model` with similarity convolutions; it computes what `model` computes, since every M starts as the identity.

    Args:
        model: any module; it is left as it is. A convolution that serves in several places still serves in all of them.
        kind: "static" or "dynamic".
        structure: of M; by default "unconstrained" for static and "diagonal" for dynamic similarity.
        predictor: of dynamic similarity; a static one has none.
        where: takes a layer's dotted name and the layer, says whether to convert it; by default every kernel of more than one tap.

    Raises:
        ConfigurationError: unknown `kind`, `structure` or `predictor`; a padding that dynamic similarity refuses; nothing to convert.
    """
    kinds: dict[str, Callable[..., nn.Conv2d]] = {
        "static": bind(StaticSimilarityConv2d, structure=structure or "unconstrained"),
        "dynamic": bind(DynamicSimilarityConv2d, structure=structure or "diagonal", predictor=predictor),
    }
    if kind not in kinds:
        raise ConfigurationError(f"kind of similarity '{kind}' is unknown: expected one of {', '.join(kinds)}")
    chosen = where or (lambda _, layer: layer.weight[0, 0].numel() > 1)

    def wanted(name: str, layer: nn.Module) -> bool:
        # A subclass of nn.Conv2d may compute something else, so only plain ones are taken.
        return type(layer) is nn.Conv2d and chosen(name, layer)

    model = copy.deepcopy(model)
    names = [name for name, layer in model.named_modules(remove_duplicate=False) if wanted(name, layer)]
    if not names:
        raise ConfigurationError(f"{type(model).__name__} has no plain convolution to convert: expected one of more than one tap")
    return _replace(model, names, lambda layer: _similar(layer, kinds[kind]))


def fold(model: nn.Module, *, partial: bool = False) -> nn.Module:
    """A copy of `model` in which every static similarity layer is the plain convolution of the same output.

    Args:
        model: any module; it is left as it is.
        partial: leave dynamic layers as they are, where they would be refused.

    Raises:
        NotFoldable: there is a dynamic layer; all are named.
    """
    model = copy.deepcopy(model)
    layers = list(model.named_modules(remove_duplicate=False))
    dynamic = [name or type(layer).__name__ for name, layer in layers if isinstance(layer, DynamicSimilarityConv2d)]
    if dynamic and not partial:
        raise NotFoldable(f"layers {', '.join(dynamic)} have a similarity that depends on the input; fold(model, partial=True) leaves them")
    names = [name for name, layer in layers if isinstance(layer, StaticSimilarityConv2d)]
    return _replace(model, names, StaticSimilarityConv2d.fold)


def similarity_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameter M of every static similarity layer, by its name in `model.named_parameters()`."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, StaticSimilarityConv2d)]
    return {f"{name}.M" if name else "M": layer.M for name, layer in layers}


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
