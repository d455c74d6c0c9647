"""TRUMANS recordings -> aligned triplets in a dataset."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from manifests.profiles import get_profile
from manifests.schema import Source
from sources.trumans_build import BuildReport, TrumansSettings, plan_build
from tasks.artifacts import show_table
from tasks.trumans import export_blend_scenes, record_skipped_motions, render_trumans_chunk, show_recording_sheets


class TrumansSource(BaseModel):
    """TRUMANS recordings, as released or exported."""

    model_config = ConfigDict(extra="forbid")

    raw: Path = Field(description="TRUMANS folder, as released or in the exported form.")
    source: Source = Field(default=Source.TRUMANS, description="`synthetic` for generated recordings.")
    licence: str | None = Field(default=None, description="Licence of the source data.")
    limit: int | None = Field(default=None, description="At most this many clips.", gt=0)
    only: str | None = Field(default=None, description="Only recordings or scenes whose name matches this pattern.")
    scene_mesh: Path | None = Field(default=None, description="Mesh of the scene where the folder names none.")
    export_blend: bool = Field(
        default=False, description="First export Recordings_blend/*.blend, with textures and true object poses."
    )
    exported: Path | None = Field(
        default=None, description="Where `export_blend` writes; beside the dataset when absent."
    )
    workers: int = Field(default=1, description="Processes that draw; 1 draws in the flow's own process.", gt=0)


class BuildTrumansParameters(TrumansSource):
    """What to build, and where to."""

    dataset: Path = Field(description="Dataset folder; made when absent, added to when it exists.")
    profile: str = Field(default="paper", description="Size, length and sampling of the clips.")

    def settings(self) -> TrumansSettings:
        """How clips are drawn."""
        return TrumansSettings(profile=get_profile(self.profile), source=self.source, licence=self.licence)


@flow(name="build-trumans")
def build_trumans(parameters: BuildTrumansParameters) -> BuildReport:
    """Export, if asked; plan; draw, check and write chunk by chunk; show what failed and what clips look like."""
    raw = parameters.raw
    if parameters.export_blend:
        raw = export_blend_scenes(raw, parameters.exported, parameters.dataset, parameters.only)
    plan = plan_build(
        raw,
        parameters.settings(),
        scene_mesh=parameters.scene_mesh,
        limit=parameters.limit,
        only=parameters.only,
    )
    reports = [BuildReport(dropped=record_skipped_motions(parameters.dataset, plan))]
    for start in range(0, len(plan.chunks), parameters.workers):
        batch = plan.chunks[start : start + parameters.workers]
        alone = parameters.workers == 1
        futures = [render_trumans_chunk.submit(parameters.dataset, plan, chunk, in_process=alone) for chunk in batch]
        reports += [future.result() for future in futures]
    report = BuildReport.merged(reports)
    rows = [each.model_dump(mode="json") for each in report.failures]
    show_table("build-failures", rows, "Clips that could not be made, and why")
    show_recording_sheets(parameters.dataset, plan)
    return report
