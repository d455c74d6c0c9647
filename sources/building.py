"""What builds share, whatever their source: reports, rows that stay as they are, chunks of work in worker processes.

A chunk is the work of one process, which opens what it needs once (a renderer, a hand estimator) and makes clip after
clip: files first, then the clip's row. Building again goes on where a build stopped, and the bytes do not depend on
the number of workers.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import hash_file
from manifests.schema import Clip, ClipStatus
from render.triplet import TripletMeasures


class BuildFailure(BaseModel):
    """A clip that could not be made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_id: str = Field(description="Id of the clip.")
    recording_id: str = Field(description="Recording that it was to be cut from.")
    start_frame: int = Field(description="Its first source frame.")
    reason: str = Field(description="One line: why.")

    @classmethod
    def of(cls, row: Clip) -> BuildFailure:
        """What a failed row says."""
        return cls(
            clip_id=row.clip_id,
            recording_id=row.recording_id,
            start_frame=row.start_frame,
            reason=row.reason or "unknown",
        )


class BuildReport(BaseModel):
    """What a build, or a part of it, did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ready: int = Field(default=0, description="Clips that were made now.")
    unchanged: int = Field(default=0, description="Clips that had been made before, with the same inputs and settings.")
    dropped: int = Field(default=0, description="Clips that a rule leaves out; their rows say why.")
    failures: tuple[BuildFailure, ...] = Field(default=(), description="Clips whose row is `failed`.")
    frames: int = Field(default=0, description="Frames that were drawn now.")
    seconds: float = Field(default=0.0, description="Time that making the clips took, added up over workers.")
    gl_renderers: tuple[str, ...] = Field(default=(), description="What drew: vendor, renderer and version of OpenGL.")
    notes: tuple[str, ...] = Field(default=(), description="What a user should know about the raw data.")

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
        lines += [f"note: {note}" for note in self.notes]
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
            notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        )


def is_same(dataset: Dataset, before: Clip, row: Clip, columns: Sequence[str] = Clip.FILE_COLUMNS) -> bool:
    """Whether a clip has been made from the same inputs with the same settings, and has its files.

    Args:
        dataset: where the clip is.
        before: its row as it is.
        row: the row that would be made: its ``config_hash`` and ``input_hashes`` are compared.
        columns: columns whose files every ready clip of this source has.
    """
    paths = [getattr(before, column) for column in columns]
    return (
        before.status is ClipStatus.READY
        and before.config_hash == row.config_hash
        and before.input_hashes == row.input_hashes
        and all(path is not None and dataset.absolute(path).is_file() for path in paths)
    )


def keep_decisions(row: Clip, before: Clip | None) -> Clip:
    """A row that is made anew with the split and the review that the clip had."""
    if before is None:
        return row
    return row.updated(
        split=before.split, review=before.review, review_at=before.review_at, review_reason=before.review_reason
    )


def ready_row(
    dataset: Dataset, row: Clip, paths: Mapping[str, Path], measures: TripletMeasures, flags: Sequence[str]
) -> Clip:
    """The row of a clip whose files are written: where they lie, their hashes, what was measured.

    Args:
        dataset: where the files lie.
        row: what is known of the clip besides.
        paths: its files by the column that names them.
        measures: of its videos.
        flags: what to say of the measurements, added to the row's own.
    """
    return row.updated(
        **{column: dataset.relative(path) for column, path in paths.items()},
        output_hashes={column: hash_file(path) for column, path in paths.items()},
        hand_visible_frames=measures.hand_visible_frames,
        background_psnr_db=measures.background_psnr_db,
        time_offset_frames=measures.time_offset_frames,
        flags=(*row.flags, *flags),
        status=ClipStatus.READY,
        reason=None,
    )


def write_new(dataset: Dataset, rows: Sequence[Clip]) -> None:
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


@lru_cache(maxsize=1024)
def hash_once(path: Path) -> str:
    """Hash of a file, once a process: the recordings of a release share arrays of gigabytes."""
    return hash_file(path)


class WorkChunk(Protocol):
    """Clips that one task, and one worker process, makes."""

    @property
    def name(self) -> str:
        """What the chunk is, for messages."""


ChunkT = TypeVar("ChunkT", bound=WorkChunk)


def build_in_worker(build: Callable[[ChunkT], BuildReport], chunk: ChunkT, *, threads: int = 0) -> BuildReport:
    """Make a chunk in a process of its own, spawned: an OpenGL context and its threads do not survive a fork.

    Args:
        build: makes a chunk; it is pickled.
        chunk: what to make.
        threads: drawing threads of the worker (LP_NUM_THREADS); 0 draws in the worker's own thread.

    Raises:
        DwmError: as ``build``, or the process died.
    """
    with _pool(1, threads) as pool:
        try:
            return pool.submit(build, chunk).result()
        except BrokenProcessPool as error:
            raise _worker_died(chunk) from error


def build_chunks(
    build: Callable[[ChunkT], BuildReport],
    chunks: Sequence[ChunkT],
    *,
    workers: int,
    watch: Callable[[list[ChunkT]], Iterable[ChunkT]],
) -> list[BuildReport]:
    """Make chunks in this process (one worker, or one chunk), or in spawned processes; reports in the chunks' order.

    Args:
        build: makes a chunk; it is pickled.
        chunks: the work.
        workers: processes.
        watch: passes the chunks on, one by one, such as a progress bar.

    Raises:
        DwmError: as ``build``, or a process died.
    """
    if workers <= 1 or len(chunks) <= 1:
        return [build(chunk) for chunk in watch(list(chunks))]
    with _pool(workers, 0) as pool:
        running = {pool.submit(build, chunk): index for index, chunk in enumerate(chunks)}
        reports: dict[int, BuildReport] = {}
        finished = as_completed(running)
        for _ in watch(list(chunks)):
            future = next(finished)
            try:
                reports[running[future]] = future.result()
            except BrokenProcessPool as error:
                raise _worker_died(chunks[running[future]]) from error
    return [reports[index] for index in range(len(chunks))]


def _pool(workers: int, threads: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(threads,))


def _start_worker(threads: int) -> None:
    os.environ["LP_NUM_THREADS"] = str(threads)


def _worker_died(chunk: WorkChunk) -> DwmError:
    return DwmError(
        f"{chunk.name}: a worker process died, perhaps for lack of memory; use fewer workers and run the "
        "same command again, it continues"
    )
