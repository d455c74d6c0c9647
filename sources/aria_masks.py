"""Hands and the operator in the exploration: pixels that must not enter the static scene (paper 3.3, Appendix C).

They come from a folder of masks, or from the hands that an estimator finds in the explored frames (`render.
hand_estimation`), or from a file of the whole recording's hands (`sources.aria_hands`). A hand's mask is its mesh and
the arm that must be behind it, grown by the margin of `render.hand_mask.dilate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import DwmError
from render.camera import intrinsics_from_fov, project_camera_points
from render.hand_estimation.estimator import HandEstimator, HandVideo
from render.hand_mask import Mask, dilate
from render.hands import HandMotion
from render.rotations import Floats
from sources.aria import AriaCapture
from sources.aria_hands import hands_in, recording_hands
from sources.aria_settings import AriaSettings

_LOOK_WIDTH = 480
"""Width of the pictures in which hands are looked for."""
_NEAR_M = 0.02
_SHOULDER = np.array([0.18, 0.2, 0.0])
"""The right shoulder of whoever wears the glasses, metres in the upright camera's frame; the left is mirrored."""
_FOREARM_M, _UPPER_ARM_M, _SLEEVE_M = 0.26, 0.29, 0.07
_ARM_SAMPLES = 40
"""Discs a bone."""


class MaskRecord(BaseModel):
    """What was masked in the frames that a scene was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: str = Field(description="`folder`, the hand estimator, or `none` where nothing was looked for.")
    frames: int = Field(description="Explored frames that were looked at.", ge=0)
    shares: dict[str, float] = Field(description="Share of the picture that is masked, by the colour frame's name.")

    def flag(self) -> str | None:
        """A reason to look, where something was masked."""
        if not self.shares:
            return None
        return (
            f"explored_hands: {len(self.shares)} of {self.frames} explored frames show hands or the operator, up to "
            f"{max(self.shares.values()):.0%} of the picture, left out of the scene ({self.origin})"
        )


@dataclass(frozen=True, eq=False)
class ExplorationMasks:
    """Masks of explored frames.

    Attributes:
        ignored: [n,H,W] of the reconstruction's pictures; None where nothing was looked for.
        record: what to keep of it.
    """

    ignored: Mask | None
    record: MaskRecord


def frame_name(frame: int) -> str:
    """A colour frame's name in reconstructions and mask folders."""
    return f"{frame:06d}"


def exploration_masks(
    capture: AriaCapture, settings: AriaSettings, frames: npt.NDArray[np.int64], estimator: HandEstimator | None
) -> ExplorationMasks:
    """Hands and operator in the pictures that a scene is made from.

    Args:
        capture: the capture.
        settings: where masks come from, and the pictures' size.
        frames: [n] colour frames with a pose.
        estimator: looks for hands where the settings name neither masks nor hand files; None does not look.

    Raises:
        DwmError: the folder has no masks for this capture, or a mask or hand file is broken.
    """
    origin = "none"
    ignored: Mask | None = None
    if settings.explore_masks is not None:
        origin, ignored = "folder", _from_folder(settings.explore_masks, capture, settings, frames)
    elif settings.mask_hands:
        motion = _hands(capture, settings, frames, estimator)
        if motion is not None:
            origin, ignored = settings.hands.estimator, _from_hands(motion, settings, len(frames))
    shares = np.zeros(len(frames)) if ignored is None else ignored.mean(axis=(1, 2), dtype=np.float64)
    named = {frame_name(int(frame)): round(float(share), 6) for frame, share in zip(frames, shares, strict=True)}
    record = MaskRecord(
        origin=origin, frames=len(frames), shares={name: share for name, share in named.items() if share > 0}
    )
    return ExplorationMasks(ignored, record)


def _hands(
    capture: AriaCapture, settings: AriaSettings, frames: npt.NDArray[np.int64], estimator: HandEstimator | None
) -> HandMotion | None:
    """Hands in the explored frames, numbered from 0; None where nobody can say."""
    if settings.hands.estimator == "file":
        known = recording_hands(capture, settings)
        return None if known is None else hands_in(known, frames)
    if estimator is None:
        return None
    width, height = _LOOK_WIDTH, round(_LOOK_WIDTH * settings.reconstruction.height / settings.reconstruction.width)
    fov = float(np.degrees(2 * np.arctan(0.5 * settings.reconstruction.width / _focal(settings))))
    clip = capture.read_clip(frames, intrinsics_from_fov(width, height, fov), width, height)
    seconds = capture.times_s[frames]
    rate = (len(frames) - 1) / max(float(seconds[-1] - seconds[0]), 1e-3)
    focal = float(clip.cameras.intrinsics[0, 0])
    return estimator.estimate(HandVideo(capture.files.capture_id, clip.frames, rate, focal_px=focal))


def _focal(settings: AriaSettings) -> float:
    return float(settings.reconstruction_intrinsics()[0, 0])


def _from_hands(motion: HandMotion, settings: AriaSettings, count: int) -> Mask:
    """Meshes and arms, grown, [count,H,W]."""
    intrinsics = settings.reconstruction_intrinsics()
    drawn = np.zeros((count, settings.reconstruction.height, settings.reconstruction.width), np.uint8)
    for entry, frame in enumerate(motion.frame):
        faces = motion.faces(bool(motion.is_right[entry]))
        places, depth = project_camera_points(intrinsics, motion.vertices[entry].astype(np.float64))
        in_front = (depth[faces] > _NEAR_M).all(axis=-1)
        for triangle in np.rint(places[faces[in_front]] - 0.5).astype(np.int32):
            cv2.fillConvexPoly(drawn[frame], triangle, 1)
        wrist = motion.translation[entry].astype(np.float64)
        if np.isfinite(wrist).all():
            _draw_arm(drawn[frame], wrist, bool(motion.is_right[entry]), intrinsics)
    return dilate(drawn.astype(np.bool_))


def _draw_arm(picture: npt.NDArray[np.uint8], wrist: Floats, is_right: bool, intrinsics: Floats) -> None:
    """Forearm and upper arm from a wrist [3] to the wearer's shoulder, as thick as a sleeve."""
    shoulder = _SHOULDER * np.array([1.0 if is_right else -1.0, 1.0, 1.0])
    elbow = _elbow(wrist, shoulder)
    share = np.linspace(0.0, 1.0, _ARM_SAMPLES)[:, None]
    places = np.concatenate([wrist + share * (elbow - wrist), elbow + share * (shoulder - elbow)])
    pixels, depth = project_camera_points(intrinsics, places[places[:, 2] > _NEAR_M])
    limit = float(max(picture.shape))
    for (column, row), distance in zip(pixels, depth, strict=True):
        radius = min(_SLEEVE_M * float(intrinsics[0, 0]) / float(distance), limit)
        if np.abs([column, row]).max() < 4 * limit:
            cv2.circle(picture, (round(column - 0.5), round(row - 0.5)), max(1, round(radius)), 1, cv2.FILLED)


def _elbow(wrist: Floats, shoulder: Floats) -> Floats:
    """Where the elbow of an arm hangs: below the line from wrist to shoulder, on it where the arm is stretched."""
    along = shoulder - wrist
    distance = max(float(np.linalg.norm(along)), 1e-6)
    along = along / distance
    down = np.array([0.0, 1.0, 0.0]) - along[1] * along
    way = min((_FOREARM_M**2 - _UPPER_ARM_M**2 + distance**2) / (2 * distance), distance)
    sag = max(_FOREARM_M**2 - way**2, 0.0) ** 0.5 if distance < _FOREARM_M + _UPPER_ARM_M else 0.0
    result: Floats = wrist + way * along + sag * down / max(float(np.linalg.norm(down)), 1e-6)
    return result


def _from_folder(folder: Path, capture: AriaCapture, settings: AriaSettings, frames: npt.NDArray[np.int64]) -> Mask:
    """Masks of stored frames, straightened, [n,H,W]; a frame without a file has none."""
    own = folder / capture.files.capture_id
    if not own.is_dir():
        own = folder / Path(capture.files.capture_id).name
    if not any(own.glob("*.png")):
        raise DwmError(
            f"{own}: holds no mask (*.png); put the masks of {capture.files.vrs.name} there, one for each colour frame "
            f"that shows hands or the operator ({frame_name(0)}.png is the first), or leave the setting out"
        )
    width, height = settings.reconstruction.width, settings.reconstruction.height
    masks = np.zeros((len(frames), height, width), np.bool_)
    for number, frame in enumerate(frames):
        path = own / f"{frame_name(int(frame))}.png"
        if not path.is_file():
            continue
        stored = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        size = (capture.recording.height, capture.recording.width)
        if stored is None or stored.shape != size:
            found = "no picture" if stored is None else f"{stored.shape[1]}x{stored.shape[0]}"
            raise DwmError(
                f"{path}: is {found}; give a mask of the stored frame, {size[1]}x{size[0]}, on its side as it is stored"
            )
        marked = np.repeat(np.where(stored > 0, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)
        straight = capture.straighten(int(frame), marked, settings.reconstruction_intrinsics(), width, height)
        masks[number] = straight[..., 0] > 0
    return masks
