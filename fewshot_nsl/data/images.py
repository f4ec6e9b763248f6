"""One image file, or many, decoded to pixels of the size asked for."""

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fewshot_nsl.errors import DataError

File = TypeVar("File")

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Endings, in small letters, of the files that are taken for images."""

_MAX_PIXELS = 2**26
"""Far above any photograph of a dataset, far below what fills a machine's memory."""

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow raises on damaged files, by format."""


def decode_image(file: Path | bytes, size: int, channels: int, name: str = "") -> UInt8[np.ndarray, "{size} {size} {channels}"]:
    """The image in `file` as pixels 0-255, grey (`channels` 1) or RGB (3), resized to `size` x `size` with LANCZOS if it is another size.

    16-bit greys keep their high byte, transparent pixels show white, an EXIF orientation is not applied (the field's habit).

    Args:
        file: its path, or its bytes.
        size: height and width to give, in pixels.
        channels: 1 or 3.
        name: of the file in messages, where bytes are given.

    Raises:
        DataError: the file is missing, empty, truncated, no image, of floating-point pixels, or larger than 2²⁶ pixels.
    """
    name = name or str(file)
    try:
        with Image.open(BytesIO(file) if isinstance(file, bytes) else file) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise DataError(f"{name} has {image.width} x {image.height} pixels, more than {_MAX_PIXELS}; replace it by a smaller image")
            plain = _plain(image).convert("RGB" if channels == 3 else "L")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} has more than {_MAX_PIXELS} pixels; replace it by a smaller image") from error
    except _UNREADABLE as error:
        empty = not file if isinstance(file, bytes) else file.is_file() and file.stat().st_size == 0
        reason = "it is empty" if empty else f"{type(error).__name__}: {error}"
        raise DataError(f"{name} cannot be read as an image ({reason}); put back a whole copy of that file, then prepare again") from error
    if plain.size != (size, size):
        plain = plain.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(plain, dtype=np.uint8).reshape(size, size, channels)


def decode_images(paths: Sequence[Path], size: int, channels: int) -> UInt8[np.ndarray, "n {size} {size} {channels}"]:
    """The images at `paths`, in that order.

    Raises:
        DataError: as `decode_image`, for the first path that fails.
    """
    return decode_each(paths, lambda path: decode_image(path, size, channels), (size, size, channels))


def decode_each(
    files: Sequence[File], decode: Callable[[File], UInt8[np.ndarray, "h w c"]], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "n h w c"]:
    """`decode` of each of `files`, in that order, by a few threads at once (Pillow lets go of the interpreter while it decodes).

    Raises:
        DataError: as `decode`, for the first file that fails.
    """
    images = np.empty((len(files), *shape), dtype=np.uint8)
    threads = min(8, os.cpu_count() or 1)
    step = -(-len(files) // threads) or 1  # a run of files per thread: handing over small images one by one costs more than it saves

    def decode_run(start: int) -> None:
        for row in range(start, min(start + step, len(files))):
            images[row] = decode(files[row])

    with ThreadPoolExecutor(max_workers=threads) as pool:
        for _ in pool.map(decode_run, range(0, len(files), step)):  # in order, so that the first error is the first file's
            pass
    return images


def _plain(image: Image.Image) -> Image.Image:
    """`image` in a mode that Pillow converts to L and RGB without loss of range or of meaning."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("pixels of more than 16 bits have no agreed range")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    return image
