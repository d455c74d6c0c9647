"""The pages as HTML: what a dataset's tables hold, filled into the templates. Everything in them is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow.dataset as ds
from jinja2 import Environment, PackageLoader, StrictUndefined

from dwm_model.run_log import VALIDATION_FILE, Journal, ValidationRecord
from dwm_model.tables import ABSENT, format_value
from gallery.clip_search import FILTERS, ClipQuery, find_clips, neighbours
from gallery.run_comparison import compare_runs
from manifests import benchmarks, registry
from manifests.dataset import Dataset
from manifests.explain import explain_clip
from manifests.schema import Clip, Generation, GenerationStatus, Run

CURVE_WIDTH, CURVE_HEIGHT = 220, 56
"""Size of a run's validation curve, pixels."""


@dataclass(frozen=True)
class _Tile:
    """A video on a clip's page."""

    label: str
    address: str | None
    facts: tuple[tuple[str, str], ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class _RunView:
    """A run on the page of runs."""

    run: Run
    curve: str | None
    first_loss: float | None
    last_loss: float | None


def clips_page(dataset: Dataset, query: ClipQuery) -> str:
    """The list of clips.

    Raises:
        DwmError: the manifest cannot be read.
    """
    return _render("clips.html.j2", dataset, query=query, page=find_clips(dataset, query), filters=FILTERS)


def clip_page(dataset: Dataset, clip_id: str, query: ClipQuery) -> str:
    """Everything about a clip, with the form for a verdict.

    Raises:
        DwmError: no such clip, or the manifest cannot be read.
    """
    clip = dataset.clips.get(clip_id)
    before, after = neighbours(dataset, query, clip_id)
    return _render(
        "clip.html.j2",
        dataset,
        clip=clip,
        query=query,
        before=before,
        after=after,
        tiles=[*_clip_tiles(clip), *_generated_tiles(dataset, clip)],
        sections=explain_clip(dataset, clip_id).sections,
    )


def runs_page(dataset: Dataset, benchmark_name: str | None) -> str:
    """The training runs, what was decided about them, and their comparison on a frozen benchmark.

    Args:
        dataset: the dataset.
        benchmark_name: which; None for the first by name.

    Raises:
        DwmError: no such benchmark, or the manifest cannot be read.
    """
    names = sorted(each.name for each in benchmarks.frozen(dataset))
    chosen = benchmark_name or (names[0] if names else None)
    comparison = None if chosen is None else compare_runs(dataset, benchmarks.load(dataset, chosen))
    runs = sorted(dataset.runs.rows(), key=lambda run: (run.created_at, run.run_id), reverse=True)
    return _render(
        "runs.html.j2",
        dataset,
        runs=[_run_view(dataset, run) for run in runs],
        decisions=registry.history(dataset)[::-1],
        names=names,
        comparison=comparison,
        format_value=format_value,
        absent=ABSENT,
        curve_size=(CURVE_WIDTH, CURVE_HEIGHT),
    )


def problem_page(dataset: Dataset, message: str) -> str:
    """What went wrong, in the frame of the other pages."""
    return _render("problem.html.j2", dataset, message=message)


def _clip_tiles(clip: Clip) -> list[_Tile]:
    labels = {"static_path": "Static scene", "hands_path": "Hands", "interaction_path": "Interaction"}
    return [
        _Tile(label, f"/media/{clip.clip_id}/{column}" if getattr(clip, column) else None, reason="not available")
        for column, label in labels.items()
    ]


def _generated_tiles(dataset: Dataset, clip: Clip) -> list[_Tile]:
    rows = dataset.generations.rows(ds.field("clip_id") == clip.clip_id)
    return [_generated_tile(row) for row in sorted(rows, key=lambda row: (row.method, row.run_id or "", row.seed))]


def _generated_tile(row: Generation) -> _Tile:
    run = () if row.run_id is None else (("run", f"{row.run_id[:8]}, step {row.checkpoint_step}"),)
    sampler = () if row.num_inference_steps is None else (("seed", f"{row.seed}, {row.num_inference_steps} steps"),)
    figures = () if row.psnr is None else (("PSNR", f"{row.psnr:.2f} dB"),)
    is_there = row.status is GenerationStatus.READY and row.path is not None
    return _Tile(
        row.method,
        f"/generated/{row.generation_id}" if is_there else None,
        (*run, *sampler, *figures),
        row.reason or "failed without a reason",
    )


def _run_view(dataset: Dataset, run: Run) -> _RunView:
    records = Journal(dataset.absolute(run.run_path) / VALIDATION_FILE, ValidationRecord).records()
    points = [(record.step, record.loss) for record in records]
    if not points:
        return _RunView(run, None, None, None)
    return _RunView(run, curve_of(points), points[0][1], points[-1][1])


def curve_of(points: Sequence[tuple[int, float]]) -> str | None:
    """Points of an SVG polyline through (step, loss) within the curve's size; None for a single point."""
    steps, losses = [step for step, _ in points], [loss for _, loss in points]
    width, height = max(steps) - min(steps), max(losses) - min(losses)
    if not width:
        return None
    return " ".join(
        f"{2 + (CURVE_WIDTH - 4) * (step - min(steps)) / width:.1f},"
        f"{2 + (CURVE_HEIGHT - 4) * ((max(losses) - loss) / height if height else 0.5):.1f}"
        for step, loss in points
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("gallery"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(template: str, dataset: Dataset, **values: Any) -> str:
    return _environment().get_template(template).render(name=dataset.root.resolve().name, **values)
