"""The benchmark page: one self-contained HTML file with the tables and every clip's videos side by side, in step.

The file needs no network (its content policy forbids it) and no other file. Each distinct video is in it once; a page
with many or large videos holds smaller copies, so that it stays within ``PAGE_VIDEO_BYTES``.
"""

from __future__ import annotations

import base64
import hashlib
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from dwm_model.results import BenchmarkResult, ClipResult, GeneratedVideo
from dwm_model.tables import GROUP_LABELS, INTERVAL_NOTE, describe_method, format_value, table_views
from manifests.atomic import write_text
from manifests.dataset import Dataset
from manifests.errors import DwmError
from render.video import Frames, read_clip_video, write_video

PAGE_VIDEO_BYTES = 30_000_000
"""About how much video a page may hold."""

BYTES_PER_PIXEL = 0.06
"""Typical size of the page's H.264 at ``PAGE_CRF``, bytes a pixel of a frame."""

PAGE_CRF = 20
MAX_PAGE_WIDTH = 480
MIN_PAGE_WIDTH = 64


@dataclass(frozen=True)
class _PageVideo:
    """A video as the page holds it."""

    key: str
    mp4: str
    """The file, base64."""
    poster: str
    """Its middle frame as JPEG, base64: shown until the video is loaded, and where videos do not play."""


@dataclass(frozen=True)
class _Tile:
    """One video of a clip on the page."""

    label: str
    kind: str
    video: _PageVideo | None
    reason: str | None = None
    seed: int | None = None
    metrics: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _ClipView:
    """One clip on the page."""

    clip_id: str
    title: str
    facts: tuple[str, ...]
    prompt: str
    tiles: tuple[_Tile, ...]


@dataclass
class _PageVideos:
    """Encodes videos for the page, each distinct one once."""

    dataset: Dataset
    result: BenchmarkResult
    width: int
    height: int
    _by_path: dict[tuple[str, float], _PageVideo] = field(default_factory=dict)

    def add(self, path: str, fps: float) -> _PageVideo:
        """Encode the video at ``path`` (relative to the dataset).

        Raises:
            DwmError: the file is gone, broken or too short.
        """
        if (path, fps) not in self._by_path:
            frames = read_clip_video(
                self.dataset.absolute(path),
                width=self.width,
                height=self.height,
                num_frames=self.result.geometry.num_frames,
            )
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "video.mp4"
                write_video(copy, frames, fps, crf=PAGE_CRF)
                data = copy.read_bytes()
            self._by_path[path, fps] = _PageVideo(
                key=hashlib.sha256(data).hexdigest()[:16], mp4=_base64(data), poster=_base64(_jpeg(frames))
            )
        return self._by_path[path, fps]

    def files(self) -> dict[str, str]:
        """Every distinct video, base64, by key."""
        return {video.key: video.mp4 for video in self._by_path.values()}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _jpeg(frames: Frames) -> bytes:
    picture = np.ascontiguousarray(frames[len(frames) // 2, ..., ::-1])
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])


def write_report(dataset: Dataset, result: BenchmarkResult, path: Path) -> None:
    """Write the page of a benchmark result.

    Args:
        dataset: The dataset that the result's paths are relative to.
        result: The result.
        path: HTML file to write.

    Raises:
        DwmError: the file cannot be written. A video that cannot be read is told on the page.
    """
    width, height = page_size(result)
    videos = _PageVideos(dataset, result, width, height)
    clips = [_clip_view(clip, result, videos) for clip in result.clips]
    environment = Environment(
        loader=PackageLoader("dwm_model"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=f"Benchmark {result.benchmark_name}",
        banner=result.banner,
        facts=_facts(result),
        methods=[(summary.description.name, describe_method(summary)) for summary in result.methods],
        tables=table_views(result),
        interval_note=INTERVAL_NOTE,
        num_frames=result.geometry.num_frames,
        seeds=_seeds(result),
        clips=clips,
        width=width,
        height=height,
        videos=videos.files(),
    )
    write_text(path, page)


def page_size(result: BenchmarkResult) -> tuple[int, int]:
    """Width and height of the videos on the page, even: as generated, or smaller where the page would grow too big."""
    geometry = result.geometry
    num_videos = sum(3 + len(clip.videos) for clip in result.clips)
    bytes_at_full_size = num_videos * geometry.num_frames * geometry.width * geometry.height * BYTES_PER_PIXEL
    scale = min(
        1.0,
        MAX_PAGE_WIDTH / geometry.width,
        max(math.sqrt(PAGE_VIDEO_BYTES / max(1.0, bytes_at_full_size)), MIN_PAGE_WIDTH / geometry.width),
    )
    return 2 * max(1, round(geometry.width * scale / 2)), 2 * max(1, round(geometry.height * scale / 2))


def _facts(result: BenchmarkResult) -> list[tuple[str, str]]:
    geometry = result.geometry
    return [
        ("Clips", str(result.num_clips)),
        ("Video", f"{geometry.width}×{geometry.height}, {geometry.num_frames} frames"),  # noqa: RUF001 - a times sign
        ("Seeds", ", ".join(map(str, result.seeds))),
        ("Benchmark hash", result.benchmark_hash[:16]),
    ]


def _seeds(result: BenchmarkResult) -> list[int]:
    """Seeds that a reader can choose between."""
    used = {seed for summary in result.methods if summary.description.uses_seed for seed in summary.seeds}
    return [seed for seed in result.seeds if seed in used]


def _clip_view(clip: ClipResult, result: BenchmarkResult, videos: _PageVideos) -> _ClipView:
    group = None if clip.group is None else GROUP_LABELS.get(clip.group, clip.group)
    facts = (f"scene {clip.scene_id}", group)
    return _ClipView(
        clip_id=clip.clip_id,
        title=clip.action_label or f"Clip {clip.scene_id}",
        facts=tuple(fact for fact in facts if fact),
        prompt=clip.prompt.strip(),
        tiles=tuple(_tiles(clip, result, videos)),
    )


def _tiles(clip: ClipResult, result: BenchmarkResult, videos: _PageVideos) -> Iterator[_Tile]:
    """Static, hands, what each method made with each seed, ground truth."""
    yield _source_tile("Static scene", clip.static_path, clip.fps, videos)
    yield _source_tile("Hands", clip.hands_path, clip.fps, videos)
    for summary in result.methods:
        for video in clip.videos:
            if video.method == summary.description.name:
                seed = video.seed if summary.description.uses_seed else None
                yield _generated_tile(video, seed, clip.fps, result, videos)
    yield _source_tile("Ground truth", clip.interaction_path, clip.fps, videos)


def _source_tile(label: str, path: str | None, fps: float, videos: _PageVideos) -> _Tile:
    if path is None:
        return _Tile(label=label, kind="source", video=None, reason="not available")
    try:
        return _Tile(label=label, kind="source", video=videos.add(path, fps))
    except DwmError as error:
        return _Tile(label=label, kind="source", video=None, reason=str(error))


def _generated_tile(
    video: GeneratedVideo, seed: int | None, fps: float, result: BenchmarkResult, videos: _PageVideos
) -> _Tile:
    metrics = tuple(
        (column.label, format_value(value, column))
        for column in result.columns
        if (value := video.metrics[column.key]) is not None
    )
    if video.path is None:
        return _Tile(label=video.method, kind="generated", video=None, reason=f"failed: {video.reason}", seed=seed)
    try:
        page_video = videos.add(video.path, fps)
    except DwmError as error:
        return _Tile(video.method, "generated", None, reason=str(error), seed=seed, metrics=metrics)
    return _Tile(video.method, "generated", page_video, seed=seed, metrics=metrics)
