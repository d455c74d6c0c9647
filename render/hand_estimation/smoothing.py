"""Short gaps and jitter of a track: values over time, filled in and smoothed without delay.

Smoothing is Whittaker's: the values that are near the given ones and have small second differences (P. H. C. Eilers,
"A perfect smoother", 2003). It has no phase, weighs each frame by its score and behaves at the ends of a track. Its
stiffness falls where the hand swings, so that a swing is not flattened with the jitter.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.linalg import solveh_banded

from render.rotations import Floats

_FAST = 3.5
"""Second differences above so many usual ones are taken for motion more than for jitter."""
_REWEIGHTINGS = 8


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

    Jitter is there in every frame, a swing of the hand in a few: where the second difference of the smoothed values is
    large against its usual size, stiffness falls, so that the swing is followed (Cauchy's loss, by reweighting).

    Args:
        values: over time, all in one unit.
        weights: [N] trust in each frame, 1 = full.
        period_frames: the cycle whose swing is halved where nothing is unusually fast; 0 changes nothing.
    """
    count = len(values)
    if period_frames <= 0 or count < 3:
        return values
    flat, trust = values.reshape(count, -1), np.maximum(weights, 1e-3)
    stiffness = np.full(count - 2, (period_frames / (2 * np.pi)) ** 4)
    result = _penalised(flat, trust, stiffness)
    for _ in range(_REWEIGHTINGS):
        bend = np.linalg.norm(np.diff(result, n=2, axis=0), axis=1)
        usual = max(float(np.median(bend)), 1e-9 * float(np.abs(flat).max(initial=1.0)))
        result = _penalised(flat, trust, stiffness / (1 + (bend / (_FAST * usual)) ** 2))
    return result.reshape(values.shape)


def _penalised(values: Floats, trust: Floats, stiffness: Floats) -> Floats:
    """Values [N,D] near the given ones, weighted [N], whose second differences, weighted [N-2], are small."""
    count = len(values)
    second = np.diff(np.eye(count), n=2, axis=0)
    system = np.diag(trust) + (second.T * stiffness) @ second
    banded = np.zeros((3, count))
    for offset in range(3):
        banded[2 - offset, offset:] = np.diagonal(system, offset)
    result: Floats = solveh_banded(banded, values * trust[:, None])
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
