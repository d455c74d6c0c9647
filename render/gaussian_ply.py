"""Gaussian scenes as PLY files in the layout of the 3D Gaussian Splatting release, which common viewers open.

One vertex a Gaussian, float32 properties: ``x y z nx ny nz``, ``f_dc_0..2``, ``f_rest_*`` (the other spherical
harmonics, all of red, then green, then blue), ``opacity`` (logit), ``scale_0..2`` (logarithms), ``rot_0..3`` (w, x, y,
z). Files of others may have the properties in any order and of any number type, more of them (normals and others are
not read), and fewer bands of spherical harmonics.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from manifests.atomic import write_bytes
from manifests.errors import DwmError
from render.gaussian_scene import GaussianScene

_NUMBERS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 1 << 16

_POSITION = ("x", "y", "z")
_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALES = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")


def write_ply(path: Path, scene: GaussianScene) -> None:
    """Write a scene; the same scene gives the same bytes.

    Raises:
        DwmError: a value is not finite, or the file cannot be written.
    """
    rest = 3 * (scene.sh.shape[1] - 1)
    names = [*_POSITION, "nx", "ny", "nz", *_DC, *(f"f_rest_{number}" for number in range(rest))]
    names += ["opacity", *_SCALES, *_ROTATION]
    count = len(scene)
    columns = [
        scene.means,
        torch.zeros(count, 3),
        scene.sh[:, 0],
        scene.sh[:, 1:].transpose(1, 2).reshape(count, rest),
        scene.opacity_logits[:, None],
        scene.log_scales,
        scene.quats,
    ]
    values = torch.cat([column.detach().cpu() for column in columns], dim=1).numpy().astype("<f4")
    _require_finite(path, values)
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header = "\n".join([*lines, *(f"property float {name}" for name in names), "end_header", ""])
    write_bytes(path, header.encode("ascii") + values.tobytes())


def read_ply(path: Path) -> GaussianScene:
    """Read a scene.

    Raises:
        DwmError: the file is missing, no PLY, text, truncated, lacks a property of Gaussians (a mesh or a plain point
            cloud, or a compressed scene), has a number of spherical harmonics that is no whole degree, or holds
            values that are not finite.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DwmError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise DwmError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    header = _parse_header(path, data)
    names = header.vertex.names or ()
    _require_properties(path, names)
    rest = _rest_names(path, names)
    needed = header.start + header.count * header.vertex.itemsize
    if len(data) < needed:
        raise DwmError(f"{path}: truncated: {len(data)} of {needed} bytes are there; make or copy it again")
    table = np.frombuffer(data, header.vertex, header.count, header.start)

    def columns(chosen: tuple[str, ...]) -> npt.NDArray[np.float32]:
        found = np.empty((header.count, len(chosen)), np.float32)
        for number, name in enumerate(chosen):
            found[:, number] = table[name]
        _require_finite(path, found)
        return found

    others = columns(rest).reshape(header.count, 3, len(rest) // 3).swapaxes(1, 2)
    return GaussianScene(
        means=torch.from_numpy(columns(_POSITION)),
        log_scales=torch.from_numpy(columns(_SCALES)),
        quats=torch.from_numpy(columns(_ROTATION)),
        opacity_logits=torch.from_numpy(columns(("opacity",))[:, 0].copy()),
        sh=torch.from_numpy(np.concatenate([columns(_DC)[:, None], others], axis=1)),
    )


@dataclass(frozen=True)
class _Header:
    """Where and how a file's vertices lie: the record of one, how many, at which byte."""

    vertex: np.dtype[np.void]
    count: int
    start: int


def _parse_header(path: Path, data: bytes) -> _Header:
    end = data.find(b"end_header", 0, _MAX_HEADER)
    if not data.startswith(b"ply") or end < 0:
        raise DwmError(f"{path}: not a PLY file, or cut off in its header; give a PLY of 3D Gaussians")
    start = data.find(b"\n", end) + 1
    lines = [line.split() for line in data[:end].decode("ascii", errors="replace").splitlines()]
    kind = next((words[1] for words in lines if words[:1] == ["format"] and len(words) > 1), "unknown")
    if kind not in _ORDERS or start == 0:
        raise DwmError(f"{path}: PLY of the format '{kind}' is not read; save it as binary_little_endian")
    elements = _elements(path, lines, _ORDERS[kind])
    for name, count, record in elements:
        if name == "vertex":
            return _Header(record, count, start)
        start += count * record.itemsize
    raise DwmError(f"{path}: holds no vertices; give a PLY of 3D Gaussians")


def _elements(path: Path, lines: list[list[str]], order: str) -> list[tuple[str, int, np.dtype[np.void]]]:
    """Name, count and record of the elements up to the vertices."""
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    try:
        for words in lines:
            if words[:1] == ["element"]:
                if elements and elements[-1][0] == "vertex":
                    break
                elements.append((words[1], int(words[2]), []))
            elif words[:1] == ["property"]:
                elements[-1][2].append((words[2], order + _NUMBERS[words[1]]))
        return [(name, count, np.dtype(properties)) for name, count, properties in elements]
    except (IndexError, KeyError, ValueError) as error:
        raise DwmError(f"{path}: its header is no PLY of 3D Gaussians ({error}); export it again") from error


def _require_properties(path: Path, names: tuple[str, ...]) -> None:
    if "packed_position" in names:
        raise DwmError(f"{path}: a compressed scene is not read; export it as a plain PLY of 3D Gaussians")
    missing = [name for name in (*_POSITION, *_DC, "opacity", *_SCALES, *_ROTATION) if name not in names]
    if missing:
        raise DwmError(
            f"{path}: no PLY of 3D Gaussians, it lacks {', '.join(missing)}; give one that a trainer of Gaussians wrote"
        )


def _rest_names(path: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """The properties beyond the constant harmonic, in the order of their numbers."""
    count = sum(name.startswith("f_rest_") for name in names)
    expected = tuple(f"f_rest_{number}" for number in range(count))
    if count not in {0, 9, 24, 45, 72} or not set(expected) <= set(names):
        raise DwmError(
            f"{path}: has {count} properties f_rest_*; whole degrees of spherical harmonics have 0, 9, 24, 45 or 72, "
            "numbered from 0; export it again"
        )
    return expected


def _require_finite(path: Path, values: npt.NDArray[np.float32]) -> None:
    count = int((~np.isfinite(values)).any(axis=1).sum())
    if count:
        raise DwmError(f"{path}: {count} Gaussians hold values that are not finite; remove them from the scene")
