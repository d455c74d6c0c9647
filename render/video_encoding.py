"""Video files: deterministic encoding. Import it through ``render.video``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream

from manifests.atomic import atomic_path
from manifests.errors import DwmError
from render.framing import Frames


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


def _add_stream(container: OutputContainer, frame: Frames, fps: float, *, lossless: bool, crf: int) -> VideoStream:
    rate = Fraction(fps).limit_denominator(1001)
    if lossless:
        stream = container.add_stream("libx264rgb", rate=rate, options={"qp": "0", "preset": "veryfast"})
        stream.pix_fmt = "rgb24"
    else:
        # x264's fast rate control reads memory past small pictures: without this, equal frames give unequal bytes.
        options = {"crf": str(crf), "preset": "faster", "x264-params": "cpu-independent=1"}
        stream = container.add_stream("libx264", rate=rate, options=options)
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
    [
        [65.481 / 255, 128.553 / 255, 24.966 / 255, 16.0],
        [-37.797 / 255, -74.203 / 255, 112.0 / 255, 128.0],
        [112.0 / 255, -93.786 / 255, -18.214 / 255, 128.0],
    ],
    np.float32,
)
"""Rows Y, U, V from R, G, B in 0..255 and 1 (ITU-R BT.601, limited range)."""


def _to_picture(frame: Frames, *, lossless: bool) -> av.VideoFrame:
    """Convert to what the encoder takes. Our own matrix rounds to nearest; swscale's rounds down and darkens."""
    if lossless:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    height, width = frame.shape[:2]
    planes = np.empty((height * 3 // 2, width), np.uint8)
    # Fewer than three rows at a time: OpenCV takes all three in integers that round down.
    planes[:height] = cv2.transform(frame, _BT601[:1])
    halved = cv2.resize(frame, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    planes[height:] = cv2.transform(halved, _BT601[1:]).transpose(2, 0, 1).reshape(height // 2, width)
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
