import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot_nsl.similarity import scratch, similarity_conv2d, tiled
from fewshot_nsl.similarity.scratch import Geometry

GEOMETRY = Geometry((1, 2), (1, 1), (2, 1), 2)
ALL = (True, True, True)


def _draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def _arguments(*, full: bool, n: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """For `GEOMETRY` and a 2x3 kernel: an output of 7x4."""
    return _draw(n, 4, 7, 8), _draw(6, 2, 2, 3), _draw(n, *((6, 6) if full else (6,)), 7, 4)


def _explicit(x: Tensor, weight: Tensor, similarity: Tensor) -> Tensor:
    """Windows of the whole input written out."""
    dense = similarity if similarity.dim() == 5 else torch.diag_embed(similarity.movedim(1, -1)).movedim((-2, -1), (1, 2))
    seen = functional.unfold(x, (2, 3), GEOMETRY.dilation, GEOMETRY.padding, GEOMETRY.stride).view(len(x), 2, 2, 6, 7, 4)
    mixed = torch.einsum("nijhw,ngcjhw->ngcihw", dense, seen)
    return torch.einsum("goci,ngcihw->ngohw", weight.view(2, 3, 2, 6), mixed).flatten(1, 2)


# A row of what the taps see is of 4 * 4 * 6 * 8 = 768 bytes: tiles of a row, of three rows and one left over, of an image, of two images
# and one left over, of everything.
TILES = [1, 3 * 768, 7 * 768, 15 * 768, 10**9]


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
@pytest.mark.parametrize("tile_bytes", TILES)
def test_the_output_does_not_depend_on_the_tiles(tile_bytes: int, *, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scratch._TILE_BYTES, "cpu", tile_bytes)
    values = _arguments(full=full)
    got = tiled.forward(*values, GEOMETRY).permute(0, 3, 1, 2)
    torch.testing.assert_close(got, _explicit(*values), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
@pytest.mark.parametrize("tile_bytes", TILES)
def test_the_gradients_do_not_depend_on_the_tiles(tile_bytes: int, *, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scratch._TILE_BYTES, "cpu", tile_bytes)
    values = _arguments(full=full)
    gradient = _draw(5, 6, 7, 4)
    expected = torch.autograd.grad(_explicit(*(leaves := [value.clone().requires_grad_() for value in values])), leaves, gradient)
    for got, wanted in zip(tiled.backward(gradient, *values, GEOMETRY, ALL), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_arguments_are_left_as_they_are(*, full: bool) -> None:
    values = _arguments(full=full)
    before = [value.clone() for value in values]
    tiled.forward(*values, GEOMETRY)
    tiled.backward(_draw(5, 6, 7, 4), *values, GEOMETRY, ALL)
    assert all(torch.equal(value, was) for value, was in zip(values, before, strict=True))


@pytest.mark.parametrize("place", range(3))
def test_what_is_not_wanted_comes_back_empty(place: int) -> None:
    values = _arguments(full=False)
    wanted = [other == place for other in range(3)]
    got = tiled.backward(_draw(5, 6, 7, 4), *values, GEOMETRY, wanted)
    every = tiled.backward(_draw(5, 6, 7, 4), *values, GEOMETRY, ALL)
    assert [value.numel() > 0 for value in got] == wanted
    torch.testing.assert_close(got[place], every[place], rtol=1e-12, atol=1e-12)


def test_small_shares_of_many_tiles_are_not_lost_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scratch._TILE_BYTES, "cpu", 1)
    ones = torch.ones(1, 1, 1024, 1, dtype=torch.bfloat16)  # in bfloat16 256 + 1 is 256
    plain = Geometry((1, 1), (0, 0), (1, 1), 1)
    _, of_weight, _ = tiled.backward(ones, ones, ones[:, :, :1], ones, plain, ALL)
    assert of_weight.item() == 1024


class _Memory(TorchDispatchMode):
    """Bytes of what is allocated inside: the largest piece, and all that lives at once."""

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.largest, self.peak, self._living = 0, 0, {value.untyped_storage()._cdata: 0 for value in given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in _tensors(result):
            storage = value.untyped_storage()
            place = storage._cdata
            if place in self._living:
                continue
            self._living[place] = storage.nbytes()
            weakref.finalize(storage, self._living.pop, place, None)
            self.largest = max(self.largest, storage.nbytes())
            self.peak = max(self.peak, sum(self._living.values()))
        return result


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for value in result:
            yield from _tensors(value)


def _bytes(*values: Tensor) -> int:
    return sum(value.numel() * value.element_size() for value in values)


def _large(*, full: bool, height: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    taps = (9, 9) if full else (9,)
    return _draw(n, 16, height, 32, dtype=torch.float32), _draw(16, 16, 3, 3, dtype=torch.float32), torch.ones(n, *taps, height, 32)


PLAIN = Geometry((1, 1), (1, 1), (1, 1), 1)


@pytest.mark.parametrize(("height", "n"), [(32, 16), (512, 1)], ids=["many images", "a large image"])
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_what_the_taps_see_is_never_in_memory_at_once(*, full: bool, height: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tile_bytes = 2**18
    monkeypatch.setitem(scratch._TILE_BYTES, "cpu", tile_bytes)
    values = _large(full=full, height=height, n=n)
    seen = 9 * _bytes(values[0])
    with _Memory(*values) as memory:
        output = tiled.forward(*values, PLAIN)
    assert memory.largest <= max(_bytes(output), 1.2 * _bytes(values[0][:1]), tile_bytes)
    # Besides the output: windows and their mixture, M locations first, an image with zeros around.
    assert memory.peak <= _bytes(output) + 3 * tile_bytes + 1.2 * _bytes(values[0][:1])
    assert memory.peak < seen / 2
    with _Memory(output, *values) as memory:
        gradients = tiled.backward(output.permute(0, 3, 1, 2), *values, PLAIN, ALL)
    assert memory.largest <= max(*map(_bytes, gradients), 1.2 * _bytes(values[0][:1]), tile_bytes)
    assert memory.peak <= _bytes(*gradients) + 6 * tile_bytes + 2.4 * _bytes(values[0][:1])


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_memory_besides_output_and_gradients_does_not_grow_with_the_images(*, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scratch._TILE_BYTES, "cpu", 2**18)
    extra = []
    for n in (4, 16):
        values = _large(full=full, height=32, n=n)
        with _Memory(*values) as memory:
            output = tiled.forward(*values, PLAIN)
        forward = memory.peak - _bytes(output)
        with _Memory(output, *values) as memory:
            gradients = tiled.backward(output.permute(0, 3, 1, 2), *values, PLAIN, ALL)
        extra.append((forward, memory.peak - _bytes(*gradients)))
    assert extra[0] == extra[1]


def test_no_more_is_kept_for_the_gradient_than_the_arguments() -> None:
    x, weight, similarity = (value.requires_grad_() for value in _arguments(full=True))
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        output = similarity_conv2d(x, weight, similarity, None, *GEOMETRY)
    assert output.requires_grad
    assert {value.untyped_storage().data_ptr() for value in kept} <= {value.data_ptr() for value in (x, weight, similarity)}
