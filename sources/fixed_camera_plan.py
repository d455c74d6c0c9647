"""Which clips a folder of fixed-camera videos gives, in chunks, before any video is decoded."""

from __future__ import annotations

import logging
from fnmatch import fnmatch
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import DwmError
from manifests.schema import Source
from render.video import declared_duration_s
from sources.captions import Caption
from sources.fixed_camera_captions import open_captions
from sources.fixed_camera_clip import FixedCameraSettings
from sources.taste_rob import RELEASE_LICENCE, FixedVideo, Subset, open_fixed_camera

CHUNK_VIDEOS = 16
"""Videos that one task, and one worker process, makes clips of."""

_BYTES_PER_PIXEL = 0.07
"""Of a clip's files, for the plan: measured on the real fixed-camera clip at 720x480."""
_HANDS_BYTES_PER_FRAME = 30_000
"""Of the hand motion: two meshes a frame."""

_LOGGER = logging.getLogger(__name__)


class VideoRequest(BaseModel):
    """A video and what the data says about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    video: FixedVideo = Field(description="The video.")
    caption: Caption = Field(description="Its caption; empty when there is none.")


class Chunk(BaseModel):
    """Videos whose clips are made together; complete in itself, so that a worker needs nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="What the chunk is, for messages.")
    raw: Path = Field(description="The folder that the videos' paths are relative to.")
    settings: FixedCameraSettings = Field(description="How clips are made.")
    config_hash: str = Field(description="Hash of the settings and of the files that they name.")
    requests: tuple[VideoRequest, ...] = Field(description="The videos.")


class PlanFigures(BaseModel):
    """Size of a build (``--plan``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: int = Field(description="Clips to make, at most.")
    hours: float = Field(description="Length of the clips as they are written.")
    source_hours: float = Field(description="Length of the videos by their headers.")
    disk_bytes: int = Field(description="Estimated bytes of the clips' files.")
    without_caption: int = Field(description="Videos without a caption.")
    unreadable: int = Field(description="Videos whose header cannot be read; building gives them failed rows.")
    notes: tuple[str, ...] = Field(description="What a user should know about the raw data.")

    def lines(self) -> list[str]:
        """The figures for people."""
        size = f"{self.hours:.2f} hours (of {self.source_hours:.2f} of video), about {self.disk_bytes / 1e9:.3f} GB"
        counts = f"{self.without_caption} without a caption, {self.unreadable} unreadable"
        return [f"{self.clips} clips, {size}; {counts}", *(f"note: {note}" for note in self.notes)]


class BuildPlan(BaseModel):
    """What a build is going to do; serialises, so that tasks can share it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunks: tuple[Chunk, ...] = Field(description="Work, in the order of the videos.")
    notes: tuple[str, ...] = Field(description="What a user should know about the raw data.")

    def scene_ids(self) -> list[str]:
        """Scenes, in order."""
        return list(dict.fromkeys(each.video.scene_id for chunk in self.chunks for each in chunk.requests))

    def figures(self) -> PlanFigures:
        """Count clips, hours and bytes; opens the headers of the videos and writes nothing."""
        clips, seconds, without, unreadable, bytes_needed, clip_seconds = 0, 0.0, 0, 0, 0, 0.0
        for chunk in self.chunks:
            profile = chunk.settings.profile
            length_s = profile.num_frames / profile.fps
            for request in chunk.requests:
                without += not request.caption.text
                try:
                    duration_s = declared_duration_s(chunk.raw / request.video.path)
                except DwmError as error:
                    _LOGGER.warning("%s", error)
                    unreadable += 1
                    continue
                seconds += duration_s
                found = max(1, min(chunk.settings.windows, int(duration_s / length_s)))
                clips += found
                clip_seconds += found * length_s
                pixels = profile.num_frames * profile.width * profile.height
                bytes_needed += found * round(pixels * _BYTES_PER_PIXEL + profile.num_frames * _HANDS_BYTES_PER_FRAME)
        return PlanFigures(
            clips=clips,
            hours=clip_seconds / 3600,
            source_hours=seconds / 3600,
            disk_bytes=bytes_needed,
            without_caption=without,
            unreadable=unreadable,
            notes=self.notes,
        )


def plan_build(
    raw: Path,
    settings: FixedCameraSettings,
    *,
    subset: Subset = Subset.DOUBLE_HAND,
    captions: Path | None = None,
    limit: int | None = None,
    only: str | None = None,
    chunk_videos: int = CHUNK_VIDEOS,
) -> BuildPlan:
    """Find the videos of a folder and their captions; no video is opened.

    Videos of a folder that the project's generator wrote become clips of the source ``synthetic``, whatever the
    settings say; clips of the release carry its licence unless the settings name one.

    Args:
        raw: the release of TASTE-Rob, a part of it, or any folder of fixed-camera videos.
        settings: how clips are made.
        subset: part of the release.
        captions: caption file, where the folder's own is not the one.
        limit: at most this many videos.
        only: shell pattern on a video's path, its name or its scene.
        chunk_videos: videos a chunk, at most.

    Raises:
        DwmError: no such folder, no video in it, a broken caption file, or nothing fits ``only``.
    """
    folder = open_fixed_camera(raw, subset)
    book = open_captions(folder, captions)
    wanted = [video for video in folder.videos if only is None or _fits(video, only)]
    if not wanted:
        raise DwmError(f"{folder.root}: none of {len(folder.videos)} videos fits the pattern '{only}'; try '*{only}*'")
    if folder.is_generated:
        settings = settings.model_copy(update={"source": Source.SYNTHETIC})
    elif folder.is_release and settings.licence is None:
        settings = settings.model_copy(update={"licence": RELEASE_LICENCE})
    config_hash = settings.config_hash()
    requests = [VideoRequest(video=video, caption=book.find(video)) for video in wanted[:limit]]
    parts = [requests[start : start + chunk_videos] for start in range(0, len(requests), chunk_videos)]
    chunks = tuple(
        Chunk(
            name=f"videos {part[0].video.name} to {part[-1].video.name}",
            raw=folder.root,
            settings=settings,
            config_hash=config_hash,
            requests=tuple(part),
        )
        for part in parts
    )
    return BuildPlan(chunks=chunks, notes=tuple(book.notes))


def _fits(video: FixedVideo, pattern: str) -> bool:
    return any(fnmatch(name, pattern) for name in (video.path, video.name, video.scene_id, video.recording_id))
