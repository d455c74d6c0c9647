"""The `file` estimator: hand meshes that were computed elsewhere, one npz a video."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from manifests.errors import DwmError
from render.camera import project_camera_points
from render.hand_estimation.estimator import HandVideo, motion_intrinsics
from render.hands import HandMotion

_FOCAL_TOLERANCE = 0.01
"""Largest relative difference between a file's focal length and the known one."""
_REGISTER_PX_AT_720 = 3.0
"""Largest median distance of `joints_image` from the projected `joints_camera`, pixels at 720 of width."""
_MAX_DISTANCE_M = 100.0
"""Vertices farther than this from the camera are taken for millimetres."""


class FileEstimator:
    """Reads `<folder>/<video name>.npz`, each in the format of a clip's hand motion (`HandMotion.save`)."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DwmError(f"files {folder}: no such folder; give the folder of <video name>.npz files")
        self._folder = folder

    @property
    def name(self) -> Literal["file"]:
        """Value of the manifest's column ``hand_estimator``."""
        return "file"

    @property
    def model_name(self) -> str:
        """The files do not say which model made them."""
        return "hand meshes from files"

    def estimate(self, video: HandVideo) -> HandMotion:
        """The stored hands of a video, checked against it.

        Raises:
            DwmError: no file for this video, or one that is broken or does not fit it.
        """
        path = named_file(self._folder, video.name)
        motion = HandMotion.load(path)
        check_motion(motion, video, path)
        return motion


def named_file(folder: Path, name: str) -> Path:
    """The npz of a video: `<folder>/<name>.npz`, else the same by the name's last part alone.

    Raises:
        DwmError: there is neither, or the name leads out of the folder.
    """
    candidates = [folder / f"{name}.npz", folder / f"{Path(name).name}.npz"]
    for path in candidates:
        if path.resolve().is_relative_to(folder.resolve()) and path.is_file():
            return path
    raise DwmError(f"{candidates[0]}: no such file; make it for the video '{name}', or leave the video out")


def check_motion(motion: HandMotion, video: HandVideo, path: Path) -> None:
    """Check that a stored motion fits a video: shapes, frames, finite values, focal length, register.

    Raises:
        DwmError: it does not; the message names the first value that is wrong.
    """
    _check_shapes(motion, path)
    count = len(video.frames)
    if not (np.isfinite(motion.focal_px) and motion.focal_px > 0):
        raise DwmError(f"{path}: focal_px is {motion.focal_px}; give the focal length in pixels of the clip")
    if video.focal_px is not None and abs(motion.focal_px / video.focal_px - 1) > _FOCAL_TOLERANCE:
        raise DwmError(
            f"{path}: focal_px is {motion.focal_px:.1f}, the video's camera has {video.focal_px:.1f}; "
            f"make the meshes for frames of {video.width}x{video.height}"
        )
    if not len(motion):
        return
    outside = (motion.frame < 0) | (motion.frame >= count)
    if outside.any():
        raise DwmError(f"{path}: frame {motion.frame[outside][0]} is not in the clip of {count} frames; cut it alike")
    if not np.isfinite(motion.score).all():
        raise DwmError(f"{path}: some scores are not finite; give 1 where there is no score")
    for side, side_name in ((False, "left"), (True, "right")):
        vertices = motion.vertices[motion.is_right == side, : _vertex_count(motion, side)]
        if not np.isfinite(vertices).all():
            raise DwmError(f"{path}: some vertices of {side_name} hands are not finite; leave those entries out")
        if len(vertices) and not 0 < np.median(vertices[..., 2]) < _MAX_DISTANCE_M:
            raise DwmError(
                f"{path}: {side_name} hands lie at a depth of {np.median(vertices[..., 2]):.4g}; "
                "give metres in front of the camera (x right, y down, z forward)"
            )
    _check_register(motion, video, path)


def _check_shapes(motion: HandMotion, path: Path) -> None:
    count = len(motion)
    shapes = {
        "pose": (count, 45),
        "orientation": (count, 3),
        "translation": (count, 3),
        "joints_camera": (count, 21, 3),
        "joints_image": (count, 21, 2),
    }
    for name, shape in shapes.items():
        found = getattr(motion, name).shape
        if found != shape:
            raise DwmError(f"{path}: {name} has the shape {found}, not {shape}; fill what is unknown with NaN")
    for name in ("frame", "is_right", "score", "track_id"):
        if getattr(motion, name).ndim != 1:
            raise DwmError(f"{path}: {name} has the shape {getattr(motion, name).shape}, not ({count},)")
    if motion.vertices.ndim != 3 or motion.vertices.shape[-1] != 3:
        raise DwmError(f"{path}: vertices has the shape {motion.vertices.shape}, not ({count}, V, 3)")
    for side, name in ((False, "faces_left"), (True, "faces_right")):
        faces = motion.faces(side)
        if faces.ndim != 2 or faces.shape[-1] != 3 or not len(faces):
            raise DwmError(f"{path}: {name} has the shape {faces.shape}, not (F, 3) with F above 0")
        used = not count or bool((motion.is_right == side).any())
        if faces.min() < 0 or (used and count and faces.max() >= motion.vertices.shape[1]):
            raise DwmError(f"{path}: {name} names vertex {faces.max()}, there are {motion.vertices.shape[1]}")


def _vertex_count(motion: HandMotion, is_right: bool) -> int:
    return int(motion.faces(is_right).max()) + 1


def _check_register(motion: HandMotion, video: HandVideo, path: Path) -> None:
    """Compare image and camera joints where both are known: other picture sizes and focal lengths show here."""
    pixels, depth = project_camera_points(motion_intrinsics(motion, video.width, video.height), motion.joints_camera)
    with np.errstate(invalid="ignore"):
        distance = np.linalg.norm(pixels - motion.joints_image, axis=-1)[depth > 0]
    distance = distance[np.isfinite(distance)]
    limit = _REGISTER_PX_AT_720 * video.width / 720
    if len(distance) and np.median(distance) > limit:
        raise DwmError(
            f"{path}: joints_image lies {np.median(distance):.1f} px off the projected joints_camera (focal_px "
            f"{motion.focal_px:.1f}, centre of {video.width}x{video.height}); make the meshes for the clip's own frames"
        )
