"""Pinhole cameras along a path, and their files.

Axes are OpenCV's: x right, y down, z forward. Pixel centres lie at +0.5, so that the image spans [0, width] x
[0, height] and a centred camera has its principal point at (width / 2, height / 2). Lengths are metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.arrays import read_npz, write_npz
from render.rotations import Floats, normalised

OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Turns OpenCV camera axes into OpenGL's (x right, y up, z backward); its own inverse."""


@dataclass(frozen=True)
class Camera:
    """One view: ``intrinsics`` [3,3] in pixels and ``world_from_camera`` [4,4] in metres."""

    intrinsics: Floats
    world_from_camera: Floats

    def project(self, points_world: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Pixels [...,2] and depths along z [...] (metres, <= 0 behind the camera) of world points [...,3]."""
        rotation, origin = self.world_from_camera[:3, :3], self.world_from_camera[:3, 3]
        return project_camera_points(self.intrinsics, (np.asarray(points_world) - origin) @ rotation)

    def unproject(self, pixels: npt.ArrayLike, depth: npt.ArrayLike) -> Floats:
        """World points [...,3] of pixels [...,2] at depths along z [...] (metres)."""
        positions = np.asarray(pixels, dtype=np.float64)
        homogeneous = np.concatenate([positions, np.ones_like(positions[..., :1])], axis=-1)
        rays = homogeneous @ np.linalg.inv(self.intrinsics).T
        points = rays * np.asarray(depth, dtype=np.float64)[..., None]
        result: Floats = points @ self.world_from_camera[:3, :3].T + self.world_from_camera[:3, 3]
        return result

    @property
    def camera_from_world(self) -> Floats:
        """Inverse pose [4,4]."""
        return invert_pose(self.world_from_camera)

    @property
    def opengl_pose(self) -> Floats:
        """World-from-camera pose [4,4] in OpenGL's camera axes (what pyrender's scene nodes want)."""
        result: Floats = self.world_from_camera @ OPENGL_FROM_OPENCV
        return result


@dataclass(frozen=True)
class CameraPath:
    """A moving camera: ``intrinsics`` [3,3] in pixels and ``world_from_camera`` [T,4,4] in metres.

    Raises:
        DwmError: the arrays have other shapes, or values that are not finite.
    """

    intrinsics: Floats
    world_from_camera: Floats

    def __post_init__(self) -> None:
        if self.intrinsics.shape != (3, 3) or self.world_from_camera.shape[1:] != (4, 4):
            raise DwmError(
                f"camera path: intrinsics {self.intrinsics.shape} and poses {self.world_from_camera.shape} "
                "must have the shapes (3, 3) and (T, 4, 4)"
            )
        if not (np.isfinite(self.intrinsics).all() and np.isfinite(self.world_from_camera).all()):
            raise DwmError("camera path: some values are not finite; leave out the frames that have no pose")

    def __len__(self) -> int:
        return len(self.world_from_camera)

    def __getitem__(self, frame: int) -> Camera:
        return Camera(self.intrinsics, self.world_from_camera[frame])

    def scaled(self, factor: float) -> CameraPath:
        """The same path for images ``factor`` times as wide and high."""
        return CameraPath(scale_intrinsics(self.intrinsics, factor), self.world_from_camera)

    def save(self, path: Path) -> None:
        """Write the ``camera_path`` file of a clip: float64 ``intrinsics`` and ``world_from_camera``."""
        write_npz(path, {"intrinsics": self.intrinsics, "world_from_camera": self.world_from_camera})

    @classmethod
    def load(cls, path: Path) -> CameraPath:
        """Read the ``camera_path`` file of a clip.

        Raises:
            DwmError: the file is missing, broken or holds other shapes.
        """
        arrays = read_npz(path, required=("intrinsics", "world_from_camera"))
        try:
            return cls(arrays["intrinsics"].astype(np.float64), arrays["world_from_camera"].astype(np.float64))
        except DwmError as error:
            raise DwmError(f"{path}: {error}") from error


def intrinsics_from_fov(width: int, height: int, horizontal_fov_degrees: float) -> Floats:
    """Intrinsics [3,3] of a centred camera with square pixels (90 degrees at 720x480: fx = fy = 360, paper 3.3)."""
    focal = width / 2 / np.tan(np.radians(horizontal_fov_degrees) / 2)
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def scale_intrinsics(intrinsics: Floats, factor: float) -> Floats:
    """Intrinsics [3,3] for images ``factor`` times as wide and high."""
    result: Floats = np.diag([factor, factor, 1.0]) @ intrinsics
    return result


def project_camera_points(intrinsics: Floats, points_camera: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Pixels [...,2] and depths [...] (metres) of points [...,3] in the camera's frame."""
    points = np.asarray(points_camera, dtype=np.float64)
    depth = points[..., 2]
    safe_depth = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    homogeneous = points @ intrinsics.T
    return homogeneous[..., :2] / safe_depth[..., None], depth


def look_at(eye: npt.ArrayLike, target: npt.ArrayLike, up: npt.ArrayLike = (0.0, 1.0, 0.0)) -> Floats:
    """World-from-camera pose [4,4] at ``eye`` [3], facing ``target`` [3], with ``up`` [3] towards the image's top."""
    position = np.asarray(eye, dtype=np.float64)
    forward = normalised(np.asarray(target, dtype=np.float64) - position)
    right = normalised(np.cross(forward, np.asarray(up, dtype=np.float64)))
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose


def invert_pose(pose: Floats) -> Floats:
    """Inverse of rigid poses [...,4,4]."""
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    inverse = np.zeros_like(pose)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ pose[..., :3, 3, None])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def opengl_projection(intrinsics: Floats, width: int, height: int, near: float, far: float) -> Floats:
    """OpenGL clip-from-camera matrix [4,4] (OpenGL axes) that draws a point where `Camera.project` puts it."""
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    return np.array(
        [
            [2 * fx / width, -2 * intrinsics[0, 1] / width, 1 - 2 * cx / width, 0.0],
            [0.0, 2 * fy / height, 2 * cy / height - 1, 0.0],
            [0.0, 0.0, (far + near) / (near - far), 2 * far * near / (near - far)],
            [0.0, 0.0, -1.0, 0.0],
        ]
    )
