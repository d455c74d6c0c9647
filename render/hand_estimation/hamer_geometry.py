"""From HaMeR's outputs to hands in the camera's frame: crops, cameras, mirrored left hands. No network, no files.

HaMeR (Pavlakos et al., 2024) sees every hand as a right one: the crop of a left hand is mirrored first, and what comes
out is mirrored back. Its camera belongs to the crop; the full picture's follows from the crop's place and size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from render.hand_estimation.regions import Region
from render.rotations import Floats
from render.scene import IntArray

CROP_FOCAL_PX = 5000.0
"""Focal length of HaMeR's camera in its crop (EXTRA.FOCAL_LENGTH)."""
_BOX_SCALE = 2.0
_CROP_ASPECT = 192 / 256
"""Width by height of what the backbone sees of the square crop."""


@dataclass(frozen=True)
class CropCameras:
    """HaMeR's weak-perspective cameras of N crops.

    Attributes:
        scale_shift: [N,3] ``pred_cam``: scale, shift right and down, as the network gives them.
        centre: [N,2] of the crops in the picture, pixels.
        size: [N] sides of the crops, pixels.
        is_right: [N].
    """

    scale_shift: Floats
    centre: Floats
    size: Floats
    is_right: npt.NDArray[np.bool_]


def crop_region(box: npt.ArrayLike) -> Region:
    """The square that HaMeR looks at for a hand box [4] (left, top, right, bottom; pixels)."""
    left, top, right, bottom = np.asarray(box, np.float64)
    width, height = _BOX_SCALE * (right - left), _BOX_SCALE * (bottom - top)
    return Region((left + right) / 2, (top + bottom) / 2, float(max(height, width / _CROP_ASPECT)))


def picture_focal_px(width: int, height: int, crop_side: int) -> float:
    """HaMeR's focal length for a whole picture whose camera is unknown, pixels."""
    return CROP_FOCAL_PX / crop_side * max(width, height)


def hand_translations(cameras: CropCameras, width: int, height: int, focal_px: float) -> Floats:
    """Where the origin of each hand's frame [N,3] lies in the camera's frame of the whole picture, metres.

    Args:
        cameras: of the crops.
        width: of the picture, pixels.
        height: of the picture, pixels.
        focal_px: of the picture's camera, whose principal point is the picture's centre.
    """
    scale, right, down = cameras.scale_shift.T
    side = np.where(cameras.is_right, 1.0, -1.0)
    metres_px = cameras.size * scale + 1e-9
    offset = 2 * (cameras.centre - (width / 2, height / 2)) / metres_px[:, None]
    return np.stack([offset[:, 0] + side * right, offset[:, 1] + down, 2 * focal_px / metres_px], axis=1)


def mirrored_back(points: Floats, is_right: npt.NDArray[np.bool_]) -> Floats:
    """Points [N,...,3] of hands that were seen as right ones: those of left hands are mirrored."""
    side = np.where(is_right, 1.0, -1.0).reshape(-1, *[1] * (points.ndim - 1))
    result: Floats = points * np.concatenate([side, np.ones_like(side), np.ones_like(side)], axis=-1)
    return result


def mirrored_rotations(rotations: Floats, is_right: npt.NDArray[np.bool_]) -> Floats:
    """Rotations [N,...,3,3] of hands that were seen as right ones: those of left hands are mirrored."""
    flip = np.diag([-1.0, 1.0, 1.0])
    left = ~is_right
    result = rotations.copy()
    result[left] = flip @ rotations[left] @ flip
    return result


def left_faces(right_faces: IntArray) -> IntArray:
    """Faces [F,3] of a mirrored mesh: turned over, so that they still face outwards."""
    return right_faces[:, ::-1].copy()
