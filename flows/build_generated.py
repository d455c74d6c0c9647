"""Generated recordings, fixed-camera videos and Aria captures -> triplets, through the real readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from flows.build_aria import BuildAriaParameters, build_aria
from flows.build_fixed_camera import BuildFixedCameraParameters, build_fixed_camera
from flows.build_trumans import BuildTrumansParameters, build_trumans
from manifests.profiles import get_profile
from manifests.schema import Source
from render.hand_estimation.settings import HandEstimationSettings
from sources.synthetic.aria_capture import RATE_HZ, CapturePlan
from sources.synthetic.marks import claim_folder
from sources.synthetic.recording import RecordingPlan, plan_recordings
from sources.trumans_build import BuildReport
from tasks.aria import generate_aria_captures
from tasks.building import generate_recording_chunk
from tasks.fixed_camera import generate_fixed_camera_videos

RECORDINGS_A_TASK = 4
FIXED_CAMERA_SEED, ARIA_SEED = 100, 200
"""Other rooms than the recordings': no two sources show the same."""

LICENCE = "CC0-1.0"
"""Licence of generated data."""


class GeneratedSource(BaseModel):
    """Data that is generated, a little of each kind."""

    model_config = ConfigDict(extra="forbid")

    raw: Path = Field(description="Folder for the generated raw data, a subfolder a kind.")
    num_scenes: int = Field(default=8, description="Generated rooms.", gt=2)
    recordings_per_scene: int = Field(default=2, description="Recordings a generated room.", gt=0)
    fixed_camera_videos: int = Field(default=3, description="Generated videos of a camera that stands still.", ge=0)
    aria_captures: int = Field(default=1, description="Generated captures: explored, then acted in.", ge=0)


class BuildGeneratedParameters(GeneratedSource):
    """What to generate, and where to."""

    dataset: Path = Field(description="Dataset folder; made when absent, added to when it exists.")
    profile: str = Field(default="mini", description="Size, length and sampling of the clips.")


class BuildGeneratedResult(BaseModel):
    """What was built."""

    failures: int = Field(description="Clips whose row is `failed`.")


@flow(name="build-generated")
def build_generated(parameters: BuildGeneratedParameters) -> BuildGeneratedResult:
    """Generate what is not there yet, then build it kind by kind."""
    recordings = parameters.raw / "recordings"
    plans = plan_recordings(parameters.num_scenes, parameters.recordings_per_scene, seed=0)
    claim_folder(recordings, seed=0)
    failures = len(build_recordings(recordings, parameters.dataset, plans, parameters.profile).failures)
    if parameters.fixed_camera_videos:
        failures += build_videos(parameters)
    if parameters.aria_captures:
        failures += build_captures(parameters)
    return BuildGeneratedResult(failures=failures)


def build_recordings(
    raw: Path,
    dataset: Path,
    plans: Sequence[RecordingPlan],
    profile: str,
    *,
    a_task: int = RECORDINGS_A_TASK,
    workers: int = 1,
) -> BuildReport:
    """Generate the recordings that are missing, ``a_task`` in each task, and build those clips that are missing.

    They are written in the exported TRUMANS form, then built as anybody's recordings are.
    """
    for start in range(0, len(plans), a_task):
        generate_recording_chunk(raw, list(plans[start : start + a_task]))
    return build_trumans(
        BuildTrumansParameters(
            raw=raw, dataset=dataset, profile=profile, source=Source.SYNTHETIC, licence=LICENCE, workers=workers
        )
    )


def build_videos(parameters: BuildGeneratedParameters) -> int:
    """Generate fixed-camera videos and find their hands; returns the number of failed clips."""
    raw, dataset, profile = parameters.raw / "fixed_camera", parameters.dataset, parameters.profile
    generate_fixed_camera_videos(raw, parameters.fixed_camera_videos, FIXED_CAMERA_SEED)
    chosen = BuildFixedCameraParameters(raw=raw, dataset=dataset, profile=profile, licence=LICENCE)
    return len(build_fixed_camera(chosen).failures)


def build_captures(parameters: BuildGeneratedParameters) -> int:
    """Generate Aria captures, reconstruct their scenes and pair them; returns the number of failed clips."""
    raw, profile = parameters.raw / "aria", get_profile(parameters.profile)
    seconds = profile.num_frames / profile.fps
    plans = [
        CapturePlan(ARIA_SEED, number, explore_frames=32, act_frames=round(seconds * RATE_HZ) + 2)
        for number in range(parameters.aria_captures)
    ]
    generate_aria_captures(raw, plans, profile)
    chosen = BuildAriaParameters(
        raw=raw,
        dataset=parameters.dataset,
        profile=parameters.profile,
        reconstruction="demo",
        licence=LICENCE,
        hands=HandEstimationSettings(estimator="file"),
    )
    return len(build_aria(chosen).failures)
