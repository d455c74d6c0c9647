"""Aria captures -> triplets in a dataset: ingest, reconstruct, pair, check, manifest."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from manifests.dataset import Dataset
from manifests.profiles import get_profile
from render.framing import LengthPolicy
from render.hand_estimation.settings import HandEstimationSettings
from sources.aria_build import BuildReport, plan_build
from sources.aria_settings import AriaGates, AriaSettings, reconstruction_settings
from tasks.aria import ingest_aria_capture, pair_aria_capture, reconstruct_aria_scene, show_capture_sheets
from tasks.artifacts import show_table


class AriaSource(BaseModel):
    """Captures with Aria glasses."""

    model_config = ConfigDict(extra="forbid")

    raw: Path = Field(description="Folder of captures, or one VRS file.")
    reconstruction: str = Field(default="auto", description="`paper` (GPU), `aria_mini` (CPU), `demo`, or `auto`.")
    steps: int | None = Field(default=None, description="Steps of the fit; the profile's when absent.", gt=0)
    limit: int | None = Field(default=None, description="At most this many captures.", gt=0)
    only: str | None = Field(default=None, description="Only captures whose name matches this pattern.")
    licence: str | None = Field(default=None, description="Licence of the captures.")
    interaction_start_s: float | None = Field(default=None, description="Where the interaction begins, in every one.")
    mask_hands: bool = Field(default=True, description="Leave hands in the exploration out of the scene.")
    explore_masks: Path | None = Field(default=None, description="Masks of the exploration, instead.")
    windows: int = Field(default=1, description="Clips of one interaction at most.", gt=0)
    short: LengthPolicy = Field(default=LengthPolicy.PAD_LAST, description="About a short interaction.")
    hands: HandEstimationSettings = Field(default_factory=HandEstimationSettings, description="The hand estimator.")
    gates: AriaGates = Field(default_factory=AriaGates, description="What a clip must reach.")


class BuildAriaParameters(AriaSource):
    """What to build, and where to."""

    dataset: Path = Field(description="Dataset folder; made when absent, added to when it exists.")
    profile: str = Field(default="paper", description="Size, length and frame rate of the clips.")

    def settings(self) -> AriaSettings:
        """How clips are made."""
        return AriaSettings(
            profile=get_profile(self.profile),
            licence=self.licence,
            interaction_start_s=self.interaction_start_s,
            mask_hands=self.mask_hands,
            explore_masks=self.explore_masks,
            windows=self.windows,
            short=self.short,
            reconstruction=reconstruction_settings(self.reconstruction, self.steps),
            hands=self.hands,
            gates=self.gates,
        )


@flow(name="build-aria")
def build_aria(parameters: BuildAriaParameters) -> BuildReport:
    """Take capture after capture through its stages; show what failed, and contact sheets."""
    plan = plan_build(parameters.raw, parameters.settings(), limit=parameters.limit, only=parameters.only)
    dataset = parameters.dataset
    Dataset.create_or_open(dataset)
    reports = []
    for work in plan.captures:
        done = ingest_aria_capture(dataset, work) or reconstruct_aria_scene(dataset, work)
        reports.append(done or pair_aria_capture(dataset, work))
    report = BuildReport.merged(reports)
    rows = [each.model_dump(mode="json") for each in report.failures]
    show_table("build-failures", rows, "Clips that could not be made, and why")
    show_capture_sheets(dataset, plan)
    return report
