"""What every hand estimator takes and gives, and the measures of an estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.camera import intrinsics_from_fov
from render.framing import Frames
from render.hands import HandMotion
from render.rotations import Floats

EstimatorName = Literal["landmarks", "hamer", "file"]
"""Values of the manifest's column ``hand_estimator`` for estimated hands."""

PictureBox = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""


@dataclass(frozen=True, eq=False)
class HandVideo:
    """A clip as an estimator sees it.

    Attributes:
        name: the source video's stem or id relative to its data set's root, without suffix; `file` estimates are
            found by it.
        frames: uint8 RGB [T,H,W,3] at the clip's size and frame rate.
        fps: frames a second.
        focal_px: focal length in pixels of these frames, where the camera is known.
        picture_box: the part of the frames that is picture, where they are padded; None for all of it.

    Raises:
        DwmError: the frames are no uint8 [T,H,W,3], or a number is not usable.
    """

    name: str
    frames: Frames
    fps: float
    focal_px: float | None = None
    picture_box: PictureBox | None = None

    def __post_init__(self) -> None:
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[-1] != 3:
            raise DwmError(
                f"{self.name}: frames of type {self.frames.dtype} and shape {self.frames.shape}; "
                "give uint8 RGB with the axes (T, H, W, 3)"
            )
        if not self.fps > 0:
            raise DwmError(f"{self.name}: {self.fps} frames a second; give a rate above 0")
        if self.focal_px is not None and not (np.isfinite(self.focal_px) and self.focal_px > 0):
            raise DwmError(f"{self.name}: a focal length of {self.focal_px} px; give one above 0, or None")
        left, top, right, bottom = self.box
        if not (0 <= left < right <= self.width and 0 <= top < bottom <= self.height):
            raise DwmError(f"{self.name}: picture box {self.box} does not lie in a {self.width}x{self.height} picture")

    @property
    def width(self) -> int:
        """Width of the frames, pixels."""
        return int(self.frames.shape[2])

    @property
    def height(self) -> int:
        """Height of the frames, pixels."""
        return int(self.frames.shape[1])

    @property
    def box(self) -> PictureBox:
        """The picture box, the whole frame where none is given."""
        return self.picture_box or (0, 0, self.width, self.height)


class HandEstimator(Protocol):
    """Finds hand meshes in videos. Nothing of one video is remembered for the next."""

    @property
    def name(self) -> EstimatorName:
        """Value of the manifest's column ``hand_estimator``."""

    @property
    def model_name(self) -> str:
        """The hand or body model of the meshes: the manifest's column ``body_model``."""

    def estimate(self, video: HandVideo) -> HandMotion:
        """Hands of every frame in the camera's frame; an empty motion where there are none.

        The meshes are in register with the video in the camera that `motion_intrinsics` gives.

        Raises:
            DwmError: what the estimator needs for this video is missing or broken.
        """


def motion_intrinsics(motion: HandMotion, width: int, height: int) -> Floats:
    """The centred camera [3,3] that a motion is drawn with in a picture of ``width`` x ``height`` pixels."""
    focal = motion.focal_px
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def focal_of(video: HandVideo, horizontal_fov_degrees: float) -> float:
    """The known focal length of a video, else that of a field of view over the width of its picture, pixels."""
    if video.focal_px is not None:
        return float(video.focal_px)
    left, _, right, _ = video.box
    return float(intrinsics_from_fov(right - left, video.height, horizontal_fov_degrees)[0, 0])


def hand_jitter_px(motion: HandMotion) -> float | None:
    """Mean length of the second difference of the image key points, pixels a frame squared; lower is smoother.

    Over every track and every three consecutive frames of it in which the key points are known; None where no track
    has such three frames.
    """
    lengths: list[npt.NDArray[np.floating]] = []
    for track in np.unique(motion.track_id):
        entries = np.flatnonzero(motion.track_id == track)
        entries = entries[np.argsort(motion.frame[entries], kind="stable")]
        frames = motion.frame[entries]
        points = motion.joints_image[entries].astype(np.float64)
        consecutive = (np.diff(frames)[:-1] == 1) & (np.diff(frames)[1:] == 1)
        second = points[2:] - 2 * points[1:-1] + points[:-2]
        lengths.append(np.linalg.norm(second[consecutive], axis=-1).reshape(-1))
    values = np.concatenate(lengths) if lengths else np.empty(0)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def hand_visible_frames(motion: HandMotion, width: int, height: int) -> int:
    """Frames in which a key point or a mesh vertex of some hand lies in a picture of ``width`` x ``height`` pixels."""
    camera = motion_intrinsics(motion, width, height)
    vertices = motion.vertices.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = vertices[..., :2] / vertices[..., 2:] * motion.focal_px + camera[:2, 2]
        inside = (pixels >= 0).all(axis=-1) & (pixels < (width, height)).all(axis=-1) & (vertices[..., 2] > 0)
    seen = inside.any(axis=-1)
    return len(np.unique(motion.frame[seen]))
