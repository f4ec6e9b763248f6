"""The fingerprint: one SHA-256 over a store's pixels and index, equal wherever these are equal, whatever the files hold besides."""

import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8


def pixel_digest(image: UInt8[np.ndarray, "h w c"]) -> bytes:
    """SHA-256 (32 bytes) of an image's pixels, row by row, channels last."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


def fingerprint(shape: tuple[int, int, int, int], rows: Iterable[tuple[str, str, bytes]]) -> str:
    r"""Hexadecimal SHA-256 of a store of `shape` (n, h, w, c) whose `rows` are (split, class name, pixel digest).

    The bytes hashed are, in UTF-8: `fewshot-nsl store 1\n`, then `n h w c\n` in decimal, then for each row
    `split`, a zero byte, `class name`, a zero byte, and the 32 bytes of the digest.
    """
    hasher = hashlib.sha256(b"fewshot-nsl store 1\n")
    hasher.update(" ".join(map(str, shape)).encode() + b"\n")
    for split, name, digest in rows:
        hasher.update(split.encode() + b"\0" + name.encode() + b"\0" + digest)
    return hasher.hexdigest()
