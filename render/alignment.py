"""Time offset between the videos of a triplet, by cross-correlating how much moves in them.

A video that starts late or early beside the others is a fault that no count of frames shows. The estimate is a reason
to look, never proof: it is only given where the motion of both videos agrees well at one offset and at no other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.errors import DwmError
from render.framing import FitPolicy, Frames, fit_frames
from render.hand_mask import dilate, hand_mask

Signal = NDArray[np.float64]
"""Motion between neighbouring frames, grey levels a pixel, axis [T - 1]; NaN where it cannot be measured."""

SIGNAL_WIDTH = 96
"""Width to which frames are reduced before motion is measured, pixels: averages noise away."""

MAX_OFFSET_FRAMES = 8
MIN_CORRELATION = 0.6
MIN_CORRELATION_SHORT = 0.8
"""Asked of clips below ``SHORT_CLIP_FRAMES``: few samples agree by chance."""
SHORT_CLIP_FRAMES = 32
MIN_MARGIN = 0.2
MIN_MOTION = 0.3
"""Mean motion below this (grey levels) is noise: a fixed camera in front of a static scene."""

_MIN_OVERLAP = 8
_SMOOTHING_FRAMES = 5


@dataclass(frozen=True, kw_only=True)
class OffsetEstimate:
    """How late a video is against another.

    Attributes:
        offset_frames: Frames by which the other video is late (negative: early); None when the evidence is weak.
        correlation: Correlation of the motion at the best offset, -1..1; 0 when nothing moves.
        margin: How much lower the correlation is at offsets more than one frame from the best one.
    """

    offset_frames: int | None
    correlation: float
    margin: float


UNKNOWN_OFFSET = OffsetEstimate(offset_frames=None, correlation=0.0, margin=0.0)
"""The estimate where nothing moves or the videos are too short."""


def estimate_time_offset(reference_frames: Frames, other_frames: Frames) -> OffsetEstimate:
    """Offset of a video that shows the same camera path, such as the static video against the interaction video.

    Args:
        reference_frames: uint8 [T, H, W, 3].
        other_frames: uint8 [T', H', W', 3].

    Raises:
        DwmError: a video without frames.
    """
    reference, other = global_motion(reference_frames), global_motion(other_frames)
    if min(_mean(reference), _mean(other)) < MIN_MOTION:
        return UNKNOWN_OFFSET
    length = min(len(reference), len(other))
    return _best_offset(dict.fromkeys(_offsets(length), (reference, other)), length)


def estimate_hand_offset(interaction_frames: Frames, hand_frames: Frames) -> OffsetEstimate:
    """Offset of the hand video against the interaction video, which shows the hands before a moving background.

    For every offset the hand video's motion is compared with the interaction video's motion inside the region that
    the hand video names at that offset.

    Args:
        interaction_frames: uint8 [T, H, W, 3].
        hand_frames: uint8 [T', H', W', 3], hands on black.

    Raises:
        DwmError: a video without frames.
    """
    interaction, hands = reduced(interaction_frames), reduced(hand_frames)
    visible = hand_mask(hands)
    regions = dilate(visible)
    regions = regions[1:] | regions[:-1]
    hand_motion = _region_means(_motion(hands), regions)
    interaction_motion = _motion(interaction)
    length = min(len(interaction_motion), len(hand_motion))
    signals = {}
    for offset in _offsets(length):
        shifted = np.zeros_like(interaction_motion, dtype=bool)  # the hand video's regions at the interaction's times
        here, there = _overlap(len(shifted), len(regions), offset)
        shifted[here] = regions[there]
        signals[offset] = (_region_means(interaction_motion, shifted), hand_motion)
    return _best_offset(signals, length)


def reduced(frames: Frames) -> Frames:
    """Frames at the small width at which motion is measured, uint8 [T, h, w, 3]; small frames stay as they are."""
    if len(frames) == 0:
        raise DwmError("time offset: a video without frames has no motion")
    if frames.shape[2] <= SIGNAL_WIDTH:
        return frames
    height = max(1, round(frames.shape[1] * SIGNAL_WIDTH / frames.shape[2]))
    return fit_frames(frames, SIGNAL_WIDTH, height, FitPolicy.STRETCH)


def global_motion(frames: Frames) -> Signal:
    """Mean absolute difference of neighbouring frames, grey levels, axis [T - 1]."""
    return np.asarray(_motion(reduced(frames)).mean(axis=(1, 2)), np.float64)


def _motion(frames: Frames) -> NDArray[np.float32]:
    """Absolute difference of neighbouring frames a pixel, mean of the channels, [T - 1, H, W]."""
    return np.asarray(np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=-1), np.float32)


def _region_means(motion: NDArray[np.float32], regions: NDArray[np.bool_]) -> Signal:
    """Mean motion inside each frame's region; NaN where the region is empty."""
    sizes = regions.sum(axis=(1, 2))
    sums = np.where(regions, motion, 0).sum(axis=(1, 2), dtype=np.float64)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan)


def _mean(signal: Signal) -> float:
    return float(signal.mean()) if signal.size else 0.0


def _offsets(length: int) -> range:
    """Offsets to try: up to a quarter of the clip, so that enough of it overlaps."""
    largest = min(MAX_OFFSET_FRAMES, length // 4)
    return range(-largest, largest + 1)


def _overlap(reference_length: int, other_length: int, offset: int) -> tuple[slice, slice]:
    """Parts of two signals that show the same moments when the other one is ``offset`` frames late."""
    start = max(0, -offset)
    length = max(0, min(reference_length - start, other_length - start - offset))
    return slice(start, start + length), slice(start + offset, start + offset + length)


def _correlation(a: Signal, b: Signal) -> float:
    known = ~(np.isnan(a) | np.isnan(b))
    if known.sum() < _MIN_OVERLAP:
        return 0.0
    a, b = a[known] - a[known].mean(), b[known] - b[known].mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-9 else 0.0


def _without_trend(signal: Signal) -> Signal:
    """A signal minus its moving average: what is left changes fast and peaks sharply at the right offset."""
    if signal.size < _SMOOTHING_FRAMES:
        return signal
    half = _SMOOTHING_FRAMES // 2
    padded = np.pad(signal, half, mode="edge")
    return signal - np.convolve(padded, np.ones(_SMOOTHING_FRAMES) / _SMOOTHING_FRAMES, mode="valid")


def _score(reference: Signal, other: Signal, offset: int) -> float:
    """Agreement at an offset: the mean of the correlations of the signals and of their fast parts."""
    here, there = _overlap(len(reference), len(other), offset)
    plain = _correlation(reference[here], other[there])
    return (plain + _correlation(_without_trend(reference)[here], _without_trend(other)[there])) / 2


def _best_offset(signals: dict[int, tuple[Signal, Signal]], length: int) -> OffsetEstimate:
    """The offset whose signals agree best, claimed only when they agree well there and nowhere else."""
    scores = {offset: _score(reference, other, offset) for offset, (reference, other) in signals.items()}
    best = max(scores, key=lambda offset: (scores[offset], -abs(offset)))
    others = [score for offset, score in scores.items() if abs(offset - best) > 1]
    if not others:
        return UNKNOWN_OFFSET
    margin = scores[best] - max(others)
    asked = MIN_CORRELATION if length >= SHORT_CLIP_FRAMES else MIN_CORRELATION_SHORT
    is_strong = scores[best] >= asked and margin >= MIN_MARGIN
    return OffsetEstimate(offset_frames=best if is_strong else None, correlation=scores[best], margin=margin)
