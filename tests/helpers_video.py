"""Small makers of videos for tests: moving pictures, odd containers, triplets in the official layout."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from render.video import Frames, write_video

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
REAL_TRIPLETS = SHARED_DATA / "dwm_realworld" / "realworld_dynamic"
REAL_FIXED_CAMERA = SHARED_DATA / "dwm_realworld" / "realworld_fixed" / "pour_coke.mp4"
OFFICIAL_SPLITS = SHARED_DATA / "official_splits"


def colour_patches(num_frames: int = 17, height: int = 64, width: int = 96, seed: int = 0) -> Frames:
    """Frames of 16-pixel patches of random colours that jump one patch to the right each frame."""
    colours = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    patches = colours.repeat(16, axis=0).repeat(16, axis=1)
    return np.stack([np.roll(patches, 16 * index, axis=1) for index in range(num_frames)])


def noise(num_frames: int, height: int, width: int, seed: int = 0) -> Frames:
    """Frames in which every pixel differs."""
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def write_variable_rate(path: Path, frames: Frames, times_ms: list[int]) -> None:
    """Write an mp4 whose frames come at given times."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1000)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for frame, time_ms in zip(frames, times_ms, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_with_pyav(path: Path, frames: Frames, *, container_format: str, codec: str, rotation: int = 0) -> None:
    """Write a file the way other tools do: default options, B-frames, any container."""
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=Fraction(8))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_audio_only(path: Path) -> None:
    """Write an mp4 with half a second of silence and no video."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        for _ in range(8):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16000
            container.mux(stream.encode(silence))
        container.mux(stream.encode())


def moving_box(num_frames: int, height: int = 64, width: int = 96, *, box: bool = True, delay: int = 0) -> Frames:
    """A textured still background with a bright box whose speed changes; ``delay`` frames late."""
    background = np.random.default_rng(1).integers(40, 120, (height // 8, width // 8, 3), dtype=np.uint8)
    frames = np.repeat(background.repeat(8, axis=0).repeat(8, axis=1)[None], num_frames, axis=0)
    if box:
        for index in range(num_frames):
            left = _box_left(index - delay, width)
            frames[index, height // 3 : height // 3 + 16, left : left + 16] = (250, 200, 160)
    return frames


def hands_of_moving_box(num_frames: int, height: int = 64, width: int = 96, delay: int = 0) -> Frames:
    """The box of ``moving_box`` alone, on black."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        left = _box_left(index - delay, width)
        frames[index, height // 3 : height // 3 + 16, left : left + 16] = (200, 100, 100)
    return frames


def _box_left(index: int, width: int) -> int:
    speeds = np.random.default_rng(7).integers(0, 7, 200)
    travelled = int(speeds[: index + 20].sum())
    span = width - 16
    return span - abs(travelled % (2 * span) - span)


def write_triplet(
    sample: Path,
    stem: str,
    *,
    num_frames: int = 9,
    prompt: bytes | None = b"I push the box.",
    raw_prompt: bytes | None = None,
) -> None:
    """Write one triplet of the official layout: interaction, static and hands videos and prompts."""
    write_video(sample / "videos" / f"{stem}.mp4", moving_box(num_frames), 8)
    write_video(sample / "videos_static" / f"{stem}.mp4", moving_box(num_frames, box=False), 8)
    write_video(sample / "videos_hands" / f"{stem}.mp4", hands_of_moving_box(num_frames), 8)
    for folder, text in (("prompts_rewrite", prompt), ("prompts", raw_prompt)):
        if text is not None:
            (sample / folder).mkdir(parents=True, exist_ok=True)
            (sample / folder / f"{stem}.txt").write_bytes(text)
