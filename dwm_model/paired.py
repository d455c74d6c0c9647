"""Differences between the model and each other method on the same clips: what two separate intervals cannot tell.

A clip is easy or hard for all methods alike. Subtracting clip by clip removes that, and the interval of the mean
difference says whether one method is better.
"""

from __future__ import annotations

from collections.abc import Mapping

from dwm_model.bootstrap import MeanInterval, mean_interval
from dwm_model.results import BenchmarkResult, MetricColumn


def paired_difference(result: BenchmarkResult, column: MetricColumn, first: str, second: str) -> MeanInterval | None:
    """Mean over clips of ``first`` minus ``second``, with its bootstrap interval; None without a common clip.

    Seeds are averaged within a clip before. Clips in which one of the two has no value are left out.
    """
    ours, theirs = clip_means(result, column, first), clip_means(result, column, second)
    return mean_interval({clip: [ours[clip] - theirs[clip]] for clip in ours.keys() & theirs.keys()})


def clip_means(result: BenchmarkResult, column: MetricColumn, method: str) -> Mapping[str, float]:
    """Mean over seeds of each clip that has a value."""
    found: dict[str, float] = {}
    for clip in result.clips:
        videos = (video for video in clip.videos if video.method == method)
        values = [value for video in videos if (value := video.metrics.get(column.key)) is not None]
        if values:
            found[clip.clip_id] = sum(values) / len(values)
    return found
