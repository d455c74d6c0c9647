"""Short gaps and jitter of a track: values over time, filled in and smoothed without delay.

Smoothing is Whittaker's: the values that are near the given ones and have small second differences (P. H. C. Eilers,
"A perfect smoother", 2003). It has no phase, weighs each frame by its score and behaves at the ends of a track.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.linalg import solveh_banded

from render.rotations import Floats


def filled_frames(frame: npt.NDArray[np.int64], max_gap: int) -> npt.NDArray[np.int64]:
    """All frames of a track whose sightings lie at ``frame`` [N] (rising), with gaps of up to ``max_gap`` filled in."""
    parts = [frame[:1]]
    for before, after in pairwise(frame):
        parts.append(np.arange(before + 1, after + 1) if after - before - 1 <= max_gap else np.array([after]))
    return np.concatenate(parts)


def runs(frame: npt.NDArray[np.int64]) -> list[slice]:
    """Slices of ``frame`` [N] (rising) without a missing frame in between."""
    cuts = [0, *(np.flatnonzero(np.diff(frame) > 1) + 1), len(frame)]
    return [slice(int(start), int(stop)) for start, stop in pairwise(cuts) if stop > start]


def interpolate(frame: npt.NDArray[np.int64], values: Floats, wanted: npt.NDArray[np.int64]) -> Floats:
    """Values [M,...] at the frames ``wanted`` [M], linearly between those [N,...] at ``frame`` [N]."""
    after = np.clip(np.searchsorted(frame, wanted), 1, max(1, len(frame) - 1))
    before = after - 1
    after = np.minimum(after, len(frame) - 1)
    span = np.maximum(frame[after] - frame[before], 1)
    share = ((wanted - frame[before]) / span).reshape(-1, *[1] * (values.ndim - 1))
    result: Floats = values[before] * (1 - share) + values[after] * share
    return result


def interpolate_rotations(frame: npt.NDArray[np.int64], values: Floats, wanted: npt.NDArray[np.int64]) -> Floats:
    """Rotations [M,...,3,3] at the frames ``wanted`` [M], at even speed between those [N,...,3,3] at ``frame`` [N]."""
    return nearest_rotations(interpolate(frame, values, wanted))


def smooth(values: Floats, weights: Floats, period_frames: float) -> Floats:
    """Values [N,...] of consecutive frames, with motions of less than ``period_frames`` a cycle damped.

    Args:
        values: over time.
        weights: [N] trust in each frame, 1 = full.
        period_frames: the cycle whose swing is halved; 0 changes nothing.
    """
    count = len(values)
    if period_frames <= 0 or count < 3:
        return values
    stiffness = (period_frames / (2 * np.pi)) ** 4
    second = np.diff(np.eye(count), n=2, axis=0)
    system = np.diag(np.maximum(weights, 1e-3)) + stiffness * second.T @ second
    banded = np.zeros((3, count))
    for offset in range(3):
        banded[2 - offset, offset:] = np.diagonal(system, offset)
    right = values.reshape(count, -1) * np.maximum(weights, 1e-3)[:, None]
    result: Floats = solveh_banded(banded, right).reshape(values.shape)
    return result


def smooth_rotations(values: Floats, weights: Floats, period_frames: float) -> Floats:
    """Rotations [N,...,3,3] of consecutive frames, smoothed as `smooth` does."""
    if period_frames <= 0 or len(values) < 3:
        return values
    return nearest_rotations(smooth(values, weights, period_frames))


def nearest_rotations(matrices: Floats) -> Floats:
    """The rotations [...,3,3] nearest to some matrices."""
    left, _, right = np.linalg.svd(matrices)
    sign = np.ones(matrices.shape[:-1])
    sign[..., 2] = np.linalg.det(left @ right)
    result: Floats = (left * sign[..., None, :]) @ right
    return result
