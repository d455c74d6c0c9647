"""Triplets in the official layout -> dataset."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from manifests.dataset import Dataset
from manifests.schema import Group
from sources.official import ImportReport, ImportSettings, copy_lists, plan_import
from tasks.artifacts import show_table
from tasks.building import import_clip_chunk
from tasks.contact_sheets import show_contact_sheet


class OfficialSource(BaseModel):
    """Triplets in the official layout."""

    model_config = ConfigDict(extra="forbid")

    raw: Path = Field(description="Folder with triplets in the official layout.")
    lists: list[Path] = Field(default=[], description="List files of videos, in order; the whole folder when empty.")
    group: Group | None = Field(default=None, description="Column group of Table 1; guessed from paths when absent.")
    limit: int | None = Field(default=None, description="Import at most this many clips.", gt=0)
    only: str | None = Field(default=None, description="Import only paths that match this pattern.")
    refresh: bool = Field(default=False, description="Import clips again whose raw files have changed.")


class BuildOfficialParameters(OfficialSource):
    """What to import, and where to."""

    dataset: Path = Field(description="Dataset folder; made when absent, added to when it exists.")


@flow(name="build-official")
def build_official(parameters: BuildOfficialParameters) -> ImportReport:
    """Plan, import chunk by chunk, show what failed and what the clips look like."""
    settings = ImportSettings(group=parameters.group, refresh=parameters.refresh)
    plan = plan_import(parameters.raw, parameters.lists, limit=parameters.limit, only=parameters.only)
    dataset = Dataset.create_or_open(parameters.dataset)
    copy_lists(dataset, plan, settings)
    reports = [import_clip_chunk(parameters.dataset, list(chunk), settings) for chunk in plan.chunks()]
    report = ImportReport.merged([*reports, ImportReport(latent_files_left=plan.latent_files_left)])
    problems = [failure.model_dump() for failure in (*report.failures, *report.conflicts)]
    show_table("import-failures", problems, "Clips that could not be imported, and why")
    show_contact_sheet(parameters.dataset)
    return report
