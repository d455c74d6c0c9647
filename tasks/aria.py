"""Aria captures as tasks: generated ones, and the three stages of a capture: ingest, reconstruct, pair."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task

from manifests.dataset import Dataset
from manifests.profiles import Profile
from sources.aria_build import BuildPlan, BuildReport, CaptureWork, ingest_capture, pair_capture, reconstruct_capture
from sources.aria_sheet import write_capture_sheets
from sources.synthetic.aria_capture import CapturePlan, generate_captures
from sources.synthetic.aria_hands import write_hand_files
from tasks.artifacts import show_sheets
from tasks.retrying import is_worth_retrying


@task(name="generate-aria-captures", retries=1, retry_condition_fn=is_worth_retrying)
def generate_aria_captures(raw: Path, plans: list[CapturePlan], profile: Profile) -> int:
    """Write the captures that are not there yet, with the true hands of their clips; returns how many were made."""
    report = generate_captures(raw, plans)
    write_hand_files(raw, plans, profile)
    get_run_logger().info("%d captures made, %d kept", report.made, report.kept)
    return report.made


@task(name="ingest-aria-capture", retries=1, retry_condition_fn=is_worth_retrying)
def ingest_aria_capture(dataset: Path, work: CaptureWork) -> BuildReport | None:
    """Open and check a capture; a report where nothing remains to be done."""
    report = ingest_capture(dataset, work)
    get_run_logger().info("%s: %s", work.name, "to be made" if report is None else report.lines()[0])
    return report


@task(name="reconstruct-aria-scene", retries=1, retry_condition_fn=is_worth_retrying)
def reconstruct_aria_scene(dataset: Path, work: CaptureWork) -> BuildReport | None:
    """Fit the scene to the exploration, or go on with it; a report where that cannot be done."""
    return reconstruct_capture(dataset, work)


@task(name="pair-aria-capture", retries=1, retry_condition_fn=is_worth_retrying)
def pair_aria_capture(dataset: Path, work: CaptureWork) -> BuildReport:
    """Render the scene along the interaction, find hands, check, write."""
    report = pair_capture(dataset, work)
    get_run_logger().info("%s: %s", work.name, report.lines()[0])
    return report


@task(name="aria-capture-sheets")
def show_capture_sheets(dataset: Path, plan: BuildPlan) -> list[Path]:
    """Draw a contact sheet of each capture (recording, static, hands, overlay) beside the manifest, shown in the UI."""
    sheets = write_capture_sheets(Dataset.open(dataset), plan.recording_ids())
    show_sheets(sheets, "", "First clips of capture")
    return sheets
