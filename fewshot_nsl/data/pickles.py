"""Reading other people's pickles without running them: only plain values and numpy arrays are ever built."""

import pickle
from collections.abc import Callable, Mapping
from io import BufferedIOBase
from typing import cast

import numpy as np

from fewshot_nsl.errors import DataError


def load_plain_pickle(file: BufferedIOBase, name: str) -> object:
    """The value in the pickle `file` (of Python 2 or 3): dicts, lists, tuples, text, bytes, numbers and numpy arrays of numbers.

    Text of Python 2 comes as bytes. `name` is the file's, for messages. Read as a
    stream: a large array is in memory once.

    Raises:
        DataError: it is no whole pickle, or it asks for anything else; nothing of it is then run.
    """
    try:
        return _PlainUnpickler(file, name).load()
    except DataError:
        raise
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise DataError(f"{name} is not a whole pickle ({type(error).__name__}: {error}); get a fresh copy, then prepare again") from error


def texts(values: Mapping[object, object]) -> dict[str, object]:
    """The same, with keys as text: those that Python 2 wrote come as bytes; keys of other kinds are left out."""
    return {
        key.decode(errors="replace") if isinstance(key, bytes) else key: value
        for key, value in values.items()
        if isinstance(key, bytes | str)
    }


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: BufferedIOBase, name: str) -> None:
        super().__init__(file, encoding="bytes")
        self._name = name

    def find_class(self, module: str, name: str) -> object:
        """What a pickle may call, instead of whatever it names."""
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"{self._name} is a pickle that asks to run {module}.{name}; expected only numbers, text and arrays, so it was not "
                "opened; get the file from its official home, then prepare again"
            )
        return _ALLOWED[module, name]


class _ArrayType:
    """Stands for `numpy.ndarray` in a pickle, which names the type but must not call it with arguments of its choice."""


_REBUILD = cast("Callable[..., np.ndarray]", np.empty(0).__reduce__()[0])
"""numpy's own rebuilder of pickled arrays, of which numpy has moved the module more than once."""


def _empty_array(kind: type, shape: tuple[int, ...], dtype: bytes) -> np.ndarray:
    """An array that the pickle fills with its state next."""
    if kind is not _ArrayType or shape != (0,):
        raise ValueError("an array starts empty")
    return _REBUILD(np.ndarray, shape, dtype)


def _dtype(code: str | bytes, align: int, copy: int) -> np.dtype:
    """Python 2 wrote the two switches as 0 and 1, which numpy 2.4 warns of."""
    return np.dtype(code if isinstance(code, str) else code.decode("ascii"), align=bool(align), copy=bool(copy))


def _array_from_buffer(buffer: bytes | bytearray, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """How protocol 5 writes an array. numpy refuses a buffer of objects."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _empty_bytes() -> bytes:
    """How Python 3 writes b"" into them."""
    return b""


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into pickles that Python 2 can read."""
    if encoding not in ("latin1", b"latin1"):
        raise ValueError(f"bytes are written as latin1, not as {encoding!r}")
    return text.encode("latin1")


_ALLOWED: Mapping[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.numeric", "_frombuffer"): _array_from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _array_from_buffer,
    ("_codecs", "encode"): _encode_latin1,
    ("__builtin__", "bytes"): _empty_bytes,
}
