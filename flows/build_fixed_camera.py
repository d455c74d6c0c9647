"""Fixed-camera videos (TASTE-Rob or any other) -> triplets in a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from manifests.dataset import Dataset
from manifests.profiles import get_profile
from render.framing import FitPolicy, LengthPolicy
from render.hand_estimation.settings import HandEstimationSettings
from sources.captions import CaptionSettings
from sources.fixed_camera_build import BuildReport, FixedCameraSettings, plan_build
from sources.taste_rob import Subset
from tasks.artifacts import show_table
from tasks.fixed_camera import group_duplicates, make_fixed_camera_chunk, show_scene_sheets


class FixedCameraSource(BaseModel):
    """Videos of a camera that stands still."""

    model_config = ConfigDict(extra="forbid")

    raw: Path = Field(description="TASTE-Rob's release or a part of it, or any folder of fixed-camera videos.")
    subset: Subset = Field(default=Subset.DOUBLE_HAND, description="Part of the release.")
    captions: Path | None = Field(default=None, description="Caption file, where the folder's own is not the one.")
    limit: int | None = Field(default=None, description="At most this many videos.", gt=0)
    only: str | None = Field(default=None, description="Only videos or scenes whose name matches this pattern.")
    licence: str | None = Field(default=None, description="Licence of the source data.")
    fit: FitPolicy = Field(default=FitPolicy.PAD, description="How a picture gets the clip's size.")
    short: LengthPolicy = Field(default=LengthPolicy.PAD_LAST, description="What is done about a short video.")
    windows: int = Field(default=1, description="Clips of one video at most.", gt=0)
    moving_camera: Literal["flag", "drop"] = Field(default="flag", description="About clips whose camera moves.")
    no_hands: Literal["flag", "drop"] = Field(default="flag", description="About clips in which no hand is found.")
    hands: HandEstimationSettings = Field(default_factory=HandEstimationSettings, description="The hand estimator.")
    prompts: CaptionSettings = Field(default_factory=CaptionSettings, description="Where prompts come from.")
    workers: int = Field(default=1, description="Processes; 1 works in the flow's own process.", gt=0)


class BuildFixedCameraParameters(FixedCameraSource):
    """What to build, and where to."""

    dataset: Path = Field(description="Dataset folder; made when absent, added to when it exists.")
    profile: str = Field(default="paper", description="Size, length and frame rate of the clips.")

    def settings(self) -> FixedCameraSettings:
        """How clips are made."""
        return FixedCameraSettings(
            profile=get_profile(self.profile),
            licence=self.licence,
            fit=self.fit,
            short=self.short,
            windows=self.windows,
            moving_camera=self.moving_camera,
            no_hands=self.no_hands,
            hands=self.hands,
            captions=self.prompts,
        )


@flow(name="build-fixed-camera")
def build_fixed_camera(parameters: BuildFixedCameraParameters) -> BuildReport:
    """Discover and plan, make clips chunk by chunk, group near duplicates, show failures and contact sheets."""
    plan = plan_build(
        parameters.raw,
        parameters.settings(),
        subset=parameters.subset,
        captions=parameters.captions,
        limit=parameters.limit,
        only=parameters.only,
    )
    Dataset.create_or_open(parameters.dataset)
    reports = [BuildReport(notes=plan.notes)]
    for start in range(0, len(plan.chunks), parameters.workers):
        batch = plan.chunks[start : start + parameters.workers]
        alone = parameters.workers == 1
        futures = [make_fixed_camera_chunk.submit(parameters.dataset, chunk, in_process=alone) for chunk in batch]
        reports += [future.result() for future in futures]
    report = BuildReport.merged(reports)
    group_duplicates(parameters.dataset)
    rows = [each.model_dump(mode="json") for each in report.failures]
    show_table("build-failures", rows, "Clips that could not be made, and why")
    show_scene_sheets(parameters.dataset, plan)
    return report
