"""Turned square regions of a picture that networks look at, and the ways there and back. Opens nothing.

The palm and landmark networks want a hand upright in a square: the rules by which a region follows from a palm or
from landmarks (which points, which factors) are those of the MediaPipe hand pipeline (its `hand_landmark` graphs).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from render.framing import Frames
from render.rotations import Floats

NUM_LANDMARKS = 21
WRIST, INDEX_BASE, MIDDLE_BASE, RING_BASE, PINKY_BASE = 0, 5, 9, 13, 17

_PALM_SCALE, _PALM_SHIFT = 2.6, -0.5
_HAND_SCALE, _HAND_SHIFT = 2.0, -0.1
_PALM_POINTS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
"""Landmarks that say where a hand is, whatever its finger tips do."""


@dataclass(frozen=True)
class Region:
    """A turned square of a picture.

    Attributes:
        x: centre, pixels.
        y: centre, pixels.
        size: side, pixels.
        angle: turn of the square against the picture, radians, clockwise as seen.
    """

    x: float
    y: float
    size: float
    angle: float = 0.0

    def picture_from_unit(self) -> Floats:
        """Affine map [2,3] from the unit square (x right, y down, inside the region) to pixels of the picture."""
        cos, sin = np.cos(self.angle) * self.size, np.sin(self.angle) * self.size
        return np.array(
            [
                [cos, -sin, self.x - 0.5 * cos + 0.5 * sin],
                [sin, cos, self.y - 0.5 * sin - 0.5 * cos],
            ]
        )

    def crop(self, picture: Frames, side: int, *, flip: bool = False) -> Frames:
        """The region as an upright picture [side,side,3], black outside; ``flip`` mirrors it left to right."""
        matrix = self.picture_from_unit() @ np.array([[1 / side, 0, 0], [0, 1 / side, 0], [0, 0, 1.0]])
        if flip:
            matrix = matrix @ np.array([[-1.0, 0, side], [0, 1, 0], [0, 0, 1]])
        matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV's pixel centres lie at whole numbers
        shrink = self.size / side
        flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_AREA if shrink > 1 else cv2.INTER_LINEAR)
        if shrink > 2:  # warping samples single pixels: halve the picture first, so that none is passed over
            factor = 2.0 ** -np.floor(np.log2(shrink))
            picture = np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
            matrix = np.diag([factor, factor]) @ matrix
            matrix[:, 2] += 0.5 * (factor - 1)
        return np.asarray(cv2.warpAffine(picture, matrix, (side, side), flags=flags), np.uint8)

    def to_picture(self, points: npt.ArrayLike) -> Floats:
        """Pixels [...,2] of the picture, from points [...,2] of the unit square."""
        matrix = self.picture_from_unit()
        result: Floats = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
        return result


def region_from_palm(box: npt.ArrayLike, wrist: npt.ArrayLike, middle_base: npt.ArrayLike) -> Region:
    """The hand's region around a palm box (left, top, right, bottom; pixels) with two of its points [2]."""
    left, top, right, bottom = np.asarray(box, np.float64)
    angle = _upright_angle(np.asarray(wrist, np.float64), np.asarray(middle_base, np.float64))
    side = max(right - left, bottom - top)
    centre = ((left + right) / 2, (top + bottom) / 2)
    return _upright_region(centre, _PALM_SCALE * side, angle, _PALM_SHIFT * side)


def region_from_landmarks(landmarks: Floats) -> Region:
    """The region around a hand's landmarks [21,2], pixels."""
    towards = (0.5 * (landmarks[INDEX_BASE] + landmarks[RING_BASE]) + landmarks[MIDDLE_BASE]) / 2
    angle = _upright_angle(landmarks[WRIST], towards)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = landmarks[list(_PALM_POINTS)] @ turn.T
    low, high = upright.min(axis=0), upright.max(axis=0)
    x, y = (low + high) / 2 @ turn
    width, height = high - low
    side = _HAND_SCALE * float(max(width, height))
    return _upright_region((float(x), float(y)), side, angle, _HAND_SHIFT * float(height))


def _upright_angle(wrist: Floats, towards: Floats) -> float:
    """Turn of a region in which ``towards`` lies straight above ``wrist``."""
    across, down = towards - wrist
    return float(np.arctan2(across, -down))


def _upright_region(centre: tuple[float, float], side: float, angle: float, along: float) -> Region:
    """A region of ``side`` moved by ``along`` down its own vertical axis, pixels."""
    x, y = centre
    return Region(x - along * float(np.sin(angle)), y + along * float(np.cos(angle)), side, angle)


def box_overlap(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    size = np.maximum(0.0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]))
    inner = float(size.prod())
    union = float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - inner
    return inner / union if union > 0 else 0.0


def landmark_box(landmarks: Floats) -> Floats:
    """Box [...,4] (left, top, right, bottom) of landmarks [...,21,2]."""
    return np.concatenate([landmarks.min(axis=-2), landmarks.max(axis=-2)], axis=-1)
