"""Building triplets from fixed-camera videos as tasks: generated videos, a chunk of videos, groups, contact sheets."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task

from manifests.dataset import Dataset
from manifests.near_duplicates import NearDuplicateReport, group_near_duplicates
from sources.fixed_camera_build import BuildPlan, BuildReport, Chunk, build_chunk, build_chunk_in_worker
from sources.fixed_camera_sheet import write_scene_sheets
from sources.synthetic.fixed_camera import generate_fixed_camera
from tasks.artifacts import show_sheets
from tasks.retrying import is_worth_retrying


@task(name="generate-fixed-camera", retries=1, retry_condition_fn=is_worth_retrying)
def generate_fixed_camera_videos(raw: Path, count: int, seed: int) -> int:
    """Write the videos that are not there yet, in the layout of the release; returns how many were made."""
    report = generate_fixed_camera(raw, count, seed)
    get_run_logger().info("%d fixed-camera videos made, %d kept", report.made, report.kept)
    return report.made


@task(name="make-fixed-camera-chunk", retries=1, retry_condition_fn=is_worth_retrying)
def make_fixed_camera_chunk(dataset: Path, chunk: Chunk, *, in_process: bool) -> BuildReport:
    """Resample, repeat the first frame, estimate and draw hands, check, write: the clips that are not there yet.

    Here or in a spawned process of its own.
    """
    build = build_chunk if in_process else build_chunk_in_worker
    report = build(dataset, chunk)
    log = get_run_logger()
    log.info(
        "%s: %d ready, %d unchanged, %d dropped, %d failed; %.2f frames a second",
        chunk.name,
        report.ready,
        report.unchanged,
        report.dropped,
        len(report.failures),
        report.frames_per_second,
    )
    for failure in report.failures:
        log.warning("%s from %d: %s", failure.recording_id, failure.start_frame, failure.reason)
    return report


@task(name="group-near-duplicates")
def group_duplicates(dataset: Path) -> NearDuplicateReport:
    """Give clips that look alike a common group, so that splits keep them together."""
    report = group_near_duplicates(Dataset.open(dataset))
    get_run_logger().info("%d clips in %d groups of near duplicates", report.clips, report.groups)
    return report


@task(name="fixed-camera-sheets")
def show_scene_sheets(dataset: Path, plan: BuildPlan) -> list[Path]:
    """Draw a contact sheet of each scene (video, static, hands, overlay) beside the manifest and show it in the UI."""
    sheets = write_scene_sheets(Dataset.open(dataset), plan.scene_ids())
    show_sheets(sheets, "", "First fixed-camera clips of scene")
    return sheets
