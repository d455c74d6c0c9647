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

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from manifests.atomic import atomic_path
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

__all__ = [
    "FitPolicy",
    "Frames",
    "LengthPolicy",
    "TooShortError",
    "Video",
    "VideoInfo",
    "fit_frame",
    "fit_frames",
    "fit_length",
    "iter_frames",
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


def iter_frames(path: Path) -> Iterator[Frames]:
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


def write_video(path: Path, frames: Iterable[Frames], fps: float, *, lossless: bool = False, crf: int = 18) -> None:
    """Write an mp4 atomically; the same frames and settings give the same bytes.

    The usual form is H.264 4:2:0 with its index at the front, which plays in browsers: BT.601 limited range, declared
    as such (decoders that ignore the declaration assume the same), with the primaries and curve of sRGB. One encoder
    thread and no time stamp keep the bytes the same. ``lossless`` keeps every bit (H.264 in RGB), takes odd sizes
    and does not play in browsers.

    Args:
        path: File to write.
        frames: uint8 RGB frames: an array [T, H, W, 3] or any iterable of [H, W, 3], streamed.
        fps: Frames a second, written as the nearest fraction with a denominator up to 1001.
        lossless: Keep every bit.
        crf: x264 quality of the usual form: 0 best, 18 visually lossless, 51 worst.

    Raises:
        DwmError: no frames, frames of another type or size, odd sizes in the usual form, a rate that is not
            positive, or a file that cannot be written.
    """
    if not 0 < fps < 1000:
        raise DwmError(f"{path}: {fps} frames a second cannot be written; give a rate between 0 and 1000")
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise DwmError(f"{path}: no frames to write")
    _check_writable(path, first, lossless=lossless)
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with (
        atomic_path(path) as temporary,
        _explained(path),
        av.open(str(temporary), "w", format="mp4", options=options) as container,
    ):
        stream = _add_stream(container, first, fps, lossless=lossless, crf=crf)
        for index, frame in enumerate(chain([first], remaining)):
            if frame.shape != first.shape or frame.dtype != np.uint8:
                raise DwmError(
                    f"{path}: frame {index} is {frame.dtype} {frame.shape}, the first one uint8 {first.shape}"
                )
            container.mux(stream.encode(_to_picture(frame, lossless=lossless)))
        container.mux(stream.encode())


def _check_writable(path: Path, frame: Frames, *, lossless: bool) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise DwmError(f"{path}: frames must be uint8 [H, W, 3]; the first one is {frame.dtype} {frame.shape}")
    height, width = frame.shape[:2]
    if not lossless and (height % 2 or width % 2):
        raise DwmError(
            f"{path}: {width}x{height} has an odd side, which 4:2:0 video cannot hold; "
            "fit the frames to an even size or write lossless"
        )


def _add_stream(
    container: av.container.OutputContainer, frame: Frames, fps: float, *, lossless: bool, crf: int
) -> VideoStream:
    rate = Fraction(fps).limit_denominator(1001)
    if lossless:
        stream = container.add_stream("libx264rgb", rate=rate, options={"qp": "0", "preset": "veryfast"})
        stream.pix_fmt = "rgb24"
    else:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "fast"})
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.colorspace = Colorspace.ITU601
        codec.color_range = ColorRange.MPEG
        codec.color_primaries = ColorPrimaries.BT709
        codec.color_trc = ColorTrc.IEC61966_2_1
    stream.height, stream.width = frame.shape[:2]
    stream.codec_context.thread_count = 1
    return stream


_BT601 = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float32
) / np.float32(255)
"""Rows Y, U, V from R, G, B in 0..255, without the offsets 16, 128, 128 (ITU-R BT.601, limited range)."""


def _to_picture(frame: Frames, *, lossless: bool) -> av.VideoFrame:
    """Convert to what the encoder takes. Our own matrix rounds to nearest; swscale's rounds down and darkens."""
    if lossless:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    height, width = frame.shape[:2]
    yuv = cv2.transform(frame.astype(np.float32), _BT601)
    planes = np.empty((height * 3 // 2, width), np.uint8)
    planes[:height] = np.rint(yuv[..., 0] + 16)
    chroma = np.rint(cv2.resize(yuv[..., 1:], (width // 2, height // 2), interpolation=cv2.INTER_AREA) + 128)
    planes[height:] = chroma.transpose(2, 0, 1).reshape(height // 2, width)
    picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    picture.colorspace = Colorspace.ITU601
    picture.color_range = ColorRange.MPEG
    return picture


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn PyAV's errors into one line; those of the operating system go on to ``atomic_path``."""
    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise DwmError(f"{path}: could not be encoded ({error.strerror}); check the frames' size and type") from error


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
        streams[0].thread_type = ThreadType.AUTO
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
