"""What is refused of either library's tasks, through the bridge to torchmeta."""

import pytest
import torch
from torch import Tensor

from fewshot_nsl.errors import DataError, EpisodeError
from fewshot_nsl.interop import from_torchmeta

LABELS = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)


@pytest.fixture
def pixels() -> Tensor:
    """Every value from 0 to 255, in both tasks: uint8 [2, 6, 1, 8, 8]."""
    return (torch.arange(2 * 6 * 64) % 256).to(torch.uint8).reshape(2, 6, 1, 8, 8)


def _take(images: object, labels: object = LABELS, white: int = 255) -> Tensor:
    part = [images, labels]
    return from_torchmeta({"train": part, "test": part}, white=white).query  # type: ignore[dict-item]


def test_whole_numbers_are_taken_whatever_their_type(pixels: Tensor) -> None:
    for dtype in (torch.uint8, torch.int64, torch.float32, torch.float64):
        taken = _take(pixels.to(dtype))
        assert taken.dtype == torch.uint8
        assert torch.equal(taken, pixels)


def test_what_to_tensor_made_comes_back_exactly(pixels: Tensor) -> None:
    assert torch.equal(_take(pixels.float() / 255, white=1), pixels)
    assert torch.equal(_take(pixels.double() / 255, white=1), pixels)


def test_drawings_in_black_and_white_keep_their_white(pixels: Tensor) -> None:
    drawings = pixels // 128
    assert torch.equal(_take(drawings.float(), white=1), drawings * 255)
    with pytest.raises(DataError, match=r"no pixel above 1, .*; pass white=1 if ToTensor made them"):
        _take(drawings.float())


def test_images_all_black_are_images() -> None:
    assert not _take(torch.zeros(2, 6, 1, 8, 8)).any()


@pytest.mark.parametrize("value", [0.5, 254.99, -1.0, 256.0, float("nan"), float("inf")])
def test_one_pixel_that_is_no_whole_number_is_refused(pixels: Tensor, value: float) -> None:
    images = pixels.float()
    images[1, 5, 0, 7, 7] = value
    with pytest.raises(DataError, match=rf"a pixel of {value:g}, expected 0 to 255 .*; pass white=1 if .* take Normalize out"):
        _take(images)


@pytest.mark.parametrize("value", [0.5, 1.1, -0.1])
def test_with_white_at_one_only_steps_of_a_255th_are_taken(pixels: Tensor, value: float) -> None:
    images = pixels.float() / 255
    images[0, 0, 0, 0, 0] = value
    with pytest.raises(DataError, match=rf"a pixel of {value}, expected 0 to 1 \(white\)"):
        _take(images, white=1)


def test_images_of_another_shape_are_refused(pixels: Tensor) -> None:
    with pytest.raises(DataError, match=r"shape \[6, 1, 8, 8\], expected a tensor \[tasks, n, c, h, w\]"):
        _take(pixels[0])


def test_what_is_no_tensor_of_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"have the type list, expected a tensor .* add ToTensor"):
        _take([["a picture"]])


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ([["ash", "elm"]], "labels are list"),
        (LABELS.float(), "labels are torch.float32"),
        (LABELS[:, :5], r"labels have shape \[2, 5\], expected one for each of \[2, 6\] images"),
        (LABELS + 1, "a task has the labels 1, 2, 3: expected 0 to way - 1"),
        (LABELS - 1, "a task has the labels -1, 0, 1: expected 0 to way - 1"),
        (torch.stack([LABELS[0], LABELS[0] % 2]), "a task has the labels 0, 1: expected 0 to way - 1, as many in every task"),
    ],
)
def test_labels_that_do_not_count_the_ways_are_refused(pixels: Tensor, labels: object, what: str) -> None:
    with pytest.raises(EpisodeError, match=what):
        _take(pixels, labels)


def test_no_image_is_refused(pixels: Tensor) -> None:
    with pytest.raises(EpisodeError, match=r"labels have shape \[2, 0\]"):
        _take(pixels[:, :0], LABELS[:, :0])
