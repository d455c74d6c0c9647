"""Does the camera of a video stand still? Background motion by tracked corners and a robust homography; scene cuts.

Corners are tracked from frame to frame and from the first frame to every other (a slow drift is small from frame to
frame and spoils a repeated first frame all the same). Hands are masked, and what moves on its own is outvoted: the
motion is that of the largest set of corners that one homography explains, and of corners at rest where these are many.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from render.framing import Frames
from render.hand_mask import Mask, dilate
from render.resampling import PictureBox

_Points = NDArray[np.float32]
_Gray = NDArray[np.uint8]

_CELLS = (9, 6)
_CELL_CORNERS = 8
_LEAST_STRENGTH = 4e-5
"""Least eigenvalue of a corner's gradients; below it a tracker follows noise."""
_MIN_CORNERS = 12
"""Fewer tracked corners tell nothing."""
_BORDER = 4
"""Pixels inside the picture's edge that hold no corner: the edge of a padded picture never moves."""
_INLIER_PX_AT_720 = 1.0
_REST_SHARE = 0.5
"""Corners at rest outvote a homography that explains fewer than twice as many."""
_LEAST_SHARE = 0.25
"""A motion that fewer of the tracked corners agree on is no background's."""

_CUT_HISTOGRAM = 0.35
"""Bhattacharyya distance of the colours of two neighbouring frames across a cut is above this."""
_CUT_TRACKED = 0.3
"""Share of corners that survive a cut is below this."""
_HISTOGRAM_BINS = (12, 8, 8)


@dataclass(frozen=True, kw_only=True)
class CameraMotion:
    """How a video's background moves.

    Attributes:
        step_px: mean motion between neighbouring frames, pixels; None where too few corners could be tracked.
        drift_px: largest motion from the first frame, pixels; None likewise.
        tracked_share: share of the steps in which the motion could be measured.
    """

    step_px: float | None
    drift_px: float | None
    tracked_share: float


def measure_camera_motion(frames: Frames, hands: Mask | None = None, box: PictureBox | None = None) -> CameraMotion:
    """Measure how far the background of a clip moves.

    Args:
        frames: uint8 RGB [T, H, W, 3].
        hands: bool [T, H, W], pixels of hands; they are dilated here and hold no corners.
        box: the part of the frames that is picture, where they are padded.
    """
    grays = [_gray(frame) for frame in frames]
    masks = _background(frames.shape[1:3], len(frames), hands, box)
    corners = [_corners(gray, mask) for gray, mask in zip(grays, masks, strict=True)]
    steps = [
        _motion_px(grays[index], grays[index + 1], corners[index], masks[index + 1]) for index in range(len(grays) - 1)
    ]
    drifts = [_motion_px(grays[0], grays[index], corners[0], masks[index]) for index in range(1, len(grays))]
    known_steps = [value for value in steps if value is not None]
    known_drifts = [value for value in drifts if value is not None]
    return CameraMotion(
        step_px=float(np.mean(known_steps)) if known_steps else None,
        drift_px=max(known_drifts) if known_drifts else None,
        tracked_share=len(known_steps) / max(1, len(steps)),
    )


def find_scene_cuts(frames: Frames, box: PictureBox | None = None) -> list[int]:
    """Frames at which another scene begins: other colours than the frame before, and none of its corners found again.

    Args:
        frames: uint8 RGB [T, H, W, 3].
        box: the part of the frames that is picture, where they are padded.
    """
    left, top, right, bottom = box or (0, 0, frames.shape[2], frames.shape[1])
    pictures = [np.ascontiguousarray(frame[top:bottom, left:right]) for frame in frames]
    histograms = [_histogram(picture) for picture in pictures]
    cuts = []
    for index in range(1, len(pictures)):
        distance = cv2.compareHist(histograms[index - 1], histograms[index], cv2.HISTCMP_BHATTACHARYYA)
        if distance <= _CUT_HISTOGRAM:
            continue
        before, after = (_evenly_lit(_gray(pictures[number])) for number in (index - 1, index))
        corners = _corners(before, np.full(before.shape, 255, np.uint8))
        if _track(before, after, corners)[2] < _CUT_TRACKED:
            cuts.append(index)
    return cuts


def _background(size: tuple[int, ...], count: int, hands: Mask | None, box: PictureBox | None) -> list[_Gray]:
    """Where corners may lie, 255, in every frame."""
    left, top, right, bottom = box or (0, 0, size[1], size[0])
    picture = np.zeros(size, np.uint8)
    picture[top + _BORDER : bottom - _BORDER, left + _BORDER : right - _BORDER] = 255
    if hands is None:
        return [picture] * count
    masks = []
    for frame in hands:
        mask = picture.copy()
        mask[dilate(frame[None])[0]] = 0
        masks.append(mask)
    return masks


def _corners(gray: _Gray, mask: _Gray) -> _Points:
    """Corners [N,2] of every part of the picture: the best of a whole picture would lie on a few printed things."""
    strength = cv2.cornerMinEigenVal(gray, 5)
    allowed = np.where((mask > 0) & (strength > _LEAST_STRENGTH), np.uint8(255), np.uint8(0))
    distance = max(3, gray.shape[1] // 120)
    found: list[_Points] = []
    for rows in np.array_split(np.arange(gray.shape[0]), _CELLS[1]):
        for columns in np.array_split(np.arange(gray.shape[1]), _CELLS[0]):
            cell = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            if not allowed[cell].any():
                continue
            places = cv2.goodFeaturesToTrack(gray[cell], _CELL_CORNERS, 0.02, distance, mask=allowed[cell])
            if places is not None:
                found.append(
                    np.asarray(places, np.float32).reshape(-1, 2) + np.array([columns[0], rows[0]], np.float32)
                )
    return np.concatenate(found) if found else np.empty((0, 2), np.float32)


def _track(before: _Gray, after: _Gray, corners: _Points) -> tuple[_Points, _Points, float]:
    """Corners that are found again, forwards and backwards, their places before and after, and their share."""
    if len(corners) < _MIN_CORNERS:
        return corners[:0], corners[:0], 1.0
    there, found = _follow(before, after, corners)
    back, found_back = _follow(after, before, there)
    returns = np.linalg.norm(back - corners, axis=1) < 1.0
    kept = found & found_back & returns
    return corners[kept], there[kept], float(kept.mean())


def _follow(before: _Gray, after: _Gray, corners: _Points) -> tuple[_Points, NDArray[np.bool_]]:
    guess = corners.copy()  # only read where a flag says so, which none does
    places, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, guess, winSize=(21, 21), maxLevel=3)
    return np.asarray(places, np.float32), np.asarray(found).ravel() == 1


def _motion_px(before: _Gray, after: _Gray, corners: _Points, allowed_after: _Gray) -> float | None:
    """Motion of the background between two frames, pixels; None where too few corners are found again."""
    start, end, _ = _track(before, after, corners)
    height, width = after.shape
    columns = np.clip(end[:, 0].round().astype(int), 0, width - 1)
    rows = np.clip(end[:, 1].round().astype(int), 0, height - 1)
    kept = allowed_after[rows, columns] > 0
    start, end = start[kept], end[kept]
    if len(start) < _MIN_CORNERS:
        return None
    limit = _INLIER_PX_AT_720 * width / 720
    lengths = np.linalg.norm(end - start, axis=1)
    at_rest = lengths <= limit
    _, marks = cv2.findHomography(start, end, cv2.USAC_MAGSAC, limit, maxIters=500)
    explained = np.zeros(len(start), bool) if marks is None else marks.ravel() > 0
    chosen = at_rest if at_rest.sum() >= _REST_SHARE * explained.sum() else explained
    enough = chosen.sum() >= max(_MIN_CORNERS, _LEAST_SHARE * len(start))
    return float(np.median(lengths[chosen])) if enough else None


def _gray(frame: Frames) -> _Gray:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)


def _evenly_lit(gray: _Gray) -> _Gray:
    """The same picture at a common brightness and contrast: a lamp that goes out is no cut."""
    spread = max(1.0, float(gray.std()))
    return np.asarray(np.clip((gray - float(gray.mean())) * (50.0 / spread) + 128.0, 0, 255), np.uint8)


def _histogram(picture: Frames) -> NDArray[np.float32]:
    colours = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([colours], [0, 1, 2], None, list(_HISTOGRAM_BINS), [0, 180, 0, 256, 0, 256])
    return np.asarray(counts / counts.sum(), np.float32)
