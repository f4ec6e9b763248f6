from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_nsl.data.images import decode_image, decode_images
from fewshot_nsl.errors import DataError

GRADIENT = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def test_pixels_of_the_right_size_come_back_exactly(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png", 8, 3), image)


def test_another_size_is_resized_with_lanczos(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png", 8, 3), np.asarray(image.resize((8, 8), Image.Resampling.LANCZOS)))


def test_grey_becomes_rgb_and_rgb_becomes_grey(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([GRADIENT] * 3, axis=2)).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "grey.png", 8, 3), np.stack([GRADIENT] * 3, axis=2))
    np.testing.assert_array_equal(decode_image(tmp_path / "rgb.png", 8, 1), GRADIENT[:, :, None])


def test_16_bits_keep_their_high_byte(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT.astype(np.uint16) * 256 + 17).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png", 8, 1), GRADIENT[:, :, None])


def test_palette_cmyk_and_one_bit(tmp_path: Path) -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    red.convert("P").save(tmp_path / "palette.png")
    red.convert("CMYK").save(tmp_path / "cmyk.tiff")
    Image.new("1", (8, 8), 1).save(tmp_path / "bit.png")
    for name in ("palette.png", "cmyk.tiff"):
        assert decode_image(tmp_path / name, 8, 3)[0, 0].tolist() == [255, 0, 0]
    assert decode_image(tmp_path / "bit.png", 8, 1)[0, 0].tolist() == [255]


def test_a_cmyk_photograph_is_read_in_its_colours(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    red, green, blue = decode_image(tmp_path / "a.jpg", 8, 3)[0, 0].tolist()
    assert red > 250
    assert max(green, blue) < 5


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.jpg", 8, 1), GRADIENT[:, :, None])
    np.testing.assert_array_equal(decode_image(content, 8, 1), GRADIENT[:, :, None])


@pytest.mark.parametrize(("content", "reason"), [(b"", "it is empty"), (b"no image", "UnidentifiedImageError")])
def test_damaged_bytes_are_refused_by_the_name_given(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=rf"a.zip/b.png cannot be read as an image \({reason}"):
        decode_image(content, 8, 1, "a.zip/b.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_show_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    image.save(tmp_path / "a.png", transparency=bytes(256) if mode == "P" else None)
    assert decode_image(tmp_path / "a.png", 8, 3)[0, 0].tolist() == [255, 255, 255]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    damaged = {"truncated.jpg": whole[: len(whole) // 2], "empty.jpg": b"", "text.jpg": b"not an image", "header.jpg": whole[:20]}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} cannot be read as an image \(.*\); put back a whole copy"):
            decode_image(tmp_path / name, 64, 3)
    with pytest.raises(DataError, match=r"empty.jpg .*it is empty"):
        decode_image(tmp_path / "empty.jpg", 64, 3)
    with pytest.raises(DataError, match=r"absent.jpg cannot be read .*No such file"):
        decode_image(tmp_path / "absent.jpg", 64, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    for share in range(20):
        path.write_bytes(content[: len(content) * share // 20])
        with pytest.raises(DataError, match=rf"a.{suffix} cannot be read"):
            decode_image(path, 32, 1)


@pytest.mark.parametrize("side", [8200, 10000, 20000])
def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"bomb.png has .*more than 67108864"):
        decode_image(tmp_path / "bomb.png", 8, 1)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT.astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="floating-point"):
        decode_image(tmp_path / "a.tiff", 8, 1)


def test_many_keep_their_order_and_the_first_damaged_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(50)]
    for i, path in enumerate(paths):
        Image.new("L", (4, 4), i).save(path)
    assert decode_images(paths, 4, 1)[:, 0, 0, 0].tolist() == list(range(50))
    for i in (45, 30, 31):
        paths[i].write_bytes(b"")
    with pytest.raises(DataError, match=r"30\.png"):
        decode_images(paths, 4, 1)


def test_no_image_at_all() -> None:
    assert decode_images([], 4, 3).shape == (0, 4, 4, 3)
