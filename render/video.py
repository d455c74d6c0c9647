"""Video files: exact frame counts, streaming reads, deterministic writes.

Frames are uint8 RGB arrays with axes [T, H, W, 3]. Reading converts with the colour matrix and range that the file
declares; a file that declares none is taken as BT.601 limited range, as OpenCV, imageio and decord do. Writing
declares what it did, so that browsers and other decoders agree. Rotation stored in the file (telephones) is applied;
a sample aspect other than 1:1 is not: pixels come as they are stored.

A damaged or truncated file is an error, never a shorter clip: every read to the end compares what was decoded with
what the file's own boxes, index, header and duration promise. (MPEG-TS, GIF and bare streams promise nothing, so a
clean cut between two of their frames cannot be seen.)
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import av.error
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from manifests.errors import DwmError
from render.framing import (
    FitPolicy,
    Frames,
    LengthPolicy,
    TooShortError,
    fit_frame,
    fit_frames,
    fit_length,
    resample_indices,
)
from render.video_encoding import write_video

__all__ = [
    "FitPolicy",
    "Frames",
    "LengthPolicy",
    "Picture",
    "TooShortError",
    "Video",
    "VideoInfo",
    "declared_duration_s",
    "fit_frame",
    "fit_frames",
    "fit_length",
    "iter_frames",
    "iter_pictures",
    "probe",
    "read_clip_video",
    "read_video",
    "resample_indices",
    "write_video",
]

_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf,gif,h264,hevc,ivf,mp3,wav,flac,aac"
"""What is opened at all. Left out on purpose: pictures, text, and playlists, which can name other files."""

_INDEXED = "mov,mp4,m4a,3gp,3g2,mj2"
"""PyAV's name of the container whose index says where each frame lies in the file."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        width: Width as shown (after rotation), pixels.
        height: Height as shown, pixels.
        fps: Average frames a second.
        num_frames: Frames that decode, counted one by one.
        codec: Codec name, such as ``h264``.
        pixel_format: Stored pixel format, such as ``yuv420p``.
    """

    width: int
    height: int
    fps: float
    num_frames: int
    codec: str
    pixel_format: str


@dataclass(frozen=True)
class Picture:
    """A decoded frame that is not converted yet: conversion costs more than decoding, and not every frame is needed.

    Attributes:
        time_s: time in the file, seconds; None where the file gives none.
        rotation_degrees: rotation that the file asks for, counter-clockwise; `rgb` applies it.
    """

    time_s: float | None
    rotation_degrees: int
    _frame: av.VideoFrame
    _path: Path

    def rgb(self) -> Frames:
        """The picture as shown, uint8 RGB [H, W, 3].

        Raises:
            DwmError: its pixel format cannot be converted.
        """
        try:
            return _to_rgb(self._frame)
        except (av.error.FFmpegError, ValueError) as error:
            name = self._frame.format.name
            raise DwmError(f"{self._path}: pictures of format {name} cannot be converted; save it as mp4") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """A decoded video.

    Attributes:
        frames: uint8 RGB [T, H, W, 3].
        fps: Average frames a second.
        timestamps_s: Time of each frame from the first one, seconds, axis [T].
    """

    frames: Frames
    fps: float
    timestamps_s: NDArray[np.float64]


def probe(path: Path) -> VideoInfo:
    """Describe a video file; its frames are decoded and counted, since containers' own counts can be wrong.

    Raises:
        DwmError: the file is missing, empty, truncated, damaged, without video or without frames.
    """
    with _open(path) as (container, stream):
        count, height, width = 0, 0, 0
        for frame in _decode(path, container, stream):
            if count == 0:
                height, width = (frame.width, frame.height) if frame.rotation % 180 else (frame.height, frame.width)
            count += 1
        return VideoInfo(
            width=width,
            height=height,
            fps=_frame_rate(path, stream),
            num_frames=count,
            codec=stream.codec_context.name,
            pixel_format=stream.codec_context.pix_fmt or "unknown",
        )


def declared_duration_s(path: Path) -> float:
    """Duration that a file's header declares, seconds, for plans: nothing is decoded, so it may be wrong.

    Raises:
        DwmError: the file is missing, empty, no video or cut off before its index.
    """
    with _open(path) as (container, stream):
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return (container.duration or 0) / av.time_base


def read_video(path: Path, max_frames: int | None = None) -> Video:
    """Read a video, or its first ``max_frames`` frames, into memory.

    Raises:
        DwmError: as ``probe``; also when the picture size changes within the video.
    """
    with _open(path) as (container, stream):
        fps = _frame_rate(path, stream)
        frames = np.empty((0, 0, 0, 3), np.uint8)
        times: list[float] = []
        for index, frame in enumerate(islice(_decode(path, container, stream), max_frames)):
            rgb = _to_rgb(frame)
            if index == 0:
                hint = max(1, stream.frames if max_frames is None else min(max_frames, stream.frames))
                frames = np.empty((hint, *rgb.shape), np.uint8)
            elif index == len(frames):  # the container promised fewer frames
                frames = np.concatenate([frames, np.empty_like(frames)])
            frames[index] = _same_size(path, rgb, frames.shape[1:])
            times.append(index / fps if frame.time is None else float(frame.time))
        timestamps = np.asarray(times, np.float64)
        return Video(frames=frames[: len(times)], fps=fps, timestamps_s=timestamps - timestamps[:1])


def iter_frames(path: Path) -> Generator[Frames]:
    """Yield the frames [H, W, 3] of a video one by one, with one in memory at a time.

    Raises:
        DwmError: as ``probe``; damage at the end of the file is found when the iteration gets there.
    """
    with _open(path) as (container, stream):
        shape: tuple[int, ...] | None = None
        for frame in _decode(path, container, stream):
            rgb = _to_rgb(frame)
            shape = shape or rgb.shape
            yield _same_size(path, rgb, shape)


def iter_pictures(path: Path) -> Generator[Picture]:
    """Yield every frame of a video with its time, to be converted or passed over.

    Raises:
        DwmError: as ``probe``.
    """
    with _open(path) as (container, stream):
        for frame in _decode(path, container, stream):
            yield Picture(None if frame.time is None else float(frame.time), int(frame.rotation), frame, path)


def read_clip_video(path: Path, *, width: int, height: int, num_frames: int, fit: FitPolicy = FitPolicy.PAD) -> Frames:
    """Read the first ``num_frames`` frames at a size: the one loader of encoding, metric references and reports.

    Frames are taken as they come (clips are already at their frame rate), scaled by area as they are decoded, so
    that memory holds only the result.

    Returns:
        uint8 RGB [num_frames, height, width, 3].

    Raises:
        DwmError: as ``probe``; ``TooShortError`` when the video has fewer frames.
    """
    result = np.empty((num_frames, height, width, 3), np.uint8)
    count = 0
    for frame in islice(iter_frames(path), num_frames):
        result[count] = fit_frame(frame, width, height, fit)
        count += 1
    if count < num_frames:
        raise TooShortError(
            f"{path}: has {count} frames and {num_frames} are needed; use a longer video or a profile of fewer frames"
        )
    return result


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first real video stream (a cover picture in an audio file is none)."""
    if not path.is_file():
        raise DwmError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise DwmError(f"{path}: the file is empty (0 bytes); make or copy it again")
    try:
        container = av.open(str(path), options={"format_whitelist": _CONTAINERS})
    except av.error.FFmpegError as error:
        raise DwmError(
            f"{path}: not a video, or one cut off before its index ({error.strerror}); make or copy it again"
        ) from error
    with container:
        streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
        if not streams:
            kinds = ", ".join(sorted({one.type for one in container.streams})) or "nothing"
            raise DwmError(f"{path}: holds no video stream (only {kinds}); give a video file")
        streams[0].thread_type = ThreadType.NONE  # with decoder threads, some damaged frames come out unmarked
        yield container, streams[0]


def _frame_rate(path: Path, stream: VideoStream) -> float:
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise DwmError(f"{path}: declares no frame rate; convert it to mp4 first")
    return float(rate)


def _decode(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield every decoded frame in order of display; anything missing or damaged is an error."""
    indexed = container.format.name == _INDEXED
    if indexed:
        _check_boxes(path)
    promised = len(stream.index_entries) if indexed else stream.frames
    packets, discarded, count = 0, 0, 0
    frame_s = longest_s = 1.0 / _frame_rate(path, stream)
    time_s = 0.0
    try:
        for packet in container.demux(stream):
            packets += packet.size > 0
            discarded += packet.is_discard
            for frame in packet.decode():
                if frame.is_corrupt or packet.is_corrupt:
                    raise DwmError(f"{path}: damaged at frame {count}; make or copy it again")
                count += 1
                longest_s = max(longest_s, (frame.time or 0.0) - time_s)
                time_s = frame.time or 0.0
                yield frame
    except av.error.FFmpegError as error:
        raise DwmError(f"{path}: damaged after {count} frames ({error.strerror}); make or copy it again") from error
    lost = packets - discarded - count if indexed else 0
    if packets < promised or lost > 0:
        raise DwmError(f"{path}: truncated: {count} of {max(promised, packets)} frames decode; make or copy it again")
    if count == 0:
        raise DwmError(f"{path}: holds a video stream without frames; make or copy it again")
    _check_duration(path, container, stream, time_s + frame_s, longest_s)


def _check_boxes(path: Path) -> None:
    """Compare the sizes that an mp4's outermost boxes declare with the file's: finds any cut without decoding."""
    size = path.stat().st_size
    position = 0
    with path.open("rb") as stream:
        while position + 8 <= size:
            stream.seek(position)
            header = stream.read(16)
            length = int.from_bytes(header[:4], "big")
            if length == 1:  # the real length follows, as 64 bits
                length = int.from_bytes(header[8:], "big")
            if length == 0:  # the last box, up to the end of the file
                return
            position += max(length, 8)
    if position > size:
        raise DwmError(f"{path}: truncated: {size} of {position} bytes are there; make or copy it again")


def _check_duration(path: Path, container: InputContainer, stream: VideoStream, end_s: float, longest_s: float) -> None:
    """Compare the end of the last frame with the container's duration, where only the video can have set it."""
    if container.duration is None or len(container.streams) > 1 or stream.frames:
        return
    duration_s = container.duration / av.time_base
    if duration_s - end_s > 0.5 * longest_s:
        raise DwmError(f"{path}: truncated: its frames end at {end_s:.2f} of {duration_s:.2f} s; make or copy it again")


def _to_rgb(frame: av.VideoFrame) -> Frames:
    """Convert to RGB [H, W, 3] as shown. The scaler's default flags: metric reference values depend on them."""
    rgb = np.asarray(frame.to_ndarray(format="rgb24", threads=1), np.uint8)
    turns = round(frame.rotation / 90) % 4
    return np.rot90(rgb, turns) if turns else rgb


def _same_size(path: Path, rgb: Frames, shape: tuple[int, ...]) -> Frames:
    if rgb.shape != shape:
        raise DwmError(
            f"{path}: the picture size changes from {shape[1]}x{shape[0]} to {rgb.shape[1]}x{rgb.shape[0]}; "
            "convert it to one size first"
        )
    return rgb
