"""Pickles of others, read without running code: numpy arrays, numbers and text in plain containers, nothing else.

Data sets and weights come as pickles, and as ``.npy`` files that hold Python objects. A pickle may name any function
to be called; here only the handful of names that numpy's own arrays need are known, each by a stand-in that checks
its arguments. Everything else is refused by name before it is looked up.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError

_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
)


class _ArrayKind:
    """Stands for ``numpy.ndarray`` as an argument; making one would reserve memory of any size."""

    def __init__(self, *_: Any) -> None:
        raise pickle.UnpicklingError("it holds something other than a plain array")


def _empty_array(kind: Any, shape: Any, type_code: bytes | str) -> npt.NDArray[Any]:
    """Stand-in for numpy's own reconstruction function: an empty array that the pickle then fills."""
    if kind is not _ArrayKind or shape != (0,):
        raise pickle.UnpicklingError("it holds something other than a plain array")
    code = type_code.decode("ascii") if isinstance(type_code, bytes) else type_code
    return np.ndarray(shape, dtype=np.dtype(code))


def _array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    """Stand-in for how pickle protocol 5 stores an array: its bytes, type, shape and order."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject or order not in {"C", "F"}:
        raise pickle.UnpicklingError("it holds something other than a plain array")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order).copy(order=order)


def _scalar(dtype: Any, data: Any = None) -> Any:
    """Stand-in for numpy's single numbers."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(data, bytes | str):
        raise pickle.UnpicklingError("it holds something other than a plain number")
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype=dtype, count=1)[0]


def _bytes_from_text(text: Any, encoding: Any) -> bytes:
    """Stand-in for ``_codecs.encode``, by which old protocols store bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("it encodes something other than bytes")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stand-in for ``bytes()``, by which old protocols store empty bytes; it takes no size."""
    return b""


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _ArrayKind,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _bytes_from_text,
    ("__builtin__", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): OrderedDict,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_from_buffer for core in ("core", "_core")},
}


StandIns = Mapping[tuple[str, str], Callable[..., Any]]
"""What answers, by module and name, for the classes and functions that a pickle asks for."""


class _RestrictedUnpickler(pickle.Unpickler):
    """Knows the names of `_KNOWN`, and those that a caller adds; refuses every other one before it is imported."""

    def __init__(self, stream: BinaryIO, stand_ins: StandIns) -> None:
        super().__init__(stream, encoding="latin1")
        self._known = {**_KNOWN, **stand_ins}

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name."""
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._known[module, name]


def read_pickle(path: Path, *, remedy: str, stand_ins: StandIns | None = None) -> Any:
    """Read a pickle of numpy arrays, numbers and text in dictionaries, lists and tuples.

    Python 2 pickles are read with the latin-1 encoding, as numpy's own are written.

    Args:
        path: the file.
        remedy: what the user can do about a bad file, the end of the error's line.
        stand_ins: harmless answers for more names, such as a library's array class.

    Raises:
        DwmError: no such file, truncated, or it asks for any other class or function (named; nothing of it has run).
    """
    try:
        with path.open("rb") as stream:
            return _load(stream, path, remedy, stand_ins or {})
    except FileNotFoundError as error:
        raise DwmError(f"{path}: no such file; {remedy}") from error
    except OSError as error:
        raise DwmError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error


def read_npy(path: Path, *, remedy: str) -> npt.NDArray[Any]:
    """Read a ``.npy`` file: numbers and text memory-mapped (read-only), Python objects as `read_pickle` does.

    Args:
        path: the file.
        remedy: what the user can do about a bad file, the end of the error's line.

    Raises:
        DwmError: no such file, no ``.npy`` file, truncated, or its objects are refused.
    """
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(stream)
            if dtype.hasobject:
                array = _load(stream, path, remedy, {})
                if not isinstance(array, np.ndarray) or array.shape != shape:
                    raise DwmError(f"{path}: its objects are not the array of shape {shape} that it names; {remedy}")
                return array
        if 0 in shape:  # an empty file region cannot be mapped
            return np.empty(shape, dtype)
        mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DwmError(f"{path}: no such file; {remedy}") from error
    except (OSError, *_BROKEN) as error:
        raise DwmError(f"{path}: not a whole .npy file ({_one_line(error)}); {remedy}") from error
    return mapped


def _load(stream: BinaryIO, path: Path, remedy: str, stand_ins: StandIns) -> Any:
    try:
        return _RestrictedUnpickler(stream, stand_ins).load()
    except _BROKEN as error:
        raise DwmError(
            f"{path}: refused, not a whole pickle of arrays in plain containers ({_one_line(error)}); {remedy}"
        ) from error


def _one_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
