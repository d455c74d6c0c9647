"""Rotations: axis-angle vectors and matrices, batched over any leading axes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_TINY = 1e-12


def matrix_from_axis_angle(axis_angle: npt.ArrayLike) -> Floats:
    """Rotation matrices [..., 3, 3] of axis-angle vectors [..., 3] (radians), by Rodrigues' formula."""
    vectors = np.asarray(axis_angle, dtype=np.float64)
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vectors.shape, 3)
    # sin(a)/a and (1 - cos(a))/a^2 in forms that stay exact at a = 0.
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    result: Floats = np.eye(3) + first * cross + second * (cross @ cross)
    return result


def axis_angle_from_matrix(rotation: npt.ArrayLike) -> Floats:
    """Axis-angle vectors [..., 3] (radians, angle at most pi) of rotation matrices [..., 3, 3]."""
    from scipy.spatial.transform import Rotation

    matrices = np.asarray(rotation, dtype=np.float64)
    vectors = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec()
    result: Floats = np.asarray(vectors, dtype=np.float64).reshape(matrices.shape[:-1])
    return result


def matrix_from_quaternion(quaternion: npt.ArrayLike) -> Floats:
    """Rotation matrices [..., 3, 3] of unit quaternions [..., 4] in the order w, x, y, z."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, dtype=np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_matrix(rotation: npt.ArrayLike) -> Floats:
    """Unit quaternions [..., 4] in the order w, x, y, z, with w >= 0, of rotation matrices [..., 3, 3]."""
    from scipy.spatial.transform import Rotation

    matrices = np.asarray(rotation, dtype=np.float64)
    quaternions = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_quat(canonical=True)[:, [3, 0, 1, 2]]
    result: Floats = np.asarray(quaternions, dtype=np.float64).reshape(*matrices.shape[:-2], 4)
    return result


def frame_from_axes(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """Right-handed frame [3, 3] as columns: ``first``, ``second`` made perpendicular to it, their cross product."""
    x_axis = normalised(first)
    towards = np.asarray(second, dtype=np.float64)
    y_axis = normalised(towards - x_axis * (towards @ x_axis))
    return np.stack([x_axis, y_axis, np.cross(x_axis, y_axis)], axis=1)


def normalised(vector: npt.ArrayLike) -> Floats:
    """Vectors [..., 3] scaled to length 1."""
    values = np.asarray(vector, dtype=np.float64)
    result: Floats = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), _TINY)
    return result
