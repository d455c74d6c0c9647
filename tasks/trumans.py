"""Building triplets from TRUMANS recordings as tasks: a chunk of clips of one scene, and contact sheets."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task

from manifests.dataset import Dataset
from sources.trumans_blend import default_export_folder, export_blends
from sources.trumans_build import BuildPlan, BuildReport, Chunk, build_chunk, build_chunk_in_worker, record_skipped
from sources.trumans_sheet import write_recording_sheets
from tasks.artifacts import show_sheets
from tasks.retrying import is_worth_retrying


@task(name="export-blend-scenes")
def export_blend_scenes(raw: Path, exported: Path | None, dataset: Path, only: str | None) -> Path:
    """Export the Blender files of a release that have not been; returns the folder that holds the exported form."""
    report = export_blends(raw, exported or default_export_folder(raw, dataset), only=only)
    log = get_run_logger()
    for line in report.lines():
        log.info(line)
    return report.folder


@task(name="render-trumans-chunk", retries=1, retry_condition_fn=is_worth_retrying)
def render_trumans_chunk(dataset: Path, plan: BuildPlan, chunk: Chunk, *, in_process: bool) -> BuildReport:
    """Make the clips of a chunk that are not there yet, here or in a spawned process of its own."""
    build = build_chunk if in_process else build_chunk_in_worker
    report = build(dataset, plan, chunk)
    log = get_run_logger()
    log.info(
        "scene %s: %d ready, %d unchanged, %d dropped, %d failed; %.1f frames a second by %s",
        chunk.scene_id,
        report.ready,
        report.unchanged,
        report.dropped,
        len(report.failures),
        report.frames_per_second,
        ", ".join(report.gl_renderers) or "nothing: no clip was left to draw",
    )
    for failure in report.failures:
        log.warning("%s from %d: %s", failure.recording_id, failure.start_frame, failure.reason)
    return report


@task(name="record-skipped-motions")
def record_skipped_motions(dataset: Path, plan: BuildPlan) -> int:
    """Write a dropped row for every motion that gives no clip."""
    return record_skipped(Dataset.create_or_open(dataset), plan)


@task(name="recording-sheets")
def show_recording_sheets(dataset: Path, plan: BuildPlan) -> list[Path]:
    """Draw a contact sheet of each recording beside the manifest and show it in the UI."""
    sheets = write_recording_sheets(Dataset.open(dataset), plan.recording_ids())
    show_sheets(sheets, "recording-", "First clips of recording")
    return sheets
