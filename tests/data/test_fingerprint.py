import hashlib

import numpy as np

from fewshot_nsl.data.fingerprint import fingerprint, pixel_digest


def test_the_bytes_that_are_hashed_are_those_of_the_documentation() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    digest = hashlib.sha256(bytes(range(12))).digest()
    assert pixel_digest(image) == digest
    assert pixel_digest(np.asfortranarray(image)) == digest
    text = b"fewshot-nsl store 1\n1 2 2 3\ntrain\0apple\0" + digest
    assert fingerprint((1, 2, 2, 3), [("train", "apple", digest)]) == hashlib.sha256(text).hexdigest()


def test_everything_that_matters_moves_the_fingerprint() -> None:
    row = ("train", "apple", bytes(32))
    others = [("val", "apple", bytes(32)), ("train", "pear", bytes(32)), ("train", "apple", b"\1" * 32)]
    prints = {fingerprint((1, 2, 2, 3), [each]) for each in (row, *others)} | {fingerprint((1, 2, 3, 2), [row])}
    assert len(prints) == 5
