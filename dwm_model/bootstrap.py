"""Means over clips with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

RESAMPLES = 10_000
"""Resampled means an interval is taken from."""


class MeanInterval(BaseModel):
    """A mean over clips and how sure it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float = Field(description="Mean over clips of each clip's mean over seeds.")
    low: float | None = Field(default=None, description="Lower end of the interval; null with a single clip.")
    high: float | None = Field(default=None, description="Upper end of the interval; null with a single clip.")
    num_clips: int = Field(description="Clips with at least one value.")
    num_videos: int = Field(description="Values: clips times seeds where none is missing.")


def mean_interval(
    values_by_clip: Mapping[str, Sequence[float]], *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> MeanInterval | None:
    """Mean over clips with a percentile bootstrap interval.

    Seeds of one clip are not independent samples of the benchmark, so they are averaged first, and clips are what is
    drawn again. The same values and seed give the same interval, whatever the order of the clips.

    Args:
        values_by_clip: Values of each clip, one a seed; clips without values are left out.
        level: Part of the resampled means that lies in the interval.
        resamples: Number of resampled means.
        seed: Seed of the resampling.

    Returns:
        The mean; without an interval when there is one clip; None when there is no value at all.
    """
    present = {clip: values for clip, values in sorted(values_by_clip.items()) if len(values)}
    if not present:
        return None
    clip_means = np.array([np.mean(values) for values in present.values()], dtype=np.float64)
    low: float | None = None
    high: float | None = None
    if len(clip_means) > 1:
        drawn = np.random.default_rng(seed).integers(0, len(clip_means), (resamples, len(clip_means)))
        tail = (1 - level) / 2
        low, high = (float(end) for end in np.quantile(clip_means[drawn].mean(axis=1), (tail, 1 - tail)))
    return MeanInterval(
        mean=float(clip_means.mean()),
        low=low,
        high=high,
        num_clips=len(present),
        num_videos=sum(len(values) for values in present.values()),
    )
