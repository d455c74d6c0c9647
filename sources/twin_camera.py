"""A camera path of one's own: npz or JSON, any size and rate, brought to a clip's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from manifests.profiles import Profile
from render.arrays import read_npz
from render.camera import CameraPath, intrinsics_from_fov, scale_intrinsics
from render.framing import resample_indices
from render.rotations import Floats

_RIGID_TOLERANCE = 1e-3
_SHAPE_TOLERANCE = 0.01
_DEFAULT_FOV_DEGREES = 90.0
"""Field of view over the width where a file gives no intrinsics: that of the ego camera (paper 3.3)."""


@dataclass(frozen=True, eq=False)
class TwinCamera:
    """A path as its file has it.

    Attributes:
        path: the file.
        world_from_camera: [T,4,4] OpenCV axes, in the scene's frame.
        intrinsics: [3,3] for images of ``width`` x ``height``.
        width: pixels.
        height: pixels.
        fps: poses a second; None where the file does not say: those of the clip.
    """

    path: Path
    world_from_camera: Floats
    intrinsics: Floats
    width: float
    height: float
    fps: float | None

    def chosen(self, profile: Profile) -> npt.NDArray[np.int64]:
        """[num_frames] the poses that a clip takes, by their times.

        Raises:
            DwmError: the path is too short.
        """
        rate = self.fps or profile.fps
        times = np.arange(len(self.world_from_camera)) / rate
        wanted = resample_indices(times, profile.fps, profile.num_frames)
        if len(wanted) < profile.num_frames:
            raise DwmError(
                f"{self.path}: {len(times)} poses at {rate:g} a second give {len(wanted)} frames at {profile.fps:g}, a "
                f"clip of profile '{profile.name}' has {profile.num_frames}; make the path longer"
            )
        return wanted

    def at(self, profile: Profile) -> tuple[CameraPath, str | None]:
        """The path of a clip, and a reason to look where its picture has another shape than the file's.

        Raises:
            DwmError: as `chosen`.
        """
        poses = self.world_from_camera[self.chosen(profile)]
        factor = profile.width / self.width
        if abs(self.height * factor / profile.height - 1.0) <= _SHAPE_TOLERANCE:
            return CameraPath(scale_intrinsics(self.intrinsics, factor), poses), None
        focal = float(self.intrinsics[0, 0]) * factor
        fov = float(np.degrees(2 * np.arctan(profile.width / 2 / focal)))
        told = (
            f"camera_reshaped: the path is for {self.width:g}x{self.height:g} pixels, the clip has "
            f"{profile.width}x{profile.height}: its field of view over the width is kept, its centre is the picture's"
        )
        return CameraPath(intrinsics_from_fov(profile.width, profile.height, fov), poses), told


def read_camera(path: Path) -> TwinCamera:
    """Read a camera path.

    npz: ``world_from_camera`` [T,4,4]; ``intrinsics`` [3,3], ``width``, ``height`` and ``fps`` may be there (a clip's
    own ``camera.npz`` fits). JSON: an object with the same names, ``horizontal_fov_degrees`` in place of intrinsics.

    Raises:
        DwmError: the file is missing or broken, or a value makes no sense.
    """
    arrays = _read_json(path) if path.suffix.lower() == ".json" else dict(read_npz(path))
    if "world_from_camera" not in arrays:
        raise DwmError(f"{path}: has no world_from_camera (it holds {', '.join(sorted(arrays)) or 'nothing'}); add it")
    try:
        numbers = {name: np.asarray(value, dtype=np.float64) for name, value in arrays.items()}
    except (TypeError, ValueError) as error:
        raise DwmError(f"{path}: holds something that is no number; correct it") from error
    poses = numbers["world_from_camera"]
    _check_poses(path, poses)
    known = {name: _scalar(path, name, numbers) for name in ("width", "height", "fps", "horizontal_fov_degrees")}
    if "intrinsics" in numbers:
        intrinsics = numbers["intrinsics"]
        if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all() or intrinsics[0, 0] <= 0:
            raise DwmError(f"{path}: intrinsics {intrinsics.shape} must be a 3x3 matrix with a focal length above 0")
        width = known["width"] or 2 * float(intrinsics[0, 2])
        height = known["height"] or 2 * float(intrinsics[1, 2])
    else:
        width, height = known["width"] or 720.0, known["height"] or 480.0
        fov = known["horizontal_fov_degrees"] or _DEFAULT_FOV_DEGREES
        intrinsics = intrinsics_from_fov(round(width), round(height), fov)
    return TwinCamera(path, poses, intrinsics, width, height, known["fps"])


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DwmError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise DwmError(f"{path}: is no JSON ({error}); correct it") from error
    if not isinstance(content, dict):
        raise DwmError(f"{path}: is no JSON object; give one with world_from_camera")
    return content


def _scalar(path: Path, name: str, numbers: dict[str, Floats]) -> float | None:
    if name not in numbers:
        return None
    value = numbers[name]
    if value.size != 1 or not np.isfinite(value).all() or value.item() <= 0:
        raise DwmError(f"{path}: {name} is {value}; give one number above 0")
    return float(value.item())


def _check_poses(path: Path, poses: Floats) -> None:
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not len(poses):
        raise DwmError(f"{path}: world_from_camera has the shape {poses.shape}, not (T, 4, 4)")
    if not np.isfinite(poses).all():
        frame = int(np.argmin(np.isfinite(poses).all(axis=(1, 2))))
        raise DwmError(f"{path}: pose {frame} is not finite; leave it out")
    rotations = poses[:, :3, :3]
    off = np.abs(rotations @ np.swapaxes(rotations, 1, 2) - np.eye(3)).max(axis=(1, 2))
    wrong = (off > _RIGID_TOLERANCE) | (np.linalg.det(rotations) < 0) | (poses[:, 3] != [0, 0, 0, 1]).any(axis=1)
    if wrong.any():
        raise DwmError(
            f"{path}: pose {int(np.argmax(wrong))} is no rigid motion (rotation without scale or mirror, last row "
            "0 0 0 1); give world-from-camera matrices"
        )
