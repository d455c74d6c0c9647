"""Building a dataset as tasks: generate recordings, import a chunk of clips, split."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task

from manifests.dataset import Dataset
from manifests.splits import SplitPolicy, SplitReport, SplitSettings, assign_splits
from sources.official import ClipRequest, ImportReport, ImportSettings, import_chunk
from sources.synthetic.recording import RecordingPlan
from sources.synthetic.write_exported import generate_recordings
from tasks.retrying import is_worth_retrying


@task(name="generate-recordings", retries=1, retry_condition_fn=is_worth_retrying)
def generate_recording_chunk(raw: Path, plans: list[RecordingPlan]) -> int:
    """Write the recordings that are not there yet, in the exported TRUMANS form; returns how many were made."""
    report = generate_recordings(raw, plans)
    get_run_logger().info("%d recordings made, %d kept", report.made, report.kept)
    return report.made


@task(name="import-clips", retries=1, retry_condition_fn=is_worth_retrying)
def import_clip_chunk(dataset: Path, requests: list[ClipRequest], settings: ImportSettings) -> ImportReport:
    """Check and copy some triplets, then write their rows."""
    report = import_chunk(dataset, requests, settings)
    for failure in (*report.failures, *report.conflicts):
        get_run_logger().warning("%s: %s", failure.official_path, failure.reason)
    return report


@task(name="split")
def split_dataset(dataset: Path, policy: SplitPolicy, settings: SplitSettings) -> SplitReport:
    """Put every clip into a split and audit what the splits share."""
    return assign_splits(Dataset.open(dataset), policy, settings)
