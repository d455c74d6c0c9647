"""TRUMANS recordings -> clips of a dataset: plan, chunks of one scene, worker processes (paper section 3.3).

A chunk is the work of one process: it opens one renderer, loads one scene, and draws clip after clip; files first,
then the clip's row. Building again goes on where a build stopped. The bytes do not depend on the number of workers.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import hash_file
from manifests.schema import Clip, ClipStatus
from render.body import load_body
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


class BuildFailure(BaseModel):
    """A clip that could not be made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_id: str = Field(description="Id of the clip.")
    recording_id: str = Field(description="Recording that it was to be cut from.")
    start_frame: int = Field(description="Its first source frame.")
    reason: str = Field(description="One line: why.")


class BuildReport(BaseModel):
    """What a build, or a part of it, did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ready: int = Field(default=0, description="Clips that were made now.")
    unchanged: int = Field(default=0, description="Clips that had been made before, with the same inputs and settings.")
    dropped: int = Field(default=0, description="Windows that a rule leaves out; their rows say why.")
    failures: tuple[BuildFailure, ...] = Field(default=(), description="Clips whose row is `failed`.")
    frames: int = Field(default=0, description="Frames that were drawn now.")
    seconds: float = Field(default=0.0, description="Time that drawing and writing took, added up over workers.")
    gl_renderers: tuple[str, ...] = Field(default=(), description="What drew: vendor, renderer and version of OpenGL.")

    @property
    def has_problems(self) -> bool:
        """Whether the command should end with exit code 1."""
        return bool(self.failures)

    @property
    def frames_per_second(self) -> float:
        """Triplet frames a second of one worker."""
        return self.frames / self.seconds if self.seconds else 0.0

    def lines(self) -> list[str]:
        """The report for people: counts, then one line a problem."""
        counts = f"{self.ready} ready, {self.unchanged} unchanged, {self.dropped} dropped, {len(self.failures)} failed"
        lines = [counts]
        if self.frames:
            lines.append(f"{self.frames_per_second:.1f} frames a second and worker, {'; '.join(self.gl_renderers)}")
        return lines + [f"failed: {each.recording_id} from {each.start_frame}: {each.reason}" for each in self.failures]

    @classmethod
    def merged(cls, reports: Iterable[BuildReport]) -> BuildReport:
        """The reports of several chunks as one."""
        parts = list(reports)
        return cls(
            ready=sum(part.ready for part in parts),
            unchanged=sum(part.unchanged for part in parts),
            dropped=sum(part.dropped for part in parts),
            failures=tuple(failure for part in parts for failure in part.failures),
            frames=sum(part.frames for part in parts),
            seconds=sum(part.seconds for part in parts),
            gl_renderers=tuple(dict.fromkeys(name for part in parts for name in part.gl_renderers)),
        )


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
    _write_new(dataset, rows)
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
                hashes = {role: _hash_once(path) for role, path in recording.input_files.items()}
            except (DwmError, OSError) as error:
                rows = [
                    self._failed(self._row(request, window, {}), error)
                    for window in plan.windows
                    if request.holds(window)
                ]
                self._dataset.clips.upsert(rows)
                return BuildReport(failures=tuple(_failure(row) for row in rows))
            plan = plan_clips(recording, self._settings.profile)
        dropped = [self._dropped(request, each, hashes) for each in plan.dropped if request.holds(each.window)]
        _write_new(self._dataset, dropped)
        windows = [window for window in plan.windows if request.holds(window)]
        parts = [] if recording is None else [self._clip(request, recording, window, hashes) for window in windows]
        return BuildReport.merged([BuildReport(dropped=len(dropped)), *parts])

    def _clip(
        self, request: RecordingRequest, recording: TrumansRecording, window: ClipWindow, hashes: dict[str, str]
    ) -> BuildReport:
        row = self._row(request, window, hashes)
        before = self._before(row.clip_id)
        if before is not None and _is_same(self._dataset, before, row):
            return BuildReport(unchanged=1)
        start = time.perf_counter()
        try:
            row = write_clip(self._dataset, self._studio_for(recording), recording, window, row)
        except DwmError as error:
            row = self._failed(row, error)
        if before is not None:
            row = row.updated(
                split=before.split, review=before.review, review_at=before.review_at, review_reason=before.review_reason
            )
        self._dataset.clips.upsert([row])
        if row.status is ClipStatus.FAILED:
            return BuildReport(failures=(_failure(row),))
        return BuildReport(ready=1, frames=row.num_frames, seconds=time.perf_counter() - start)

    def _before(self, clip_id: str) -> Clip | None:
        return next(self._dataset.clips.rows(where=ds.field("clip_id") == clip_id), None)

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


def _is_same(dataset: Dataset, before: Clip, row: Clip) -> bool:
    """Whether a clip has been made from the same inputs with the same settings, and has its files."""
    paths = [getattr(before, column) for column in Clip.FILE_COLUMNS]
    return (
        before.status is ClipStatus.READY
        and before.config_hash == row.config_hash
        and before.input_hashes == row.input_hashes
        and all(path is not None and dataset.absolute(path).is_file() for path in paths)
    )


def _write_new(dataset: Dataset, rows: Sequence[Clip]) -> None:
    """Write rows that are not there as they are, so that building again changes nothing."""
    if not rows:
        return
    known = {
        row.clip_id: row for row in dataset.clips.rows(where=ds.field("clip_id").isin([row.clip_id for row in rows]))
    }
    changed = [
        row
        for row in rows
        if row.clip_id not in known or row.updated(created_at=known[row.clip_id].created_at) != known[row.clip_id]
    ]
    if changed:
        dataset.clips.upsert(changed)


def _failure(row: Clip) -> BuildFailure:
    return BuildFailure(
        clip_id=row.clip_id, recording_id=row.recording_id, start_frame=row.start_frame, reason=row.reason or "unknown"
    )


@lru_cache(maxsize=1024)
def _hash_once(path: Path) -> str:
    """Hash of a file, once a process: the recordings of a release share arrays of gigabytes."""
    return hash_file(path)


def build_chunk_in_worker(dataset_root: Path, plan: BuildPlan, chunk: Chunk, *, threads: int = 0) -> BuildReport:
    """`build_chunk` in a process of its own, spawned: an OpenGL context and its threads do not survive a fork.

    Args:
        dataset_root: the dataset.
        plan: the build.
        chunk: what to make.
        threads: drawing threads of the worker (LP_NUM_THREADS); 0 draws in the worker's own thread.

    Raises:
        DwmError: as ``build_chunk``, or the process died.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_start_worker, initargs=(threads,)) as pool:
        try:
            return pool.submit(build_chunk, dataset_root, plan, chunk).result()
        except BrokenProcessPool as error:
            raise _worker_died(chunk) from error


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
    report = _build_all(dataset, plan, workers, watch)
    write_recording_sheets(
        dataset, dict.fromkeys(each.recording_id for part in plan.chunks for each in part.recordings)
    )
    return report


def _build_all(
    dataset: Dataset, plan: BuildPlan, workers: int, watch: Callable[[list[Chunk]], Iterable[Chunk]]
) -> BuildReport:
    skipped = BuildReport(dropped=record_skipped(dataset, plan))
    chunks = list(plan.chunks)
    if workers <= 1 or len(chunks) == 1:
        return BuildReport.merged([skipped, *(build_chunk(dataset.root, plan, chunk) for chunk in watch(chunks))])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(0,)) as pool:
        running = {pool.submit(build_chunk, dataset.root, plan, chunk): chunk for chunk in chunks}
        reports = {}
        finished = as_completed(running)
        for _ in watch(chunks):
            future = next(finished)
            try:
                reports[running[future].recordings[0]] = future.result()
            except BrokenProcessPool as error:
                raise _worker_died(running[future]) from error
    return BuildReport.merged([skipped, *(reports[chunk.recordings[0]] for chunk in chunks)])


def _start_worker(threads: int) -> None:
    os.environ["LP_NUM_THREADS"] = str(threads)


def _worker_died(chunk: Chunk) -> DwmError:
    return DwmError(
        f"scene {chunk.scene_id}: a worker process died, perhaps for lack of memory; use fewer workers and run the "
        "same command again, it continues"
    )
