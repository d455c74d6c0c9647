"""Numpy archives (npz) written whole, with the same bytes for the same arrays, and read without pickle."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.atomic import atomic_path
from manifests.errors import DwmError

Array = npt.NDArray[np.generic]

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip file can hold: no clock gets into the bytes."""


def write_npz(path: Path, arrays: Mapping[str, npt.ArrayLike], *, compress_level: int = 6) -> None:
    """Write named arrays to a compressed npz, atomically; the bytes depend on the names, values and order only.

    Args:
        path: the file to write; missing folders are made.
        arrays: arrays by name; numbers become arrays without axes.
        compress_level: zlib level from 1 (fast) to 9 (small).

    Raises:
        DwmError: an array holds Python objects, or the file cannot be written.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, value in arrays.items():
            array = np.asarray(value)
            if array.dtype.hasobject:
                raise DwmError(f"{path}: array '{name}' holds Python objects; only numbers and text can be written")
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=compress_level)


def read_npz(path: Path, required: Iterable[str] = ()) -> dict[str, Array]:
    """Read every array of an npz file; pickled contents are refused.

    Raises:
        DwmError: the file is missing, broken, holds pickled objects or lacks a required array.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DwmError(f"{path}: no such file; check the path") from error
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DwmError(f"{path}: not a plain numpy archive ({reason}); make or copy the file again") from error
    missing = [name for name in required if name not in arrays]
    if missing:
        raise DwmError(f"{path}: lacks the arrays {', '.join(missing)}; it holds {', '.join(sorted(arrays)) or 'none'}")
    return arrays
