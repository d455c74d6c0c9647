"""Benchmark results: what was compared, the means of Table 1 with intervals, and every clip's figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.bootstrap import MeanInterval, mean_interval
from dwm_model.generation import GenerationRequest, plan_generations, read_generations
from dwm_model.geometry import ClipGeometry
from dwm_model.methods import MethodDescription
from dwm_model.metrics import NOT_ASKED_FOR, MetricOptions, missing_metrics
from manifests.benchmarks import FrozenBenchmark
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, Generation, GenerationStatus

RESULT_SCHEMA_VERSION = 1
"""Raised when a field of ``benchmark.json`` changes its meaning or goes."""

UNTRAINED_BANNER = "untrained base: not a result"
"""On every output in which a method's base model has random weights."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricColumn(_Model):
    """A column of the table."""

    key: str = Field(description="Name in the `generations` table.")
    label: str = Field(description="Name in the paper.")
    higher_is_better: bool = Field(description="Direction of the arrow.")
    digits: int = Field(description="Digits after the point.")
    is_region: bool = Field(default=False, description="Whether it belongs to the table of regions.")
    reason: str | None = Field(default=None, description="Why no video has a value; null when one has.")


COLUMNS = (
    MetricColumn(key="psnr", label="PSNR", higher_is_better=True, digits=2),
    MetricColumn(key="ssim", label="SSIM", higher_is_better=True, digits=3),
    MetricColumn(key="lpips_vgg", label="LPIPS", higher_is_better=False, digits=3),
    MetricColumn(key="lpips_alex", label="LPIPS (Alex)", higher_is_better=False, digits=3),
    MetricColumn(key="dreamsim", label="DreamSim", higher_is_better=False, digits=3),
    MetricColumn(key="psnr_object", label="PSNR object", higher_is_better=True, digits=2, is_region=True),
    MetricColumn(key="psnr_hands", label="PSNR hands", higher_is_better=True, digits=2, is_region=True),
    MetricColumn(key="psnr_rest", label="PSNR rest", higher_is_better=True, digits=2, is_region=True),
)
"""All columns; ``lpips_alex`` is shown only where it was asked for."""


class MethodSummary(_Model):
    """A method and how far it got."""

    description: MethodDescription = Field(description="What it is.")
    seeds: tuple[int, ...] = Field(description="Seeds that were generated.")
    ready: int = Field(description="Videos generated and measured.")
    failed: int = Field(description="Videos that could not be made; the clips say why.")
    absent: int = Field(description="Videos that were never tried: the benchmark was interrupted.")


class SectionKind(StrEnum):
    """What the clips of a section have in common."""

    ALL = "all"
    GROUP = "group"
    ACTION = "action"


class SectionRow(_Model):
    """Means of one method over the clips of a section."""

    method: str = Field(description="Name of the method.")
    missing_videos: int = Field(description="Videos of these clips that failed or were never tried.")
    metrics: dict[str, MeanInterval | None] = Field(description="Mean by column key; null where there is no value.")


class Section(_Model):
    """Means over some of the clips."""

    kind: SectionKind = Field(description="What the clips have in common.")
    name: str | None = Field(description="Group or action; null for all clips and for clips without one.")
    num_clips: int = Field(description="Clips of the benchmark in this section.")
    rows: tuple[SectionRow, ...] = Field(description="One row a method, in the order of the methods.")


class GeneratedVideo(_Model):
    """One generated video of a clip."""

    generation_id: str = Field(description="Key of its row.")
    method: str = Field(description="Name of the method.")
    seed: int = Field(description="Seed of the initial noise.")
    path: str | None = Field(description="The video, relative to the dataset; null when failed.")
    metrics: dict[str, float | None] = Field(description="Figures by column key; null where there is none.")
    reason: str | None = Field(description="Why it failed; null when it did not.")


class ClipResult(_Model):
    """One clip of the benchmark with all its videos."""

    clip_id: str = Field(description="The clip.")
    scene_id: str = Field(description="Scene that it shows.")
    group: str | None = Field(description="Column group of Table 1.")
    action_label: str | None = Field(description="Short name of the action.")
    prompt: str = Field(description="Text prompt, all lines.")
    fps: float = Field(description="Frames a second.")
    static_path: str | None = Field(description="Static video, relative to the dataset.")
    hands_path: str | None = Field(description="Hand video.")
    interaction_path: str | None = Field(description="Ground truth.")
    videos: tuple[GeneratedVideo, ...] = Field(description="Generated videos, by method and seed.")


class BenchmarkResult(_Model):
    """Everything that the table, the page and the figure show; written as ``benchmark.json``."""

    schema_version: int = Field(default=RESULT_SCHEMA_VERSION, description="Version of this form.")
    banner: str | None = Field(description="Warning that every output carries; null when there is none.")
    benchmark_name: str = Field(description="Name of the frozen benchmark.")
    benchmark_hash: str = Field(description="Its hash: only results with the same hash may be compared.")
    geometry: ClipGeometry = Field(description="Size and length of the generated videos.")
    num_clips: int = Field(description="Clips of the benchmark.")
    seeds: tuple[int, ...] = Field(description="Seeds of the benchmark.")
    methods: tuple[MethodSummary, ...] = Field(description="What was compared.")
    columns: tuple[MetricColumn, ...] = Field(description="Columns of the tables.")
    sections: tuple[Section, ...] = Field(description="All clips, then by group, then by action.")
    clips: tuple[ClipResult, ...] = Field(description="Every clip, by id.")


def benchmark_geometry(benchmark: FrozenBenchmark) -> ClipGeometry:
    """Size and length of the videos of a benchmark."""
    settings = benchmark.settings
    return ClipGeometry(width=settings.width, height=settings.height, num_frames=settings.num_frames)


def plan_benchmark(dataset: Dataset, benchmark: FrozenBenchmark, method: MethodDescription) -> list[GenerationRequest]:
    """Videos that a method is to make for a benchmark.

    Raises:
        DwmError: a clip is not in the manifest.
    """
    geometry = benchmark_geometry(benchmark)
    return plan_generations(dataset, benchmark.clip_ids, benchmark.settings.seeds, geometry, method)


def collect_result(
    dataset: Dataset, benchmark: FrozenBenchmark, methods: Sequence[MethodDescription], options: MetricOptions
) -> BenchmarkResult:
    """Gather the rows of a benchmark's videos into tables. Rows of other benchmarks' videos never get in.

    Args:
        dataset: The dataset.
        benchmark: The frozen benchmark.
        methods: Rows of the table, in order.
        options: What was measured; says why a column is empty.

    Raises:
        DwmError: a clip is not in the manifest, or two methods have the same name.
    """
    names = [method.name for method in methods]
    if len(set(names)) < len(names):
        raise DwmError(f"benchmark '{benchmark.name}': methods {names} need different names to be rows of one table")
    clips = list(dataset.clips.rows(where=ds.field("clip_id").isin(list(benchmark.clip_ids))))
    plans = [plan_benchmark(dataset, benchmark, method) for method in methods]
    rows = [read_generations(dataset, plan) for plan in plans]
    generations = [row for method_rows in rows for row in sorted(method_rows, key=lambda row: (row.clip_id, row.seed))]
    summaries = [_summary(*parts) for parts in zip(methods, plans, rows, strict=True)]
    untrained = any(method.base_is_untrained for method in methods)
    return BenchmarkResult(
        banner=UNTRAINED_BANNER if untrained else None,
        benchmark_name=benchmark.name,
        benchmark_hash=benchmark.hash,
        geometry=benchmark_geometry(benchmark),
        num_clips=len(benchmark.clip_ids),
        seeds=benchmark.settings.seeds,
        methods=tuple(summaries),
        columns=tuple(_columns(generations, options)),
        sections=tuple(_sections(clips, summaries, generations)),
        clips=tuple(_clip_result(clip, generations) for clip in clips),
    )


def _summary(method: MethodDescription, plan: Sequence[GenerationRequest], rows: Sequence[Generation]) -> MethodSummary:
    ready = sum(row.status is GenerationStatus.READY for row in rows)
    return MethodSummary(
        description=method,
        seeds=tuple(sorted({request.seed for request in plan})),
        ready=ready,
        failed=len(rows) - ready,
        absent=len(plan) - len(rows),
    )


def _columns(generations: Iterable[Generation], options: MetricOptions) -> Iterable[MetricColumn]:
    """The columns, with the reason where no video has a value."""
    measured = {column.key for column in COLUMNS for row in generations if getattr(row, column.key) is not None}
    missing = missing_metrics(options)
    for column in COLUMNS:
        if column.key in measured:
            yield column
        elif column.key != "lpips_alex" or missing.get(column.key) != NOT_ASKED_FOR:
            no_pixels = "not available: no clip has such pixels or masks" if column.is_region else None
            reason = missing.get(column.key) or no_pixels or "not available: no video was measured"
            yield column.model_copy(update={"reason": reason})


def _sections(
    clips: Sequence[Clip], methods: Sequence[MethodSummary], generations: Sequence[Generation]
) -> Iterable[Section]:
    """All clips, then by group in the order of Table 1, then by action; clips without one come last."""
    groups = sorted({clip.group for clip in clips}, key=_group_order)
    actions = sorted({clip.action_label for clip in clips}, key=lambda action: (action is None, action or ""))
    divisions: list[tuple[SectionKind, str | None, set[str]]] = [
        (SectionKind.ALL, None, {clip.clip_id for clip in clips}),
        *((SectionKind.GROUP, group, {clip.clip_id for clip in clips if clip.group == group}) for group in groups),
        *(
            (SectionKind.ACTION, action, {clip.clip_id for clip in clips if clip.action_label == action})
            for action in actions
        ),
    ]
    for kind, name, chosen in divisions:
        rows = (_section_row(summary, chosen, generations) for summary in methods)
        yield Section(kind=kind, name=name, num_clips=len(chosen), rows=tuple(rows))


def _section_row(summary: MethodSummary, clip_ids: set[str], generations: Iterable[Generation]) -> SectionRow:
    method = summary.description.name
    ready = [
        row
        for row in generations
        if row.method == method and row.clip_id in clip_ids and row.status is GenerationStatus.READY
    ]
    missing = len(clip_ids) * len(summary.seeds) - len(ready)
    return SectionRow(method=method, missing_videos=missing, metrics=_means(ready))


def _group_order(group: str | None) -> tuple[int, str]:
    order = ("synthetic_dynamic", "synthetic_static", "real_static", "real_dynamic")
    return (order.index(group) if group in order else len(order), group or "")


def _means(rows: Iterable[Generation]) -> dict[str, MeanInterval | None]:
    means: dict[str, MeanInterval | None] = {}
    for column in COLUMNS:
        values: dict[str, list[float]] = {}
        for row in rows:
            value = getattr(row, column.key)
            if value is not None:
                values.setdefault(row.clip_id, []).append(value)
        means[column.key] = mean_interval(values)
    return means


def _clip_result(clip: Clip, generations: Iterable[Generation]) -> ClipResult:
    return ClipResult(
        clip_id=clip.clip_id,
        scene_id=clip.scene_id,
        group=clip.group,
        action_label=clip.action_label,
        prompt=clip.prompt,
        fps=clip.fps,
        static_path=clip.static_path,
        hands_path=clip.hands_path,
        interaction_path=clip.interaction_path,
        videos=tuple(
            GeneratedVideo(
                generation_id=row.generation_id,
                method=row.method,
                seed=row.seed,
                path=row.path,
                metrics={column.key: getattr(row, column.key) for column in COLUMNS},
                reason=row.reason,
            )
            for row in generations
            if row.clip_id == clip.clip_id
        ),
    )
