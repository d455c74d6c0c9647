"""Frames in memory: choosing them by time, fitting them to a size, fitting a clip to a length. Opens no files.

Frames are uint8 RGB arrays with axes [T, H, W, 3].
"""

from __future__ import annotations

from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.errors import DwmError

Frames = NDArray[np.uint8]
"""RGB frames, axes [T, H, W, 3]; a single frame is [H, W, 3]."""

AUTO_CROP_MAX_LOSS = 0.1
"""``FitPolicy.AUTO`` crops when at most this part of the picture is lost, and pads otherwise."""

_TIME_TOLERANCE = 1e-6
"""Slack for times that containers round to their own clock, in target frames."""


class FitPolicy(StrEnum):
    """How a picture gets another size."""

    PAD = "pad"
    """The whole picture, scaled to fit and centred on black (what the paper does to fixed-camera video)."""
    CROP = "crop"
    """Scaled to fill, centred, the overhang cut off."""
    STRETCH = "stretch"
    """Each axis scaled on its own: changes the aspect ratio."""
    AUTO = "auto"
    """``CROP`` where that loses at most a tenth of the picture, else ``PAD``."""


class LengthPolicy(StrEnum):
    """What happens to a clip that is shorter than asked. Longer clips are cut to their first frames."""

    PAD_LAST = "pad_last"
    """The last frame is repeated at the end."""
    DROP = "drop"
    """The clip is refused with ``TooShortError``; builders write a ``dropped`` row with its message."""
    STRETCH = "stretch"
    """Frames are repeated evenly over the clip (what the public release does silently): plays slower."""


class TooShortError(DwmError):
    """A video has fewer frames than a clip needs."""


def resample_indices(
    timestamps_s: NDArray[np.floating], target_fps: float, num_frames: int | None = None
) -> NDArray[np.int64]:
    """Choose source frames for a constant frame rate: the nearest one to each target time.

    Target times start at the first frame and go on while they lie before the end of the last frame, which is shown
    as long as the median frame. Of two frames equally near, the earlier is taken. Works for variable frame rates.

    Args:
        timestamps_s: Time of each source frame, seconds, not decreasing, axis [T].
        target_fps: Frames a second of the result.
        num_frames: At most this many indices; None for the whole video.

    Returns:
        Source frame of each target frame.

    Raises:
        DwmError: no frames, times that are not finite or go backwards, or a rate that is not positive.
    """
    times = np.asarray(timestamps_s, dtype=np.float64)
    if times.ndim != 1 or times.size == 0:
        raise DwmError(f"resampling to {target_fps} fps: no frame times given")
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise DwmError(f"resampling to {target_fps} fps: the frame times go backwards or are not numbers")
    if not target_fps > 0:
        raise DwmError(f"resampling to {target_fps} fps: the rate must be greater than 0")
    times = times - times[0]
    last_frame_s = float(np.median(np.diff(times))) if times.size > 1 else 0.0
    count = max(1, int(np.ceil((times[-1] + last_frame_s) * target_fps - _TIME_TOLERANCE)))
    if num_frames is not None:
        count = min(count, num_frames)
    targets = np.arange(count) / target_fps
    after = np.clip(np.searchsorted(times, targets), 1, max(1, times.size - 1))
    before = after - 1
    after = np.minimum(after, times.size - 1)
    take_after = targets - times[before] > times[after] - targets + _TIME_TOLERANCE / target_fps
    return np.where(take_after, after, before).astype(np.int64)


def fit_frames(frames: Frames, width: int, height: int, policy: FitPolicy) -> Frames:
    """Give frames another size; pixels are averaged by area where the picture shrinks, else interpolated linearly.

    Args:
        frames: uint8 [T, H, W, 3].
        width: Width of the result, pixels.
        height: Height of the result, pixels.
        policy: How differing aspect ratios are treated.

    Returns:
        uint8 [T, height, width, 3]; the same array when it already has that size.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    result = np.empty((len(frames), height, width, 3), np.uint8)
    for index, frame in enumerate(frames):
        result[index] = fit_frame(frame, width, height, policy)
    return result


def fit_frame(frame: Frames, width: int, height: int, policy: FitPolicy) -> Frames:
    """Give one frame [H, W, 3] another size: see ``fit_frames``."""
    source_height, source_width = frame.shape[:2]
    if (source_height, source_width) == (height, width):
        return frame
    scales = (width / source_width, height / source_height)
    if policy is FitPolicy.AUTO:
        loss = 1.0 - min(scales) / max(scales)
        policy = FitPolicy.CROP if loss <= AUTO_CROP_MAX_LOSS else FitPolicy.PAD
    if policy is FitPolicy.STRETCH:
        return _scale(frame, width, height)
    if policy is FitPolicy.PAD:
        inner_width = min(width, max(1, round(source_width * min(scales))))
        inner_height = min(height, max(1, round(source_height * min(scales))))
        left, top = (width - inner_width) // 2, (height - inner_height) // 2
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[top : top + inner_height, left : left + inner_width] = _scale(frame, inner_width, inner_height)
        return canvas
    outer_width = max(width, round(source_width * max(scales)))
    outer_height = max(height, round(source_height * max(scales)))
    left, top = (outer_width - width) // 2, (outer_height - height) // 2
    return _scale(frame, outer_width, outer_height)[top : top + height, left : left + width]


def _scale(frame: Frames, width: int, height: int) -> Frames:
    """Scale with the filter that suits each axis: area averages shrink, linear interpolation enlarges."""
    old_height, old_width = frame.shape[:2]
    if (width - old_width) * (height - old_height) < 0:  # one axis shrinks and the other grows: one after the other
        frame = _scale(frame, width, old_height)
        old_width = width
    shrinks = width < old_width or height < old_height
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, height), interpolation=interpolation), np.uint8)


def fit_length(frames: Frames, num_frames: int, policy: LengthPolicy) -> Frames:
    """Give a clip exactly ``num_frames`` frames: the first ones of a longer clip, ``policy`` for a shorter one.

    Raises:
        TooShortError: the clip is shorter and the policy is ``DROP``, or it has no frame at all.
    """
    count = len(frames)
    if count >= num_frames:
        return frames[:num_frames]
    if policy is LengthPolicy.DROP or count == 0:
        raise TooShortError(f"the video has {count} frames and the clip needs {num_frames}")
    wanted = np.arange(num_frames)
    return frames[wanted * count // num_frames if policy is LengthPolicy.STRETCH else np.minimum(wanted, count - 1)]
