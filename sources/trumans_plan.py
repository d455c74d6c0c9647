"""Which clips a TRUMANS folder gives, in chunks of one scene, before anything is loaded or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import DwmError
from sources.trumans import SOURCE_FPS, RecordingEntry, open_trumans
from sources.trumans_clip import TrumansSettings
from sources.trumans_clips import ClipWindow, plan_clips

CHUNK_CLIPS = 32
"""Clips that one task, and one worker process, draws; all of one scene."""

_BYTES_PER_PIXEL = 0.65
"""Of a clip's files, for the plan: measured on the real motion in the real room at 720x480."""


class RecordingRequest(BaseModel):
    """A recording's windows that start within a range of source frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recording_id: str = Field(description="Name of the recording.")
    scene_id: str = Field(description="Scene that it plays in.")
    first_start: int = Field(description="Least first source frame of a window.")
    end_start: int = Field(description="First source frames are less than this.")
    clips: int = Field(description="Windows planned; loading the recording may drop some of them.")

    def holds(self, window: ClipWindow) -> bool:
        """Whether a window is one of these."""
        return self.first_start <= window.start_frame < self.end_start


class Chunk(BaseModel):
    """Windows of one scene that are drawn together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scene_id: str = Field(description="The scene.")
    recordings: tuple[RecordingRequest, ...] = Field(description="Its recordings, or parts of them, in order.")

    @property
    def name(self) -> str:
        """What the chunk is, for messages."""
        return f"scene {self.scene_id}"

    @property
    def clips(self) -> int:
        """Windows planned."""
        return sum(request.clips for request in self.recordings)


class SkippedMotion(BaseModel):
    """A motion that is no recording, or too short to be cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recording_id: str = Field(description="Its name.")
    scene_id: str = Field(description="Its scene, when known.")
    reason: str = Field(description="Why.")


class PlanFigures(BaseModel):
    """Size of a build (``--plan``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recordings: int = Field(description="Recordings with at least one clip.")
    clips: int = Field(description="Clips to draw.")
    hours: float = Field(description="Length of the clips as they are written.")
    source_hours: float = Field(description="Length of the motion that they span, overlaps counted twice.")
    disk_bytes: int = Field(description="Estimated bytes of their files.")
    skipped: int = Field(description="Motions that give no clip.")

    def lines(self) -> list[str]:
        """The figures for people."""
        size = f"{self.hours:.2f} hours ({self.source_hours:.2f} of motion), about {self.disk_bytes / 1e9:.3f} GB"
        return [f"{self.clips} clips of {self.recordings} recordings, {size}; {self.skipped} motions give no clip"]


class BuildPlan(BaseModel):
    """What a build is going to do; serialises, so that tasks can share it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    raw: Path = Field(description="The TRUMANS folder.")
    scene_mesh: Path | None = Field(description="Mesh of the scene where the folder names none.")
    settings: TrumansSettings = Field(description="How clips are drawn.")
    chunks: tuple[Chunk, ...] = Field(description="Work, scene by scene.")
    skipped: tuple[SkippedMotion, ...] = Field(description="Motions that give no clip.")

    def recording_ids(self) -> list[str]:
        """Names of the recordings, in order."""
        return list(dict.fromkeys(each.recording_id for chunk in self.chunks for each in chunk.recordings))

    def figures(self) -> PlanFigures:
        """Count clips, hours and bytes; opens no recording and writes nothing."""
        profile = self.settings.profile
        clips = sum(chunk.clips for chunk in self.chunks)
        span = ((profile.num_frames - 1) * profile.frame_step + 1) / SOURCE_FPS
        pixels = clips * profile.num_frames * profile.width * profile.height
        names = {request.recording_id for chunk in self.chunks for request in chunk.recordings if request.clips}
        return PlanFigures(
            recordings=len(names),
            clips=clips,
            hours=clips * profile.num_frames / profile.fps / 3600,
            source_hours=clips * span / 3600,
            disk_bytes=round(pixels * _BYTES_PER_PIXEL),
            skipped=len(self.skipped),
        )


def plan_build(
    raw: Path,
    settings: TrumansSettings,
    *,
    scene_mesh: Path | None = None,
    limit: int | None = None,
    only: str | None = None,
    chunk_clips: int = CHUNK_CLIPS,
) -> BuildPlan:
    """Find the recordings and cut them into windows, scene by scene; no recording is loaded.

    Args:
        raw: TRUMANS folder, as released or exported.
        settings: how clips are drawn.
        scene_mesh: mesh of the scene where the folder names none.
        limit: at most this many clips.
        only: shell pattern on the recording's or the scene's name.
        chunk_clips: clips a chunk, at most.

    Raises:
        DwmError: no TRUMANS folder, a list of it is broken, or nothing fits ``only``.
    """
    raw = raw.resolve()
    opened = open_trumans(raw, scene_mesh=scene_mesh)
    entries = opened.recordings()
    wanted = [
        entry for entry in entries if only is None or fnmatch(entry.recording_id, only) or fnmatch(entry.scene_id, only)
    ]
    if not wanted:
        raise DwmError(f"{raw}: none of {len(entries)} recordings fits the pattern '{only}'; try '*{only}*'")
    requests: list[RecordingRequest] = []
    left = limit
    for entry in sorted(wanted, key=lambda each: (each.scene_id, each.recording_id)):
        if left == 0:
            break
        parts = _requests(entry, settings, chunk_clips, left)
        requests += parts
        left = None if left is None else left - sum(part.clips for part in parts)
    skipped = (
        []
        if only
        else [
            SkippedMotion(recording_id=each.recording_id, scene_id="", reason=each.reason) for each in opened.skipped()
        ]
    )
    return BuildPlan(
        raw=raw, scene_mesh=scene_mesh, settings=settings, chunks=_chunks(requests, chunk_clips), skipped=tuple(skipped)
    )


def _requests(
    entry: RecordingEntry, settings: TrumansSettings, chunk_clips: int, limit: int | None
) -> list[RecordingRequest]:
    """Parts of a recording of at most ``chunk_clips`` clips; they cover its dropped windows too."""
    plan = plan_clips(entry, settings.profile)
    starts = [window.start_frame for window in plan.windows][:limit]
    is_cut = limit is not None and len(plan.windows) > len(starts)
    end = starts[-1] + 1 if is_cut else entry.num_frames + 1
    cuts = [0, *starts[chunk_clips::chunk_clips], end]
    return [
        RecordingRequest(
            recording_id=entry.recording_id,
            scene_id=entry.scene_id,
            first_start=low,
            end_start=high,
            clips=sum(low <= start < high for start in starts),
        )
        for low, high in pairwise(cuts)
    ]


def _chunks(requests: Sequence[RecordingRequest], chunk_clips: int) -> tuple[Chunk, ...]:
    groups: list[list[RecordingRequest]] = []
    for request in requests:
        last = groups[-1] if groups else []
        fits = last and last[0].scene_id == request.scene_id
        if fits and sum(each.clips for each in last) + request.clips <= chunk_clips:
            last.append(request)
        else:
            groups.append([request])
    return tuple(Chunk(scene_id=group[0].scene_id, recordings=tuple(group)) for group in groups)
