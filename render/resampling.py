"""Clips out of source videos of any rate and size: chosen by time, fitted to a size, brought to a length.

A source is decoded twice: once for the times of its frames, which may be far apart and uneven, and once for the
pictures of the frames that a clip takes. Memory holds the clip, never the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manifests.errors import DwmError
from render.framing import AUTO_CROP_MAX_LOSS, FitPolicy, Frames, LengthPolicy, TooShortError, resample_indices
from render.video import fit_frame, iter_pictures

PictureBox = tuple[int, int, int, int]
"""Left, top, right, bottom of the part of a frame that is picture, pixels; right and bottom lie outside."""

_UNEVEN = 0.1
"""Frame intervals that differ from their median by more than this part of it make a variable frame rate."""
_UNEVEN_SHARE = 0.02
"""So many of the intervals may differ: a lost frame is no variable rate."""


@dataclass(frozen=True, eq=False)
class SourceTiming:
    """When the frames of a source video are shown.

    Attributes:
        times_s: [T] seconds from the first frame.
        width: width as shown (after rotation), pixels.
        height: height as shown, pixels.
        rotation_degrees: rotation that the file asks for, 0 where it asks for none.
    """

    times_s: NDArray[np.float64]
    width: int
    height: int
    rotation_degrees: int

    @property
    def fps(self) -> float:
        """Frames a second by the median interval; 0 for a single frame."""
        return 1.0 / float(np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else 0.0

    @property
    def is_variable(self) -> bool:
        """Whether the frame rate varies."""
        intervals = np.diff(self.times_s)
        if not len(intervals):
            return False
        median = float(np.median(intervals))
        return bool((np.abs(intervals - median) > _UNEVEN * median).mean() > _UNEVEN_SHARE)


@dataclass(frozen=True, eq=False)
class ClipSampling:
    """Which source frames a clip takes.

    Attributes:
        indices: [num_frames] source frame of each frame of the clip, not decreasing.
        found: how many of them the source gave before a short one was brought to length.
        length_policy: what was done about that; None where nothing had to be done.
    """

    indices: NDArray[np.int64]
    found: int
    length_policy: LengthPolicy | None

    @property
    def frame_step(self) -> int:
        """Source frames between two frames of the clip, rounded."""
        span = int(self.indices[-1] - self.indices[0])
        return max(1, round(span / max(1, self.found - 1)))


def read_timing(path: Path) -> SourceTiming:
    """Decode a video to its end for the times of its frames.

    Raises:
        DwmError: as ``probe``; also when its frames have no times, or times that go backwards.
    """
    times: list[float] = []
    width = height = rotation = 0
    for index, picture in enumerate(iter_pictures(path)):
        if index == 0:
            height, width = picture.rgb().shape[:2]
            rotation = picture.rotation_degrees % 360
        if picture.time_s is None:
            raise DwmError(f"{path}: frame {index} has no time stamp; convert the file to mp4 first")
        times.append(picture.time_s)
    array = np.asarray(times)
    if (np.diff(array) < 0).any():
        frame = int(np.argmax(np.diff(array) < 0)) + 1
        raise DwmError(f"{path}: the time stamps go backwards at frame {frame}; convert the file to mp4 first")
    return SourceTiming(array - array[0], width, height, rotation)


def plan_windows(
    timing: SourceTiming, fps: float, num_frames: int, policy: LengthPolicy, *, max_windows: int = 1
) -> list[ClipSampling]:
    """Cut a source into clips that follow each other without overlap; the first one always starts at its first frame.

    Args:
        timing: the source.
        fps: frames a second of the clips.
        num_frames: frames a clip.
        policy: what to do about a source that is shorter than one clip.
        max_windows: clips at most. A tail that fills no whole clip after the first one is left out.

    Raises:
        TooShortError: the source is shorter than one clip and the policy is to drop it.
    """
    wanted = resample_indices(timing.times_s, fps, num_frames * max_windows)
    if len(wanted) >= num_frames:
        count = len(wanted) // num_frames
        return [
            ClipSampling(wanted[start * num_frames : (start + 1) * num_frames], num_frames, None)
            for start in range(count)
        ]
    if policy is LengthPolicy.DROP:
        raise TooShortError(
            f"gives {len(wanted)} frames at {fps:g} a second and a clip needs {num_frames}; "
            "choose the policy pad_last or stretch to take it"
        )
    steps = np.arange(num_frames)
    kept = steps * len(wanted) // num_frames if policy is LengthPolicy.STRETCH else np.minimum(steps, len(wanted) - 1)
    return [ClipSampling(wanted[kept], len(wanted), policy)]


def read_sampled(path: Path, indices: NDArray[np.int64], width: int, height: int, fit: FitPolicy) -> Frames:
    """Pictures of some source frames at a size, uint8 RGB [len(indices), height, width, 3].

    Args:
        path: the source.
        indices: source frames, not decreasing.
        width: width of the result, pixels.
        height: height of the result, pixels.
        fit: how differing aspect ratios are treated.

    Raises:
        DwmError: as ``probe``; also when the picture size changes within the video or a frame is missing.
    """
    result = np.empty((len(indices), height, width, 3), np.uint8)
    filled, shape = 0, None
    for index, picture in enumerate(iter_pictures(path)):
        if index < indices[filled]:
            continue
        rgb = picture.rgb()
        shape = shape or rgb.shape
        if rgb.shape != shape:
            raise DwmError(
                f"{path}: the picture size changes from {shape[1]}x{shape[0]} to {rgb.shape[1]}x{rgb.shape[0]}; "
                "convert it to one size first"
            )
        fitted = fit_frame(rgb, width, height, fit)
        while filled < len(indices) and indices[filled] == index:
            result[filled] = fitted
            filled += 1
        if filled == len(indices):
            return result
    raise DwmError(f"{path}: has no frame {indices[filled]}; make or copy it again")


def chosen_fit(source_width: int, source_height: int, width: int, height: int, fit: FitPolicy) -> FitPolicy:
    """What a fit policy comes to for a source of some size: ``auto`` becomes crop or pad."""
    if fit is not FitPolicy.AUTO:
        return fit
    scales = (width / source_width, height / source_height)
    return FitPolicy.CROP if 1.0 - min(scales) / max(scales) <= AUTO_CROP_MAX_LOSS else FitPolicy.PAD


def picture_box(source_width: int, source_height: int, width: int, height: int, fit: FitPolicy) -> PictureBox | None:
    """The part of a fitted frame that is picture; None where that is all of it."""
    if chosen_fit(source_width, source_height, width, height, fit) is not FitPolicy.PAD:
        return None
    scale = min(width / source_width, height / source_height)
    inner_width = min(width, max(1, round(source_width * scale)))
    inner_height = min(height, max(1, round(source_height * scale)))
    if (inner_width, inner_height) == (width, height):
        return None
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    return left, top, left + inner_width, top + inner_height
