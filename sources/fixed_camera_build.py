"""Fixed-camera videos -> clips of a dataset: chunks of videos, worker processes, groups of near duplicates.

A chunk opens one hand estimator and one renderer with the first clip that has to be made (see `sources/building.py`);
a video that cannot be used gives a row with the reason and never ends the batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from manifests.dataset import Dataset
from manifests.errors import DwmError, UsageError
from manifests.hashing import hash_file, hash_json
from manifests.near_duplicates import group_near_duplicates
from manifests.profiles import Profile
from manifests.schema import Clip, ClipStatus
from render.framing import TooShortError
from render.hand_estimation.settings import open_estimator
from render.resampling import plan_windows, read_timing
from sources.building import (
    BuildFailure,
    BuildReport,
    build_chunks,
    build_in_worker,
    is_same,
    keep_decisions,
)
from sources.captions import open_captioner
from sources.fixed_camera_clip import (
    FILE_COLUMNS,
    FixedCameraSettings,
    WindowRequest,
    Workshop,
    empty_row,
    write_clip,
)
from sources.fixed_camera_plan import BuildPlan, Chunk, PlanFigures, VideoRequest, plan_build
from sources.fixed_camera_sheet import write_scene_sheets

__all__ = [
    "BuildPlan",
    "BuildReport",
    "Chunk",
    "FixedCameraSettings",
    "PlanFigures",
    "build_chunk",
    "build_chunk_in_worker",
    "build_fixed_camera",
    "plan_build",
    "settings_from",
]

_LOGGER = logging.getLogger(__name__)


def settings_from(profile: Profile, values: Mapping[str, object]) -> FixedCameraSettings:
    """Settings from what a user gave; names of hand and caption settings go to `hands` and `captions`.

    Raises:
        UsageError: a value that its setting cannot take; the message names both.
    """
    try:
        return FixedCameraSettings.model_validate({"profile": profile, **values})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        told = first["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(first["input"], dict) else f" '{first['input']}'"
        raise UsageError(f"{name}{shown}: {told[:1].lower()}{told[1:]}") from error


def build_chunk(dataset_root: Path, chunk: Chunk) -> BuildReport:
    """Make the clips of a chunk that are not there yet, in this process.

    Raises:
        DwmError: there is no dataset, it cannot be written, there is no usable OpenGL, or the hand estimator or a
            caption model cannot be opened.
    """
    return _ChunkBuilder(Dataset.open(dataset_root), chunk).build()


class _ChunkBuilder:
    """Makes one chunk."""

    def __init__(self, dataset: Dataset, chunk: Chunk) -> None:
        self._dataset, self._chunk, self._settings = dataset, chunk, chunk.settings
        self._workshop: Workshop | None = None

    def build(self) -> BuildReport:
        try:
            report = BuildReport.merged([self._video(request) for request in self._chunk.requests])
            if self._workshop is not None:
                description = self._workshop.renderer.description
                report = report.model_copy(update={"gl_renderers": (description,)})
                _LOGGER.info("%s: %.1f frames/s by %s", self._chunk.name, report.frames_per_second, description)
            return report
        finally:
            if self._workshop is not None:
                self._workshop.renderer.close()

    def _video(self, request: VideoRequest) -> BuildReport:
        path = self._chunk.raw / request.video.path
        first = empty_row(self._settings, request.video, 0, self._chunk.config_hash)
        try:
            hashes = {"video": hash_file(path), "caption": hash_json([request.caption.text, request.caption.origin])}
            first = first.updated(input_hashes=hashes)
            done = self._finished(first) if self._settings.windows == 1 else None
            if done is not None:
                return done
            timing = read_timing(path)
            profile = self._settings.profile
            windows = plan_windows(
                timing, profile.fps, profile.num_frames, self._settings.short, max_windows=self._settings.windows
            )
        except TooShortError as error:
            return self._kept(first.updated(status=ClipStatus.DROPPED, reason=f"{request.video.path}: {error}"))
        except (DwmError, OSError) as error:
            return self._kept(self._failed(first, error))
        parts = [
            WindowRequest(request.video, path, number, request.caption, timing, sampling)
            for number, sampling in enumerate(windows)
        ]
        return BuildReport.merged([self._window(part, hashes) for part in parts])

    def _window(self, request: WindowRequest, hashes: dict[str, str]) -> BuildReport:
        row = empty_row(self._settings, request.video, request.window, self._chunk.config_hash)
        row = row.updated(input_hashes=hashes)
        done = self._finished(row)
        if done is not None:
            return done
        workshop = self._open()
        start = time.perf_counter()
        try:
            row = write_clip(self._dataset, workshop, request, row)
        except (DwmError, OSError) as error:
            row = self._failed(row, error)
        report = self._kept(row)
        return report.model_copy(update={"seconds": time.perf_counter() - start if report.ready else 0.0})

    def _finished(self, row: Clip) -> BuildReport | None:
        """What to say about a clip that was made, or left out by a rule, from the same inputs with these settings."""
        before = self._dataset.clips.find(row.clip_id)
        if before is None:
            return None
        if is_same(self._dataset, before, row, FILE_COLUMNS):
            return BuildReport(unchanged=1)
        same_inputs = before.config_hash == row.config_hash and before.input_hashes == row.input_hashes
        return BuildReport(dropped=1) if same_inputs and before.status is ClipStatus.DROPPED else None

    def _kept(self, row: Clip) -> BuildReport:
        """Write a row and say what became of its clip."""
        self._dataset.clips.upsert([keep_decisions(row, self._dataset.clips.find(row.clip_id))])
        if row.status is ClipStatus.FAILED:
            _LOGGER.warning("%s: %s", row.recording_id, row.reason)
            return BuildReport(failures=(BuildFailure.of(row),))
        if row.status is ClipStatus.DROPPED:
            return BuildReport(dropped=1)
        return BuildReport(ready=1, frames=row.num_frames)

    def _failed(self, row: Clip, error: Exception) -> Clip:
        """The row with the reason, which names files relative to their folder: the same wherever that lies."""
        told = f"{error.filename or ''}: {error.strerror}; check the file" if isinstance(error, OSError) else str(error)
        for folder in filter(None, (self._chunk.raw, self._settings.hands.files)):
            told = told.replace(f"{folder}/", "")
        return row.updated(status=ClipStatus.FAILED, reason=told)

    def _open(self) -> Workshop:
        if self._workshop is None:
            estimator = open_estimator(self._settings.hands)
            captioner = open_captioner(self._settings.captions)
            self._workshop = Workshop(self._settings.open_renderer(), estimator, captioner, self._settings)
        return self._workshop


def build_chunk_in_worker(dataset_root: Path, chunk: Chunk, *, threads: int = 0) -> BuildReport:
    """`build_chunk` in a process of its own.

    Args:
        dataset_root: the dataset.
        chunk: what to make.
        threads: drawing threads of the worker (LP_NUM_THREADS); 0 draws in the worker's own thread.

    Raises:
        DwmError: as ``build_chunk``, or the process died.
    """
    return build_in_worker(partial(build_chunk, dataset_root), chunk, threads=threads)


def build_fixed_camera(
    dataset_root: Path,
    plan: BuildPlan,
    *,
    workers: int = 1,
    watch: Callable[[list[Chunk]], Iterable[Chunk]] = iter,
) -> BuildReport:
    """Make the clips of a plan in a dataset, which is made when absent, group near duplicates, draw contact sheets.

    Args:
        dataset_root: the dataset.
        plan: result of ``plan_build``.
        workers: processes, each with its own hand estimator; 1 works in this process.
        watch: passes the chunks on, one by one, such as a progress bar.

    Raises:
        DwmError: as ``build_chunk``, or a worker process died.
    """
    dataset = Dataset.create_or_open(dataset_root)
    reports = build_chunks(partial(build_chunk, dataset.root), plan.chunks, workers=workers, watch=watch)
    group_near_duplicates(dataset)
    write_scene_sheets(dataset, plan.scene_ids())
    return BuildReport.merged([BuildReport(notes=plan.notes), *reports])
