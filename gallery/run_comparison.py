"""Runs beside each other on one frozen benchmark, from the rows of their generated videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow.dataset as ds

from dwm_model.bootstrap import MeanInterval, mean_interval
from dwm_model.results import COLUMNS, MetricColumn
from manifests.benchmarks import FrozenBenchmark
from manifests.dataset import Dataset
from manifests.registry import run_in_use
from manifests.schema import Generation, GenerationStatus

ClipFigures = Mapping[str, list[float]]
"""Values of a figure by clip, one a seed."""


@dataclass(frozen=True, order=True)
class Candidate:
    """What made a video: a checkpoint of a run with its sampler, or a method without one.

    Attributes:
        method: row of the benchmark's table.
        run_id: the run; empty for methods without one.
        step: step of its checkpoint; 0 likewise.
        num_inference_steps: denoising steps; 0 for methods that do not sample.
        guidance_scale: text guidance; 0 likewise.
    """

    method: str
    run_id: str
    step: int
    num_inference_steps: int
    guidance_scale: float


@dataclass(frozen=True)
class Cell:
    """A figure of a candidate: its mean, and how far it is from the run in use on the same clips."""

    mean: MeanInterval | None
    difference: MeanInterval | None


@dataclass(frozen=True)
class ComparedRow:
    """A line of the comparison.

    Attributes:
        candidate: what it is of.
        is_in_use: whether it is the run in use, which others are compared with.
        ready: videos that were made and measured, of ``wanted``.
        wanted: videos of the benchmark: clips times seeds, without seeds for methods that have none.
        cells: figures by column key.
    """

    candidate: Candidate
    is_in_use: bool
    ready: int
    wanted: int
    cells: dict[str, Cell]


@dataclass(frozen=True)
class RunComparison:
    """The comparison on one benchmark; columns without a single figure are left out."""

    benchmark: FrozenBenchmark
    columns: tuple[MetricColumn, ...]
    rows: tuple[ComparedRow, ...]


def compare_runs(dataset: Dataset, benchmark: FrozenBenchmark) -> RunComparison:
    """Put everything side by side that was generated for the clips, size and seeds of a benchmark.

    A clip is easy or hard for all alike: differences are taken clip by clip before they are averaged.

    Raises:
        DwmError: the manifest cannot be read.
    """
    groups = _grouped(dataset, benchmark)
    in_use = run_in_use(dataset)
    reference = _reference(groups, None if in_use is None else in_use.run_id)
    columns = tuple(
        column
        for column in COLUMNS
        if any(getattr(row, column.key) is not None for rows in groups.values() for row in rows)
    )
    known = {} if reference is None else {column.key: _by_clip(groups[reference], column.key) for column in columns}
    rows = []
    for candidate, videos in sorted(groups.items()):
        cells = {
            column.key: _cell(_by_clip(videos, column.key), None if candidate == reference else known.get(column.key))
            for column in columns
        }
        seeds = len(benchmark.seeds) if candidate.num_inference_steps else 1
        ready = len({(video.clip_id, video.seed) for video in videos})
        rows.append(ComparedRow(candidate, candidate == reference, ready, len(benchmark.clip_ids) * seeds, cells))
    return RunComparison(benchmark, columns, tuple(rows))


def _grouped(dataset: Dataset, benchmark: FrozenBenchmark) -> dict[Candidate, list[Generation]]:
    where = (
        ds.field("clip_id").isin(list(benchmark.clip_ids))
        & (ds.field("status") == GenerationStatus.READY.value)
        & (ds.field("width") == benchmark.width)
        & (ds.field("height") == benchmark.height)
        & (ds.field("num_frames") == benchmark.num_frames)
        & ds.field("seed").isin(list(benchmark.seeds))
    )
    groups: dict[Candidate, list[Generation]] = defaultdict(list)
    for row in dataset.generations.rows(where):
        candidate = Candidate(
            row.method,
            row.run_id or "",
            row.checkpoint_step or 0,
            row.num_inference_steps or 0,
            row.guidance_scale or 0.0,
        )
        groups[candidate].append(row)
    return dict(groups)


def _reference(groups: Mapping[Candidate, list[Generation]], run_id: str | None) -> Candidate | None:
    """The newest checkpoint of the run in use, with the sampler that most of its videos were made with."""
    of_run = [candidate for candidate in groups if run_id is not None and candidate.run_id == run_id]
    return max(of_run, key=lambda one: (one.step, len(groups[one]), one), default=None)


def _by_clip(rows: Iterable[Generation], key: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        value = getattr(row, key)
        if value is not None:
            found[row.clip_id].append(value)
    return dict(found)


def _cell(values: ClipFigures, reference: ClipFigures | None) -> Cell:
    if reference is None:
        return Cell(mean_interval(values), None)
    differences = {
        clip: [sum(values[clip]) / len(values[clip]) - sum(reference[clip]) / len(reference[clip])]
        for clip in values.keys() & reference.keys()
    }
    return Cell(mean_interval(values), mean_interval(differences))
