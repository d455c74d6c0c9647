"""TRUMANS recordings -> clips of a dataset: plan, chunks of one scene, worker processes (paper section 3.3).

A chunk is the work of one process: it opens one renderer, loads one scene, and draws clip after clip (see
`sources/building.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus
from render.body import load_body
from sources.building import (
    BuildFailure,
    BuildReport,
    build_chunks,
    build_in_worker,
    hash_once,
    is_same,
    keep_decisions,
    write_new,
)
from sources.trumans import TrumansRecording, open_trumans
from sources.trumans_clip import Studio, TrumansSettings, empty_row, settings_from, write_clip
from sources.trumans_clips import ClipWindow, DroppedWindow, plan_clips
from sources.trumans_plan import BuildPlan, Chunk, PlanFigures, RecordingRequest, plan_build
from sources.trumans_scene import Dress, SceneLibrary
from sources.trumans_sheet import write_recording_sheets

__all__ = [
    "BuildPlan",
    "BuildReport",
    "Chunk",
    "PlanFigures",
    "TrumansSettings",
    "build_chunk",
    "build_chunk_in_worker",
    "build_trumans",
    "plan_build",
    "record_skipped",
    "settings_from",
]

_LOGGER = logging.getLogger(__name__)


def record_skipped(dataset: Dataset, plan: BuildPlan) -> int:
    """Write a dropped row for every motion that gives no clip; returns their number."""
    nothing = ClipWindow(0, plan.settings.profile.frame_step, 0)
    config_hash = plan.settings.config_hash()
    rows = [
        empty_row(plan.settings, each.scene_id or "unknown", each.recording_id, nothing, config_hash).updated(
            status=ClipStatus.DROPPED, reason=each.reason
        )
        for each in plan.skipped
    ]
    write_new(dataset, rows)
    return len(rows)


def build_chunk(dataset_root: Path, plan: BuildPlan, chunk: Chunk) -> BuildReport:
    """Make the clips of a chunk that are not there yet, in this process, with one renderer.

    Raises:
        DwmError: there is no dataset, it cannot be written, or there is no usable OpenGL.
    """
    return _ChunkBuilder(Dataset.open(dataset_root), plan, chunk).build()


class _ChunkBuilder:
    """Draws one chunk. The renderer opens with the first clip that has to be drawn."""

    def __init__(self, dataset: Dataset, plan: BuildPlan, chunk: Chunk) -> None:
        self._dataset, self._settings, self._chunk = dataset, plan.settings, chunk
        self._raw = open_trumans(plan.raw, scene_mesh=plan.scene_mesh)
        self._config_hash = plan.settings.config_hash()
        self._studio: Studio | None = None

    def build(self) -> BuildReport:
        try:
            report = BuildReport.merged([self._recording(request) for request in self._chunk.recordings])
            if self._studio is not None:
                description = self._studio.renderer.description
                report = report.model_copy(update={"gl_renderers": (description,)})
                _LOGGER.info("%s: %.1f frames/s by %s", self._chunk.scene_id, report.frames_per_second, description)
            return report
        finally:
            if self._studio is not None:
                self._studio.renderer.close()

    def _recording(self, request: RecordingRequest) -> BuildReport:
        entry = next(each for each in self._raw.recordings() if each.recording_id == request.recording_id)
        plan = plan_clips(entry, self._settings.profile)
        recording = None
        hashes: dict[str, str] = {}
        if any(request.holds(window) for window in plan.windows):
            try:
                recording = self._raw.load(request.recording_id)
                hashes = {role: hash_once(path) for role, path in recording.input_files.items()}
            except (DwmError, OSError) as error:
                rows = [
                    self._failed(self._row(request, window, {}), error)
                    for window in plan.windows
                    if request.holds(window)
                ]
                self._dataset.clips.upsert(rows)
                return BuildReport(failures=tuple(BuildFailure.of(row) for row in rows))
            plan = plan_clips(recording, self._settings.profile)
        dropped = [self._dropped(request, each, hashes) for each in plan.dropped if request.holds(each.window)]
        write_new(self._dataset, dropped)
        windows = [window for window in plan.windows if request.holds(window)]
        parts = [] if recording is None else [self._clip(request, recording, window, hashes) for window in windows]
        return BuildReport.merged([BuildReport(dropped=len(dropped)), *parts])

    def _clip(
        self, request: RecordingRequest, recording: TrumansRecording, window: ClipWindow, hashes: dict[str, str]
    ) -> BuildReport:
        row = self._row(request, window, hashes)
        before = self._dataset.clips.find(row.clip_id)
        if before is not None and is_same(self._dataset, before, row):
            return BuildReport(unchanged=1)
        start = time.perf_counter()
        try:
            row = write_clip(self._dataset, self._studio_for(recording), recording, window, row)
        except DwmError as error:
            row = self._failed(row, error)
        self._dataset.clips.upsert([keep_decisions(row, before)])
        if row.status is ClipStatus.FAILED:
            return BuildReport(failures=(BuildFailure.of(row),))
        return BuildReport(ready=1, frames=row.num_frames, seconds=time.perf_counter() - start)

    def _row(self, request: RecordingRequest, window: ClipWindow, hashes: dict[str, str]) -> Clip:
        row = empty_row(self._settings, request.scene_id, request.recording_id, window, self._config_hash)
        return row.updated(input_hashes=hashes)

    def _dropped(self, request: RecordingRequest, dropped: DroppedWindow, hashes: dict[str, str]) -> Clip:
        return self._row(request, dropped.window, hashes).updated(status=ClipStatus.DROPPED, reason=dropped.reason)

    def _failed(self, row: Clip, error: Exception) -> Clip:
        """The row with the reason, which names files relative to the raw folder: the same wherever that lies."""
        return row.updated(reason=str(error).replace(f"{self._raw.root}/", ""))

    def _studio_for(self, recording: TrumansRecording) -> Studio:
        if self._studio is None:
            body = load_body(self._settings.body)
            library = SceneLibrary(recording.scene_meshes, recording.lights)
            renderer = self._settings.open_renderer()
            self._studio = Studio(renderer, body, Dress.of(body), library, self._settings)
        return self._studio


def build_chunk_in_worker(dataset_root: Path, plan: BuildPlan, chunk: Chunk, *, threads: int = 0) -> BuildReport:
    """`build_chunk` in a process of its own.

    Args:
        dataset_root: the dataset.
        plan: the build.
        chunk: what to make.
        threads: drawing threads of the worker (LP_NUM_THREADS); 0 draws in the worker's own thread.

    Raises:
        DwmError: as ``build_chunk``, or the process died.
    """
    return build_in_worker(partial(build_chunk, dataset_root, plan), chunk, threads=threads)


def build_trumans(
    dataset_root: Path,
    plan: BuildPlan,
    *,
    workers: int = 1,
    watch: Callable[[list[Chunk]], Iterable[Chunk]] = iter,
) -> BuildReport:
    """Make the clips of a plan in a dataset, which is made when absent, and a contact sheet of each recording.

    Args:
        dataset_root: the dataset.
        plan: result of ``plan_build``.
        workers: processes that draw, each with one thread and under 700 MB; 1 draws in this process.
        watch: passes the chunks on, one by one, such as a progress bar.

    Raises:
        DwmError: as ``build_chunk``, or a worker process died.
    """
    dataset = Dataset.create_or_open(dataset_root)
    skipped = BuildReport(dropped=record_skipped(dataset, plan))
    build = partial(build_chunk, dataset.root, plan)
    reports = build_chunks(build, plan.chunks, workers=workers, watch=watch)
    write_recording_sheets(
        dataset, dict.fromkeys(each.recording_id for part in plan.chunks for each in part.recordings)
    )
    return BuildReport.merged([skipped, *reports])
