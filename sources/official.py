"""Import of triplets in the official folder layout into a dataset; `sources/official_export.py` is the way back.

The original bytes are kept (a copy, or a reflink where the disk allows). A triplet with a missing, broken or
mismatching member becomes a ``failed`` row with the reason; one without its interaction video ``conditions_only``.
Killing an import loses at most the clip in hand: files are written before rows, and running it again continues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field

from manifests.atomic import copy_file
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import hash_config
from manifests.schema import Clip, ClipStatus, Group
from render.video import declared_duration_s
from sources.official_clip import build_row, check_group, failed_row, hash_members
from sources.official_export import ExportReport, ListReport, export_official
from sources.official_layout import (
    VIDEO_FOLDERS,
    ClipMetadata,
    ClipRequest,
    count_latent_files,
    find_official_paths,
    list_lines,
    matches,
)

__all__ = [
    "ClipMetadata",
    "ClipRequest",
    "ExportReport",
    "Failure",
    "ImportPlan",
    "ImportReport",
    "ImportSettings",
    "ListReport",
    "PlanFigures",
    "copy_lists",
    "export_official",
    "import_chunk",
    "import_official",
    "plan_import",
]

CHUNK_CLIPS = 32
"""Clips whose rows are written together, and that one task imports."""

Chunk: TypeAlias = tuple[ClipRequest, ...]
"""Clips that are imported together."""

_logger = logging.getLogger(__name__)


class ImportSettings(BaseModel):
    """What decides how a clip's row is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Group | None = Field(
        default=None, description="Column group of Table 1 for all clips; else metadata, else known folder names."
    )
    refresh: bool = Field(
        default=False, description="Import clips again whose raw files have changed since, instead of a conflict."
    )


class PlanFigures(BaseModel):
    """Size of an import (``--plan``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: int = Field(description="Clips to import.")
    hours: float = Field(description="Length of their interaction (else static) videos by their headers.")
    disk_bytes: int = Field(description="Bytes of the files that are copied.")
    clips_without_files: int = Field(description="Clips that a list names and of which nothing is on disk.")

    def lines(self) -> list[str]:
        """The figures for people."""
        lines = [f"{self.clips} clips, {self.hours:.2f} hours, {self.disk_bytes / 1e9:.3f} GB to copy"]
        if self.clips_without_files:
            lines.append(f"{self.clips_without_files} of them have no file on disk")
        return lines


class ImportPlan(BaseModel):
    """What an import is going to do; serialises, so that tasks can share it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    raw_root: Path = Field(description="Folder that official paths are relative to.")
    lists: tuple[Path, ...] = Field(description="List files that are copied into the dataset.")
    requests: tuple[ClipRequest, ...] = Field(description="Clips in the order of the lists, or in natural order.")
    latent_files_left: int = Field(description="Pre-encoded files found below the raw root, which are not imported.")

    def chunks(self, size: int = CHUNK_CLIPS) -> list[Chunk]:
        """The requests in groups of at most ``size``."""
        return [self.requests[start : start + size] for start in range(0, len(self.requests), size)]

    def figures(self) -> PlanFigures:
        """Count clips, hours and bytes; opens the headers of the videos and writes nothing."""
        seconds, size, absent = 0.0, 0, 0
        for request in self.requests:
            members = request.members()
            size += sum(path.stat().st_size for path in members.values())
            absent += not any(role in members for role in VIDEO_FOLDERS)
            video = members.get("interaction") or members.get("static")
            if video is not None:
                try:
                    seconds += declared_duration_s(video)
                except DwmError as error:
                    _logger.warning("%s", error)
        return PlanFigures(clips=len(self.requests), hours=seconds / 3600, disk_bytes=size, clips_without_files=absent)


class Failure(BaseModel):
    """A clip that could not be imported as asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_id: str = Field(description="Id of the clip.")
    official_path: str = Field(description="Its path in the raw folder.")
    reason: str = Field(description="One line: why.")


class ImportReport(BaseModel):
    """What an import did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ready: int = Field(default=0, description="Whole triplets that were imported now.")
    conditions_only: int = Field(default=0, description="Clips without interaction video that were imported now.")
    unchanged: int = Field(default=0, description="Clips that had been imported before, from the same bytes.")
    failures: tuple[Failure, ...] = Field(default=(), description="Clips whose row is `failed`.")
    conflicts: tuple[Failure, ...] = Field(
        default=(), description="Imported clips whose raw files have other bytes now; their rows were kept."
    )
    latent_files_left: int = Field(default=0, description="Pre-encoded files that were not imported.")

    @property
    def has_problems(self) -> bool:
        """Whether the command should end with exit code 1."""
        return bool(self.failures or self.conflicts)

    def lines(self) -> list[str]:
        """The report for people: counts, then one line a problem."""
        counts = f"{self.ready} ready, {self.conditions_only} without ground truth, {self.unchanged} unchanged"
        lines = [f"{counts}, {len(self.failures)} failed, {len(self.conflicts)} in conflict"]
        lines += [f"failed: {failure.reason}" for failure in self.failures]
        lines += [f"conflict: {conflict.reason}" for conflict in self.conflicts]
        if self.latent_files_left:
            lines.append(f"{self.latent_files_left} pre-encoded files were not imported; `dwm encode` makes them anew")
        return lines

    @classmethod
    def merged(cls, reports: Iterable[ImportReport]) -> ImportReport:
        """The reports of several chunks as one."""
        all_reports = list(reports)
        return cls(
            ready=sum(report.ready for report in all_reports),
            conditions_only=sum(report.conditions_only for report in all_reports),
            unchanged=sum(report.unchanged for report in all_reports),
            failures=tuple(failure for report in all_reports for failure in report.failures),
            conflicts=tuple(conflict for report in all_reports for conflict in report.conflicts),
            latent_files_left=sum(report.latent_files_left for report in all_reports),
        )


def plan_import(
    raw_root: Path,
    lists: Sequence[Path] = (),
    *,
    collection: str | None = None,
    limit: int | None = None,
    only: str | None = None,
) -> ImportPlan:
    """Find the clips of a raw folder, or of list files in their order; a clip that is named twice is taken once.

    Args:
        raw_root: Folder that holds the samples and that list lines are relative to.
        lists: List files; without any, every clip below the folder in natural order.
        collection: Name of the raw data, part of every clip's id; the folder's own name when None.
        limit: At most this many clips.
        only: Shell pattern on the official path or the stem.

    Raises:
        DwmError: no such folder, nothing in the official layout, a bad list file, or nothing that fits ``only``.
    """
    raw_root = raw_root.resolve()
    if not raw_root.is_dir():
        raise DwmError(f"{raw_root}: no such folder; give the folder that holds the samples")
    names = [path.name for path in lists]
    for name in names:
        if names.count(name) > 1:
            raise DwmError(f"{name}: two list files have this name; rename one, the dataset keeps both")
    order: dict[str, int | None] = {}
    for path in lists:
        for position, line in enumerate(list_lines(path)):
            order.setdefault(line, position)
    if not lists:
        order = dict.fromkeys(find_official_paths(raw_root))
    wanted = [path for path in order if only is None or matches(path, only)]
    if not wanted:
        raise DwmError(f"{raw_root}: none of {len(order)} clips fits the pattern '{only}'; try '*{only}*'")
    requests = tuple(
        ClipRequest(
            raw_root=raw_root, collection=collection or raw_root.name, official_path=path, list_order=order[path]
        )
        for path in wanted[:limit]
    )
    return ImportPlan(
        raw_root=raw_root,
        lists=tuple(path.resolve() for path in lists),
        requests=requests,
        latent_files_left=count_latent_files(raw_root),
    )


def copy_lists(dataset: Dataset, plan: ImportPlan, settings: ImportSettings) -> None:
    """Keep the plan's list files in the dataset, byte for byte.

    Raises:
        DwmError: the dataset has another list file of that name (unless ``settings.refresh``).
    """
    for path in plan.lists:
        target = dataset.lists_folder / path.name
        if target.is_file():
            if target.read_bytes() == path.read_bytes():
                continue
            if not settings.refresh:
                raise DwmError(
                    f"{path}: the dataset has another list of this name ({target}); rename it or import with refresh"
                )
        copy_file(path, target)


def import_chunk(dataset_root: Path, requests: Sequence[ClipRequest], settings: ImportSettings) -> ImportReport:
    """Import some clips: their files first, then all their rows at once. Running it again changes nothing.

    A ready clip is left alone when its raw files are the same, and is a conflict when they are not (its row is
    kept, unless ``settings.refresh``). Failed and conditions-only clips are tried again.

    Raises:
        DwmError: there is no dataset, it cannot be written, or a raw file changed while it was copied.
    """
    dataset = Dataset.open(dataset_root)
    ids = [request.clip_id for request in requests]
    known = {clip.clip_id: clip for clip in dataset.clips.rows(where=ds.field("clip_id").isin(ids))}
    outcomes = [_import_clip(dataset, request, known.get(request.clip_id), settings) for request in requests]
    dataset.clips.upsert([outcome.row for outcome in outcomes])
    return ImportReport.merged(_report(outcome) for outcome in outcomes)


class _Outcome(NamedTuple):
    """What became of one request: its row, whether the row was there before, and why it could not be replaced."""

    row: Clip
    is_kept: bool
    conflict: str | None


def _import_clip(dataset: Dataset, request: ClipRequest, before: Clip | None, settings: ImportSettings) -> _Outcome:
    config_hash = hash_config(settings.model_copy(update={"refresh": False}))
    try:
        hashes = hash_members(request)
    except OSError as error:
        reason = f"{request.official_path}: a file of the clip cannot be read ({error.strerror}); change its rights"
        return _Outcome(failed_row(request, {}, reason, settings.group).updated(config_hash=config_hash), False, None)
    if before is not None and before.status in (ClipStatus.READY, ClipStatus.DROPPED):
        roles = sorted(before.input_hashes.keys() | hashes.keys())
        changed = [role for role in roles if before.input_hashes.get(role) != hashes.get(role)]
        if changed and not settings.refresh:
            files = ", ".join(changed)
            return _Outcome(
                before,
                True,
                f"{request.official_path}: {files} changed since the import; refresh to take the new files",
            )
        if not changed and _has_its_files(dataset, before):
            return _Outcome(_relabelled(before, request, settings, config_hash), True, None)
    row = build_row(dataset, request, hashes, settings.group)
    return _Outcome(row.updated(config_hash=config_hash, split=before.split if before else None), False, None)


def _has_its_files(dataset: Dataset, clip: Clip) -> bool:
    paths = [getattr(clip, column) for column in Clip.FILE_COLUMNS]
    return all(dataset.absolute(path).is_file() for path in paths if path is not None)


def _relabelled(clip: Clip, request: ClipRequest, settings: ImportSettings, config_hash: str) -> Clip:
    """An imported clip with the list position and the group of a later import, where that gives them."""
    if request.list_order is not None:
        clip = clip.updated(list_order=request.list_order)
    if settings.group is not None:
        check_group(clip.source, settings.group, request.official_path)
        clip = clip.updated(group=settings.group, config_hash=config_hash)
    return clip


def _report(outcome: _Outcome) -> ImportReport:
    row = outcome.row
    if outcome.conflict is not None:
        return ImportReport(conflicts=(_failure(row, outcome.conflict),))
    if outcome.is_kept:
        return ImportReport(unchanged=1)
    if row.status is ClipStatus.FAILED:
        return ImportReport(failures=(_failure(row, row.reason or "unknown"),))
    return ImportReport(ready=1) if row.status is ClipStatus.READY else ImportReport(conditions_only=1)


def _failure(row: Clip, reason: str) -> Failure:
    return Failure(clip_id=row.clip_id, official_path=row.official_path or "", reason=reason)


def import_official(
    raw_root: Path,
    dataset_root: Path,
    settings: ImportSettings | None = None,
    *,
    lists: Sequence[Path] = (),
    collection: str | None = None,
    limit: int | None = None,
    only: str | None = None,
    watch: Callable[[list[Chunk]], Iterable[Chunk]] = iter,
) -> ImportReport:
    """Import the official layout into a dataset, which is made when absent: plan, lists, then chunk after chunk.

    Args:
        raw_root: Folder that holds the samples.
        dataset_root: The dataset.
        settings: Group and what to do with changed files.
        lists: List files, in order; all clips below ``raw_root`` without any.
        collection: Name of the raw data, part of every clip's id; the folder's own name when None.
        limit: At most this many clips.
        only: Shell pattern on the official path or the stem.
        watch: Passes the chunks on, one by one, such as a progress bar.

    Raises:
        DwmError: as ``plan_import``, ``copy_lists`` and ``import_chunk``.
    """
    settings = settings or ImportSettings()
    plan = plan_import(raw_root, lists, collection=collection, limit=limit, only=only)
    dataset = Dataset.create_or_open(dataset_root)
    copy_lists(dataset, plan, settings)
    reports = [import_chunk(dataset_root, chunk, settings) for chunk in watch(plan.chunks())]
    return ImportReport.merged([*reports, ImportReport(latent_files_left=plan.latent_files_left)])
