import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from fewshot_nsl.episodes.colour import change_colour


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _smooth(n: int) -> Tensor:
    """Images of large spots in strong colours, from black to white."""
    coarse = torch.rand(n, 3, 4, 4, generator=_random())
    return (torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear") * 300 - 20).clamp(0, 255).to(torch.uint8)


@pytest.fixture
def images() -> Tensor:
    return torch.cat([torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=_random()), _smooth(40)])


@pytest.fixture
def factors() -> Tensor:
    return 0.6 + 0.8 * torch.rand(80, 3, generator=_random(1))


def _pil(image: Tensor, factors: Tensor) -> np.ndarray:
    picture = Image.fromarray(image.movedim(0, -1).numpy())
    for change, factor in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors.tolist(), strict=True):
        picture = change(picture).enhance(factor)
    return np.asarray(picture).transpose(2, 0, 1)


def test_every_image_is_as_pil_makes_it(images: Tensor, factors: Tensor) -> None:
    changed = change_colour(images, factors).numpy()
    distance = np.stack([_pil(image, own) for image, own in zip(images, factors, strict=True)]).astype(int) - changed
    # PIL cuts the fraction off after each of the three steps, and the later ones may stretch what is lost.
    assert np.abs(distance).max() <= 5
    assert np.abs(distance).mean() < 1.5


@pytest.mark.parametrize("which", range(3), ids=["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.4])
def test_one_change_alone_is_pils_within_one_level(images: Tensor, which: int, factor: float) -> None:
    factors = torch.ones(80, 3)
    factors[:, which] = factor
    expected = np.stack([_pil(image, own) for image, own in zip(images, factors, strict=True)])
    assert np.abs(expected.astype(int) - change_colour(images, factors).numpy()).max() <= 1


def test_results_are_rounded_to_the_nearest_level() -> None:
    image = torch.tensor([101, 7, 252], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 2, 2)
    darker = change_colour(image, torch.tensor([[0.6, 1.0, 1.0]]).expand(3, 3))  # 60.6, 4.2 and 151.2
    assert darker[:, 0, 0, 0].tolist() == [61, 4, 151]


def test_grey_is_weighed_as_in_itu_601() -> None:
    primaries = (252 * torch.eye(3)).to(torch.uint8)[:, :, None, None].expand(3, 3, 2, 2)
    grey = change_colour(primaries, torch.tensor([[1.0, 1.0, 0.0]]).expand(3, 3))  # 75.35, 147.92 and 28.73
    assert grey[:, :, 0, 0].tolist() == [[75] * 3, [148] * 3, [29] * 3]


def test_factors_of_one_change_nothing(images: Tensor) -> None:
    assert torch.equal(change_colour(images, torch.ones(80, 3)), images)


def test_an_image_does_not_depend_on_the_others(images: Tensor, factors: Tensor) -> None:
    together = change_colour(images, factors)
    assert all(torch.equal(change_colour(images[i : i + 1], factors[i : i + 1])[0], together[i]) for i in range(80))


def test_grey_images_have_no_saturation(images: Tensor, factors: Tensor) -> None:
    grey = images[:, :1]
    changed = change_colour(grey, factors)
    unsaturated = factors.clone()
    unsaturated[:, 2] = 1
    assert torch.equal(changed, change_colour(grey, unsaturated))
    for image, after, own in zip(grey, changed, factors, strict=True):
        expected = Image.fromarray(image[0].numpy())
        for change, factor in zip((ImageEnhance.Brightness, ImageEnhance.Contrast), own.tolist()[:2], strict=True):
            expected = change(expected).enhance(factor)
        assert np.abs(np.asarray(expected).astype(int) - after[0].numpy()).max() <= 3


def test_the_images_given_stay_and_their_layout_too(images: Tensor, factors: Tensor) -> None:
    images = images.contiguous(memory_format=torch.channels_last)
    before = images.clone()
    changed = change_colour(images, factors)
    assert torch.equal(images, before)
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert changed.is_contiguous(memory_format=torch.channels_last)
