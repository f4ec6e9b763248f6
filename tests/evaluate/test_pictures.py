import subprocess
import sys
from io import BytesIO
from typing import Literal

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from fewshot_nsl.backbones import CNN4
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.evaluate.pictures import COLUMNS, picture_dynamic_similarity, picture_kernel_shapes, picture_similarity
from fewshot_nsl.similarity import STRUCTURES, DynamicSimilarityConv2d, StaticSimilarityConv2d, convert


def _net() -> nn.Module:
    """Kernels of several sizes, not all square."""
    return nn.Sequential(nn.Conv2d(3, 4, (3, 5), padding=(1, 2)), nn.BatchNorm2d(4), nn.Conv2d(4, 4, (1, 3), stride=2), nn.Conv2d(4, 2, 2))


def _shaken(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def _panels(figure: Figure) -> dict[str, Axes]:
    """By the first line of their titles; those without (mosaics, colour bars) are left out."""
    return {axis.get_title().split("\n")[0]: axis for axis in figure.axes if axis.get_title()}


def _values(axis: Axes) -> np.ndarray:
    (image,) = axis.get_images()
    return np.asarray(image.get_array())


def _mosaics(figure: Figure) -> list[np.ndarray]:
    return [_values(axis) for axis in figure.axes if axis.get_images() and not axis.get_title()]


def _image(channels: int = 3) -> Tensor:
    return torch.rand(channels, 14, 16, generator=torch.Generator().manual_seed(0)) * 255


def _locations(layer: DynamicSimilarityConv2d, input: Tensor) -> Tensor:
    """M written out at every location, `[h, w, K, K]`, of the first image."""
    predicted = layer.predict(input)[0].detach().double()
    return torch.diag_embed(predicted.permute(1, 2, 0)) if predicted.dim() == 3 else predicted.permute(2, 3, 0, 1)


@pytest.mark.parametrize("shape_threshold", [None, 0.9])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_static_panels_hold_what_m_adds_to_the_identity(structure: str, shape_threshold: float | None) -> None:
    model = _shaken(convert(_net(), "static", structure=structure, shape_threshold=shape_threshold))
    figure = picture_similarity(model)
    panels = _panels(figure)
    assert list(panels) == ["0", "2", "3"]
    assert len(figure.axes) == 3 + 1  # the colour bar
    limits = set()
    for name, axis in panels.items():
        matrix = model.get_submodule(name).similarity().detach().double()  # type: ignore[operator]
        change = matrix - torch.eye(len(matrix), dtype=torch.float64)
        np.testing.assert_array_equal(_values(axis), change.numpy())
        assert axis.get_title() == f"{name}\n‖M - I‖ = {change.norm():.3g}"
        limits.add(axis.get_images()[0].get_clim())
    ((low, high),) = limits  # one scale, white at 0
    assert -low == high == max(np.abs(_values(axis)).max() for axis in panels.values())


def test_taps_are_labelled_by_their_place_in_the_kernel() -> None:
    panels = _panels(picture_similarity(convert(_net(), "static")))
    assert [label.get_text() for label in panels["2"].get_xticklabels()] == ["0, 0", "0, 1", "0, 2"]
    assert [label.get_text() for label in panels["3"].get_yticklabels()] == ["0, 0", "0, 1", "1, 0", "1, 1"]
    many = panels["0"]  # 15 taps: the first of each kernel row
    assert dict(zip(many.get_yticks(), [label.get_text() for label in many.get_yticklabels()], strict=True)) == {
        0: "0, 0",
        5: "1, 0",
        10: "2, 0",
    }


def test_an_untrained_m_is_white() -> None:
    (axis, _) = picture_similarity(convert(nn.Conv2d(1, 1, 3), "static")).axes
    assert not _values(axis).any()
    assert axis.get_images()[0].get_clim() == (-1, 1)


def test_a_boolean_shape_is_filled_and_empty_cells() -> None:
    model = convert(_net(), "static", shape_threshold=0.5)
    layer = model.get_submodule("0")
    assert isinstance(layer, StaticSimilarityConv2d)
    assert layer.kernel_shape is not None
    layer.kernel_shape.D_r.data[[0, 7, 14]] = 0.2
    figure = picture_kernel_shapes(model)
    panels = _panels(figure)
    assert len(figure.axes) == 3
    assert {axis.get_title() for axis in figure.axes} == {"0\n12 of 15 taps left", "2\n3 of 3 taps left", "3\n4 of 4 taps left"}
    np.testing.assert_array_equal(_values(panels["0"]), [[0, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 1, 0]])
    assert _values(panels["2"]).shape == (1, 3)


def test_a_continuous_shape_has_its_numbers() -> None:
    model = _shaken(convert(_net(), "dynamic", shape_threshold="continuous"))
    for name, axis in _panels(picture_kernel_shapes(model)).items():
        layer = model.get_submodule(name)
        assert isinstance(layer, DynamicSimilarityConv2d)
        assert layer.kernel_shape is not None
        shape = layer.kernel_shape.D_r.detach().double().view(layer.kernel_size)
        np.testing.assert_array_equal(_values(axis), shape.numpy())
        assert [text.get_text() for text in axis.texts] == [f"{value:.2f}" for value in shape.flatten()]


@pytest.mark.parametrize("shape_threshold", [None, "continuous"])
@pytest.mark.parametrize("structure", ["diagonal", "unconstrained"])
def test_dynamic_panels_hold_what_is_predicted(structure: str, shape_threshold: Literal["continuous"] | None) -> None:
    model = _shaken(convert(_net(), "dynamic", structure=structure, shape_threshold=shape_threshold)).eval()
    figure = picture_dynamic_similarity(model, _image())
    panels, mosaics = _panels(figure), iter(_mosaics(figure))
    assert list(panels) == ["input", "0", "2", "3"]
    seen = _image()[None]
    for name, layer in model.named_children():
        if isinstance(layer, DynamicSimilarityConv2d):
            similarity, mosaic = _locations(layer, seen), next(mosaics)
            h, w, taps, _ = similarity.shape
            assert panels[name].get_title() == f"{name}\n{h} x {w} locations"
            norm = (similarity - torch.eye(taps)).flatten(2).norm(dim=-1)
            np.testing.assert_allclose(_values(panels[name]), norm.numpy(), rtol=1e-4)
            for tap in range(taps):
                row, column = divmod(tap, layer.kernel_size[1])
                part = mosaic[row * h : (row + 1) * h, column * w : (column + 1) * w]
                np.testing.assert_allclose(part, similarity[..., tap, tap].numpy(), rtol=1e-4)
        seen = layer(seen).detach()
    assert list(mosaics) == []


def test_the_input_is_shown_as_it_is() -> None:
    torch.manual_seed(0)
    backbone = convert(CNN4(16, 3, width=4, mean=[100.0] * 3, std=[50.0] * 3), "dynamic")
    image = torch.randint(0, 256, (3, 16, 20), dtype=torch.uint8)
    shown = _panels(picture_dynamic_similarity(backbone, image))["input"]
    np.testing.assert_allclose(_values(shown), image.permute(1, 2, 0).numpy() / 255)
    assert shown.get_title() == "input\n16 x 20 pixels"
    grey = _panels(picture_dynamic_similarity(convert(nn.Conv2d(2, 1, 3), "dynamic"), _image(2)))["input"]
    np.testing.assert_allclose(_values(grey), _image(2).double().mean(0).numpy() / 255)


def test_layers_are_drawn_as_named() -> None:
    static, dynamic = convert(_net(), "static", shape_threshold=0.5), convert(_net(), "dynamic")
    assert list(_panels(picture_similarity(static, layers=["3", "0"]))) == ["3", "0"]
    assert list(_panels(picture_kernel_shapes(static, layers=["2"]))) == ["2"]
    assert list(_panels(picture_dynamic_similarity(dynamic, _image(), layers=["3"]))) == ["input", "3"]


def test_a_layer_itself_is_named_by_its_kind() -> None:
    static = convert(nn.Conv2d(3, 2, 3), "static", shape_threshold=0.5)
    dynamic = convert(nn.Conv2d(3, 2, 3), "dynamic")
    assert list(_panels(picture_similarity(static))) == ["StaticSimilarityConv2d"]
    assert list(_panels(picture_kernel_shapes(static, layers=[""]))) == ["StaticSimilarityConv2d"]
    assert list(_panels(picture_dynamic_similarity(dynamic, _image()))) == ["input", "DynamicSimilarityConv2d"]


def test_many_layers_stand_in_several_rows() -> None:
    plain = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(COLUMNS + 2)))
    names = [str(i) for i in range(COLUMNS + 2)]
    figures = picture_similarity(convert(plain, "static")), picture_dynamic_similarity(convert(plain, "dynamic"), _image())
    for figure in figures:
        places = []
        for name in names:
            spec = _panels(figure)[name].get_subplotspec()
            assert spec is not None
            places.append((spec.rowspan.start, spec.colspan.start))
        assert len(set(places)) == len(names)
        assert places[COLUMNS][1] == places[0][1]


def test_the_first_pass_of_a_layer_is_drawn() -> None:
    layer = _shaken(DynamicSimilarityConv2d(3, 3, 3, padding=1))
    twice = nn.Sequential(layer, nn.ReLU(), layer)
    once, again = (picture_dynamic_similarity(model, _image()) for model in (layer, twice))
    np.testing.assert_array_equal(_mosaics(once), _mosaics(again))


def test_the_model_stays_as_it_was() -> None:
    model = _shaken(convert(_net(), "dynamic", shape_threshold=0.5)).train()
    model.get_submodule("1").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training = [module.training for module in model.modules()]
    picture_dynamic_similarity(model, _image())
    picture_kernel_shapes(model)
    with pytest.raises(RuntimeError, match="broken"):
        picture_dynamic_similarity(nn.Sequential(model, _Broken()), _image())
    assert [module.training for module in model.modules()] == training
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pictures_can_be_saved() -> None:
    static, dynamic = convert(_net(), "static", shape_threshold=0.5), convert(_net(), "dynamic")
    for figure in (picture_similarity(static), picture_kernel_shapes(static), picture_dynamic_similarity(dynamic, _image())):
        for kind in ("png", "svg"):
            buffer = BytesIO()
            figure.savefig(buffer, format=kind)
            assert len(buffer.getvalue()) > 1000


def test_models_without_such_a_layer_are_refused() -> None:
    plain, dynamic = _net(), convert(_net(), "dynamic")
    with pytest.raises(
        ConfigurationError, match=r"^Sequential has no static similarity convolution to draw; .*convert\(model, 'static'\)$"
    ):
        picture_similarity(dynamic)
    with pytest.raises(ConfigurationError, match=r"^Sequential has no convolution with a kernel shape to draw; .*shape_threshold=0.5\)$"):
        picture_kernel_shapes(dynamic)
    with pytest.raises(
        ConfigurationError, match=r"^Sequential has no dynamic similarity convolution to draw; .*convert\(model, 'dynamic'\)$"
    ):
        picture_dynamic_similarity(plain, _image())


def test_wrong_names_and_images_are_refused() -> None:
    static, dynamic = convert(_net(), "static"), convert(_net(), "dynamic")
    with pytest.raises(
        ConfigurationError, match=r"^layer '1' is no static similarity convolution of Sequential: expected some of '0', '2', '3'$"
    ):
        picture_similarity(static, layers=["0", "1"])
    with pytest.raises(ConfigurationError, match=r"^layers is empty: expected some of '0', '2', '3'$"):
        picture_dynamic_similarity(dynamic, _image(), layers=())
    with pytest.raises(ConfigurationError, match=r"^image has shape \[1, 3, 14, 16\]: expected one image \[c, h, w\]"):
        picture_dynamic_similarity(dynamic, _image()[None])


class _Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError(f"broken for {tuple(images.shape)}")


class _HalfUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = (convert(nn.Conv2d(3, 2, 3), "dynamic") for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        return self.used(images)


def test_a_layer_that_does_not_run_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^the image does not reach layer 'spare': expected layers that the model runs"):
        picture_dynamic_similarity(_HalfUsed(), _image())
    assert list(_panels(picture_dynamic_similarity(_HalfUsed(), _image(), layers=["used"]))) == ["input", "used"]


def test_importing_loads_no_plotting() -> None:
    code = "import sys, fewshot_nsl.evaluate.pictures; sys.exit(any(name.startswith('matplotlib.figure') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
