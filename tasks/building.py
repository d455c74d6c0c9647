"""Building a dataset as tasks: a whole source, generated recordings, a chunk of clips, splits, audit, commit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefect import get_run_logger, task

from manifests.commits import DatasetCommit, commit
from manifests.dataset import Dataset
from manifests.leaks import LEAK_TABLE_HEAD, require_no_leak
from manifests.splits import SplitPolicy, SplitReport, SplitSettings, assign_splits
from sources.official import ClipRequest, ImportReport, ImportSettings, import_chunk
from sources.synthetic.recording import RecordingPlan
from sources.synthetic.write_exported import generate_recordings
from tasks.artifacts import show_table
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


@task(name="build-source")
def build_source(build: Callable[[], int]) -> int:
    """Run the flow of one source beside others; returns its number of failures."""
    return build()


@task(name="leak-audit")
def audit_splits(report: SplitReport, *, stop: bool) -> None:
    """Show what the splits share; with ``stop``, end the build where the policy promises that they share nothing.

    Raises:
        LeakError: a leak at a level that the policy forbids.
    """
    rows = [dict(zip(LEAK_TABLE_HEAD, cells, strict=True)) for cells in report.leaks.cells()]
    show_table("leak-audit", rows, f"What the splits share; policy {report.policy.value}")
    if stop:
        require_no_leak(report.leaks)


@task(name="commit-dataset")
def commit_dataset(dataset: Path) -> DatasetCommit:
    """Write down what the dataset is now that its build has come to its end."""
    return commit(Dataset.open(dataset))
