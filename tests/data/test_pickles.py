import os
import pickle
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from fewshot_nsl.data.pickles import load_plain_pickle
from fewshot_nsl.errors import DataError


def _load(data: bytes, name: str) -> object:
    return load_plain_pickle(BytesIO(data), name)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_arrays(protocol: int) -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    value = {b"data": array, b"labels": [1, 2], b"names": [b"a", b""], "text": ("é", 1.5, None, True)}
    loaded = _load(pickle.dumps(value, protocol=protocol), "file")
    assert isinstance(loaded, dict)
    np.testing.assert_array_equal(loaded[b"data"], array)
    assert {key: loaded[key] for key in value if key != b"data"} == {key: value[key] for key in value if key != b"data"}


def test_an_array_in_columns_keeps_its_shape() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    for protocol in (2, 5):
        np.testing.assert_array_equal(_load(pickle.dumps(array, protocol=protocol), "file"), array)


def test_a_pickle_of_python_2() -> None:
    # What cPickle of Python 2.7 with numpy 1.7 writes for numpy.array([1, 2, 3], dtype="uint8"), as in the official archive.
    text = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\x01\x02\x03tb."
    )
    loaded = _load(text, "file")
    np.testing.assert_array_equal(loaded, np.array([1, 2, 3], dtype=np.uint8))


class _Touch:
    """A pickle of this makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_hostile_pickle_runs_nothing_and_names_what_it_asked_for(tmp_path: Path) -> None:
    data = pickle.dumps({b"data": _Touch(tmp_path / "touched")})
    with pytest.raises(DataError, match=rf"train is a pickle that asks to run {os.system.__module__}.system"):
        _load(data, "train")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (pickle.dumps(OrderedDict()), "collections.OrderedDict"),
        (pickle.dumps(Path("/tmp")), "Posix|Path"),
        (b"cbuiltins\neval\n(S'1+1'\ntR.", "builtins.eval"),
        (b"cnumpy\nload\n(S'/etc/passwd'\ntR.", "numpy.load"),
        (b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.tofile.x\x93.", "numpy.ndarray.tofile"),
    ],
)
def test_anything_else_is_refused(data: bytes, asked: str) -> None:
    with pytest.raises(DataError, match=asked):
        _load(data, "file")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2, 3])[:-3],
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        b"cnumpy\nndarray\n(K\x05tR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85U\x01btR.",
    ],
)
def test_a_broken_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="file is not a whole pickle"):
        _load(data, "file")


def test_no_cut_or_flipped_pickle_ends_in_anything_but_a_refusal() -> None:
    whole = pickle.dumps({b"data": np.arange(4, dtype=np.uint8), b"labels": [1, 2]}, protocol=2)
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            _load(bytes(data[: rng.integers(1, len(data) + 1)]), "file")
        except DataError:
            continue
