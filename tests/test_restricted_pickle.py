from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.errors import DwmError
from manifests.restricted_pickle import read_npy, read_pickle

REMEDY = "download it again"


class _Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def _pickled(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_numbers_and_text_in_plain_containers_come_back_with_every_protocol(
    tmp_path: Path, protocol: int
) -> None:
    value: dict[str, Any] = {
        "floats": np.arange(6.0).reshape(2, 3),
        "turned": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(3, 2)),
        "names": np.array(["cup_01", "ü"]),
        "flags": [np.array([True, False]), (1, 2.5, None, "text", b"bytes")],
        "scalar": np.float32(1.5),
        "empty": np.zeros((0,), np.float32),
        "ordered": collections.OrderedDict(a=1),
        "objects": np.array([{"inner": np.ones(2)}, "x"], dtype=object),
    }
    loaded = read_pickle(_pickled(tmp_path / "a.pkl", value, protocol), remedy=REMEDY)
    assert loaded.keys() == value.keys()
    for name in ("floats", "turned", "names", "scalar", "empty"):
        assert np.array_equal(loaded[name], value[name]), name
        assert loaded[name].dtype == value[name].dtype, name
    assert np.array_equal(loaded["flags"][0], [True, False])
    assert loaded["flags"][1] == (1, 2.5, None, "text", b"bytes")
    assert loaded["ordered"] == {"a": 1}
    assert np.array_equal(loaded["objects"][0]["inner"], np.ones(2))


def test_arrays_pickled_by_python_2_are_read(tmp_path: Path) -> None:
    # What Python 2 wrote for np.array([1.0, 2.0]): protocol 2, bytes as latin-1 text.
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03(K\x01K\x02"
        b"\x85cnumpy\ndtype\nq\x04U\x02f8K\x00K\x01\x87Rq\x05(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x10\x00\x00\x00\x00\x00\x00\xf0?\x00\x00\x00\x00\x00\x00\x00@tb."
    )
    path = tmp_path / "old.pkl"
    path.write_bytes(data)
    assert read_pickle(path, remedy=REMEDY).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_is_refused_by_name_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    path = _pickled(tmp_path / "evil.pkl", {"transl": _Call(os.mkdir, str(marker))}, protocol)
    with pytest.raises(DwmError, match=r"evil\.pkl: refused.*(posix|nt)\.mkdir.*download it again"):
        read_pickle(path, remedy=REMEDY)
    assert not marker.exists()


def test_malicious_objects_in_an_npy_file_are_refused_by_name_and_nothing_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "evil.npy"
    np.save(path, np.array({"cup": _Call(os.mkdir, str(marker))}, dtype=object), allow_pickle=True)
    with pytest.raises(DwmError, match=r"evil\.npy: refused.*mkdir"):
        read_npy(path, remedy=REMEDY)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (_Call(eval, "1"), "builtins.eval"),
        (_Call(getattr, "a", "join"), "builtins.getattr"),
        (_Call(np.load, "x.npy"), "numpy.load"),
        (_Call(pickle.loads, b"N."), "_pickle.loads"),
        (Path("x"), "pathlib"),
        (_Call(np.ndarray, (10**15,)), "something other than a plain array"),
    ],
)
def test_each_other_class_or_function_is_named(tmp_path: Path, call: Any, named: str) -> None:
    with pytest.raises(DwmError, match=named.replace(".", r"\.")):
        read_pickle(_pickled(tmp_path / "a.pkl", call), remedy=REMEDY)


@pytest.mark.parametrize("kept", [0, 1, 10, 200])
def test_a_truncated_pickle_is_refused_with_its_name(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "motion.pkl"
    path.write_bytes(pickle.dumps({"transl": np.zeros((50, 3))})[:kept])
    with pytest.raises(DwmError, match=r"motion\.pkl: refused.*download it again"):
        read_pickle(path, remedy=REMEDY)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_pickle, read_npy):
        with pytest.raises(DwmError, match=r"none\.x: no such file; download it again"):
            read(tmp_path / "none.x", remedy=REMEDY)


def test_numbers_and_text_are_memory_mapped_and_read_only(tmp_path: Path) -> None:
    for name, array in (("numbers", np.arange(12).reshape(4, 3)), ("text", np.array(["a", "bcd"]))):
        np.save(tmp_path / f"{name}.npy", array)
        loaded = read_npy(tmp_path / f"{name}.npy", remedy=REMEDY)
        assert isinstance(loaded, np.memmap)
        assert not loaded.flags.writeable
        assert np.array_equal(loaded, array)


def test_an_array_of_objects_and_an_empty_array_are_read(tmp_path: Path) -> None:
    tracks = {"cup_01": {"rotation": [np.zeros(3), np.ones(3)], "location": np.zeros((2, 3))}}
    np.save(tmp_path / "pose.npy", np.array(tracks, dtype=object), allow_pickle=True)
    loaded = read_npy(tmp_path / "pose.npy", remedy=REMEDY).item()
    assert np.array_equal(np.asarray(loaded["cup_01"]["rotation"]), [[0, 0, 0], [1, 1, 1]])
    np.save(tmp_path / "none.npy", np.zeros(0, np.int64))
    assert read_npy(tmp_path / "none.npy", remedy=REMEDY).shape == (0,)


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"PK\x03\x04 not numpy", b"x" * 300])
def test_what_is_no_npy_file_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "frame_id.npy"
    path.write_bytes(data)
    with pytest.raises(DwmError, match=r"frame_id\.npy: not a whole \.npy file.*download it again"):
        read_npy(path, remedy=REMEDY)


def test_a_truncated_npy_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "frame_id.npy"
    np.save(path, np.arange(100))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DwmError, match=r"frame_id\.npy: not a whole"):
        read_npy(path, remedy=REMEDY)
