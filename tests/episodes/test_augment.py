from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.episodes import augment
from fewshot_nsl.episodes.colour import change_colour

SIZE, MARGIN = 16, 2


@pytest.fixture
def images() -> Tensor:
    return torch.randint(1, 256, (60, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _windows(image: Tensor) -> dict[tuple[int, int], Tensor]:
    """Every window of the padded image, by its shift."""
    padded = functional.pad(image, (MARGIN,) * 4)
    shifts = range(2 * MARGIN + 1)
    return {(row, column): padded[:, row : row + SIZE, column : column + SIZE] for row in shifts for column in shifts}


def test_without_kinds_nothing_changes(images: Tensor) -> None:
    assert torch.equal(augment(images, (), _random()), images)


def test_flip_mirrors_about_half_of_the_images(images: Tensor) -> None:
    changed = augment(images, ("flip",), _random())
    mirrored = [torch.equal(after, before.flip(2)) for before, after in zip(images, changed, strict=True)]
    kept = [torch.equal(after, before) for before, after in zip(images, changed, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 20 < sum(mirrored) < 40


def test_crop_takes_a_window_of_the_padded_image(images: Tensor) -> None:
    found = []
    for before, after in zip(images, augment(images, ("crop",), _random()), strict=True):
        found += [shift for shift, window in _windows(before).items() if torch.equal(after, window)]
    assert len(found) == len(images)
    assert {row for row, _ in found} == {column for _, column in found} == set(range(2 * MARGIN + 1))
    assert len(set(found)) > 15  # rows and columns move independently


def test_crop_and_flip_go_together(images: Tensor) -> None:
    mirrored = 0
    for before, after in zip(images, augment(images, ("flip", "crop"), _random()), strict=True):
        upright = any(torch.equal(after, window) for window in _windows(before).values())
        flipped = any(torch.equal(after.flip(2), window) for window in _windows(before).values())
        assert upright != flipped
        mirrored += flipped
    assert 20 < mirrored < 40


def test_the_generator_alone_decides(images: Tensor) -> None:
    kinds = ("crop", "flip")
    first = augment(images, kinds, _random(1))
    torch.rand(7)
    assert torch.equal(augment(images, kinds, _random(1)), first)
    assert not torch.equal(augment(images, kinds, _random(2)), first)


def test_the_images_given_stay_and_the_layout_is_the_networks(images: Tensor) -> None:
    before = images.clone()
    changed = augment(images, ("crop", "flip"), _random())
    assert torch.equal(images, before)
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert changed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kinds", [kinds for count in range(4) for kinds in combinations(("crop", "flip", "colour"), count)], ids="+".join)
def test_choices_come_in_one_order_so_that_a_resumed_run_sees_the_same_images(images: Tensor, kinds: tuple[str, ...]) -> None:
    changed, generator, n = augment(images, kinds, _random(3)), _random(3), len(images)
    flipped = torch.rand(n, 1, generator=generator) < 0.5 if "flip" in kinds else torch.zeros(n, 1)
    shift = torch.randint(0, 2 * MARGIN + 1, (2, n, 1), generator=generator) if "crop" in kinds else torch.full((2, n, 1), MARGIN)
    if "colour" in kinds:
        images = change_colour(images, 0.6 + 0.8 * torch.rand(n, 3, generator=generator))
    for i, image in enumerate(images):
        window = _windows(image)[int(shift[0, i]), int(shift[1, i])]
        expected = window.flip(2) if flipped[i] else window
        assert int((changed[i].int() - expected.int()).abs().max()) <= ("colour" in kinds)  # the factors are rounded in another order


def test_colour_takes_factors_of_its_own_for_each_image(images: Tensor) -> None:
    flat = torch.full_like(images, 100)  # its contrast and saturation are nothing: brightness alone shows
    levels = augment(flat, ("colour",), _random())[:, 0, 0, 0].tolist()
    assert min(levels) >= 60
    assert max(levels) <= 140
    assert max(levels) - min(levels) > 60
    assert len(set(levels)) > 30


def test_the_padding_stays_black(images: Tensor) -> None:
    bright = torch.full_like(images, 200)
    windows = augment(bright, ("crop",), _random(6))
    coloured = augment(bright, ("crop", "colour"), _random(6))
    assert torch.equal(windows == 0, coloured == 0)
