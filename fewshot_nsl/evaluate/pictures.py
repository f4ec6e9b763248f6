"""Pictures of what was learned: M as heat maps, D as kernel shapes, a dynamic M over an input image."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity import DynamicSimilarityConv2d, StaticSimilarityConv2d

if TYPE_CHECKING:  # slow to import, and no evaluation needs it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
"""Layers beside each other."""
LABELLED_TAPS = 12
"""Of more taps than these only the first of each kernel row is labelled."""
_DIVERGING = "RdBu_r"
_Layer = TypeVar("_Layer", bound=nn.Conv2d)


def picture_similarity(model: nn.Module, *, layers: Sequence[str] | None = None) -> "Figure":
    """A heat map of M - I for each static similarity convolution of `model`, or those named in `layers`, on one colour scale.

    White is what a plain convolution has. With a kernel shape, M is D R. The model may be one such layer itself.

    Raises:
        ConfigurationError: the model has no static similarity convolution, or none of such a name.
    """
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, StaticSimilarityConv2d)}
    chosen = _choose(model, found, layers, "static similarity convolution", "convert(model, 'static')")
    changes = {name: _array(layer.similarity()) - np.eye(layer.weight[0, 0].numel()) for name, layer in chosen.items()}
    limit = _largest(changes.values())
    figure, axes = _panels(len(chosen), (2.6, 3.2), "tap of the input (row, column)", "tap of the kernel (row, column)")
    for axis, (name, layer) in zip(axes, chosen.items(), strict=True):
        drawn = axis.imshow(changes[name], interpolation="nearest", cmap=_DIVERGING, vmin=-limit, vmax=limit)
        rows, columns = layer.kernel_size
        taps = range(0, rows * columns, 1 if rows * columns <= LABELLED_TAPS else columns)
        labels = [f"{tap // columns}, {tap % columns}" for tap in taps]
        axis.set_xticks(taps, labels, rotation=90)
        axis.set_yticks(taps, labels)
        _separate(axis, rows, rows)
        axis.set_title(f"{name or type(layer).__name__}\n‖M - I‖ = {np.linalg.norm(changes[name]):.3g}")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="M - I")
    return figure


def picture_kernel_shapes(model: nn.Module, *, layers: Sequence[str] | None = None) -> "Figure":
    """D of each convolution of `model` that learns its kernel's shape, or of those named in `layers`, tap by tap.

    A Boolean D is drawn as filled and empty cells, a continuous one as numbers on one colour scale.

    Raises:
        ConfigurationError: the model has no convolution with a kernel shape, or none of such a name.
    """
    kinds = StaticSimilarityConv2d | DynamicSimilarityConv2d
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds) and layer.kernel_shape is not None}
    chosen = _choose(model, found, layers, "convolution with a kernel shape", "convert(model, 'static', shape_threshold=0.5)")
    learned = {name: layer.kernel_shape for name, layer in chosen.items() if layer.kernel_shape is not None}
    shapes = {name: _array(learned[name]()).reshape(layer.kernel_size) for name, layer in chosen.items()}
    continuous = {name for name, shape in learned.items() if shape.threshold == "continuous"}
    limit = _largest(shapes[name] for name in continuous)
    figure, axes = _panels(len(chosen), (2.0, 2.6), "kernel column", "kernel row")
    for axis, (name, shape) in zip(axes, shapes.items(), strict=True):
        if name in continuous:
            axis.imshow(shape, interpolation="nearest", cmap=_DIVERGING, vmin=-limit, vmax=limit)
            for (row, column), value in np.ndenumerate(shape):
                ink = "white" if abs(value) > 0.6 * limit else "black"
                axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=min(9, 30 / max(shape.shape)))
        else:
            axis.imshow(shape, interpolation="nearest", cmap="Greys", vmin=0, vmax=1.5)
        _separate(axis, *shape.shape)
        axis.set(xticks=range(shape.shape[1]), yticks=range(shape.shape[0]))
        axis.set_title(f"{name or type(chosen[name]).__name__}\n{np.count_nonzero(shape)} of {shape.size} taps left")
    return figure


def picture_dynamic_similarity(model: nn.Module, image: Shaped[Tensor, "*image"], *, layers: Sequence[str] | None = None) -> "Figure":
    """What each dynamic similarity convolution predicts for `image`, at every output location p: ‖M(p) - I‖, and the diagonal of M(p).

    The diagonal is a mosaic: a map for each tap, placed as the tap is in the kernel. The model is run once, without gradients, as in
    evaluation; of a layer that runs several times the first is drawn.

    Args:
        model: takes images `[n, c, h, w]`, as backbones do; or one such layer itself.
        image: `[c, h, w]` as the model takes it; shown in pixel units 0-255, as grey where channels are not three.
        layers: dotted names of those to draw; by default all.

    Raises:
        ConfigurationError: no image, no dynamic similarity convolution, none of such a name, or one that is not reached.
    """
    if image.dim() != 3:
        raise ConfigurationError(f"image has shape {list(image.shape)}: expected one image [c, h, w]; of a batch give images[0]")
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, DynamicSimilarityConv2d)}
    chosen = _choose(model, found, layers, "dynamic similarity convolution", "convert(model, 'dynamic')")
    predicted = _predict(model, image, chosen)
    largest, limit = _largest(norm for norm, _ in predicted.values()), _largest(mosaic - 1 for _, mosaic in predicted.values())
    columns, bands = 1 + min(len(chosen), COLUMNS), -(-len(chosen) // COLUMNS)
    figure = _figure(2.2 * columns, 4.6 * bands)
    grid = figure.add_gridspec(2 * bands, columns)
    shown, legend = (figure.add_subplot(grid[row, 0], xticks=[], yticks=[]) for row in (0, 1))
    pixels = _array(image).clip(0, 255) / 255
    shown.imshow(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels.mean(0), interpolation="nearest", cmap="gray", vmin=0, vmax=1)
    shown.set_title(f"input\n{' x '.join(map(str, pixels.shape[1:]))} pixels")
    for index, (name, layer) in enumerate(chosen.items()):
        band, column = divmod(index, COLUMNS)
        upper, lower = (figure.add_subplot(grid[2 * band + row, 1 + column], xticks=[], yticks=[]) for row in (0, 1))
        norm, mosaic = predicted[name]
        sizes = upper.imshow(norm, interpolation="nearest", cmap="viridis", vmin=0, vmax=largest)
        diagonals = lower.imshow(mosaic, interpolation="nearest", cmap=_DIVERGING, vmin=1 - limit, vmax=1 + limit)
        _separate(lower, *layer.kernel_size)
        upper.set_title(f"{name or type(layer).__name__}\n{' x '.join(map(str, norm.shape))} locations")
    legend.set_axis_off()
    for drawn, label, height in ((sizes, "above: ‖M(p) - I‖", 0.75), (diagonals, "below: diagonal of M(p),\na map for each tap", 0.3)):
        figure.colorbar(drawn, cax=legend.inset_axes((0, height, 1, 0.07)), orientation="horizontal", label=label)
    return figure


def _choose(model: nn.Module, found: dict[str, _Layer], names: Sequence[str] | None, what: str, how: str) -> dict[str, _Layer]:
    if not found:
        raise ConfigurationError(f"{type(model).__name__} has no {what} to draw; make some first: {how}")
    if names is None:
        return found
    wrong = [f"layer '{name}' is no {what} of {type(model).__name__}" for name in names if name not in found]
    if wrong or not names:
        raise ConfigurationError(f"{wrong[0] if wrong else 'layers is empty'}: expected some of {', '.join(map(repr, found))}")
    return {name: found[name] for name in names}


def _predict(model: nn.Module, image: Tensor, layers: Mapping[str, DynamicSimilarityConv2d]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each layer ‖M(p) - I‖ `[h, w]` and the mosaic `[kh * h, kw * w]` of M(p)'s diagonal; the model is left as it was."""
    predicted: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def keep(name: str, layer: DynamicSimilarityConv2d, input: Tensor) -> None:
        if name not in predicted:
            similarity = _array(layer.predict(input)[0])
            dense = similarity.ndim == 4
            change = similarity - (np.eye(len(similarity))[..., None, None] if dense else 1)
            norm = np.sqrt(np.square(change).sum((0, 1) if dense else 0))
            diagonal = np.einsum("iihw->ihw", similarity) if dense else similarity
            in_rows = diagonal.reshape(*layer.kernel_size, *norm.shape).swapaxes(1, 2)
            predicted[name] = norm, in_rows.reshape([k * size for k, size in zip(layer.kernel_size, norm.shape, strict=True)])

    training = {module: module.training for module in model.modules()}
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs, name=name: keep(name, layer, *inputs)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            model.eval()
            model(image[None].to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, was in training.items():
            module.training = was
    missed = [repr(name) for name in layers if name not in predicted]
    if missed:
        raise ConfigurationError(f"the image does not reach layer {', '.join(missed)}: expected layers that the model runs; name others")
    return {name: predicted[name] for name in layers}


def _array(values: Shaped[Tensor, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return values.detach().cpu().double().numpy()


def _largest(arrays: Iterable[np.ndarray]) -> float:
    """The largest magnitude, as the end of a colour scale; 1 where all is zero."""
    return max((float(np.abs(array[np.isfinite(array)]).max(initial=0)) for array in arrays), default=0) or 1.0


def _figure(width: float, height: float) -> "Figure":
    """One that no window and no global state knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="compressed")


def _panels(number: int, size: tuple[float, float], below: str, beside: str) -> tuple["Figure", list["Axes"]]:
    """A grid of them, of this size in inches each; what the axes are stands at the outer ones."""
    columns, rows = min(number, COLUMNS), -(-number // COLUMNS)
    figure = _figure(size[0] * columns + 1, size[1] * rows)
    grid = figure.add_gridspec(rows, columns)
    axes = [figure.add_subplot(grid[index]) for index in range(number)]
    for axis in axes[-columns:]:
        axis.set_xlabel(below)
    for axis in axes[::columns]:
        axis.set_ylabel(beside)
    return figure, axes


def _separate(axis: "Axes", rows: int, columns: int) -> None:
    """Lines that part the image into so many rows and columns."""
    left, right, bottom, top = axis.get_images()[0].get_extent()
    for y in np.linspace(top, bottom, rows + 1)[1:-1]:
        axis.axhline(y, color="black", linewidth=0.6)
    for x in np.linspace(left, right, columns + 1)[1:-1]:
        axis.axvline(x, color="black", linewidth=0.6)
