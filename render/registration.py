"""How far apart two pictures of the same scene are: a rendered one and a recorded one, outside what moves."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from render.framing import Frames

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float32]

_MEASURED_WIDTH = 360
"""Smaller pictures are enlarged to this width: corners of a few pixels are hard to follow."""
_MAX_CORNERS = 300
_LEAST_CORNERS = 12
_ROUND_TRIP_PX = 0.7
_WINDOW = 21


@dataclass(frozen=True)
class Registration:
    """Shifts of corners from one video to another.

    Attributes:
        shift_px: median over the frames of the length of a frame's median shift, pixels of the videos; None where
            too few corners can be followed in every frame.
        worst_px: largest median shift of a frame.
        measured_frames: frames with enough corners.
    """

    shift_px: float | None
    worst_px: float | None
    measured_frames: int


def measure_registration(first: Frames, second: Frames, ignored: Mask) -> Registration:
    """Follow corners of one video into the same frames of another.

    Args:
        first: uint8 [T,H,W,3], such as a rendered static video.
        second: uint8 [T,H,W,3], such as the recorded one.
        ignored: [T,H,W] pixels that need not agree: hands and what they move, pixels without a picture.
    """
    shifts = [_frame_shift(*frames) for frames in zip(first, second, ignored, strict=True)]
    known = [shift for shift in shifts if shift is not None]
    if not known:
        return Registration(None, None, 0)
    return Registration(float(np.median(known)), float(np.max(known)), len(known))


def _frame_shift(first: Frames, second: Frames, ignored: Mask) -> float | None:
    factor = max(1, -(-_MEASURED_WIDTH // first.shape[1]))
    size = (first.shape[1] * factor, first.shape[0] * factor)
    here, there = (
        np.asarray(cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), cv2.COLOR_RGB2GRAY), np.uint8)
        for frame in (first, second)
    )
    usable = cv2.resize((~ignored).astype(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
    usable = cv2.erode(usable, np.ones((_WINDOW // 2,) * 2, np.uint8))
    corners = cv2.goodFeaturesToTrack(here, _MAX_CORNERS, 0.01, 5.0, mask=usable)
    if corners is None or len(corners) < _LEAST_CORNERS:
        return None
    start = np.asarray(corners, np.float32)
    moved, found = _followed(here, there, start)
    back, again = _followed(there, here, moved)
    sure = (np.linalg.norm(back - start, axis=-1)[:, 0] < _ROUND_TRIP_PX * factor) & found & again
    if sure.sum() < _LEAST_CORNERS:
        return None
    # What is blurred or moves on its own shifts every way: the median of each component is what all do together.
    shift = float(np.linalg.norm(np.median((moved - start)[sure, 0], axis=0)))
    return shift / int(factor)


def _followed(here: Frames, there: Frames, points: Points) -> tuple[Points, Mask]:
    """Where points [N,1,2] of one picture are in another, and whether they were found."""
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        here, there, points, np.empty_like(points), winSize=(_WINDOW, _WINDOW), maxLevel=2
    )
    return np.asarray(moved, np.float32), np.asarray(found)[:, 0] > 0


def differing(first: Frames, second: Frames, *, least: int = 40) -> Mask:
    """[H,W] pixels whose blurred colours (uint8 [H,W,3]) differ by more than ``least`` of 255."""
    radius = max(3, round(first.shape[1] / 60) | 1)
    blurred = [cv2.GaussianBlur(frame, (radius, radius), 0).astype(np.int16) for frame in (first, second)]
    return np.asarray(np.abs(blurred[0] - blurred[1]).max(axis=-1) > least)


def changed_share(first: Frames, second: Frames, ignored: Mask, *, least: int = 40) -> npt.NDArray[np.float64]:
    """[T] share of the pixels that count (0-1) whose blurred colours differ by more than ``least`` of 255."""
    shares = np.zeros(len(first))
    for number, (here, there, hidden) in enumerate(zip(first, second, ignored, strict=True)):
        counted = ~hidden
        shares[number] = float((differing(here, there, least=least) & counted).sum() / max(1, counted.sum()))
    return shares
