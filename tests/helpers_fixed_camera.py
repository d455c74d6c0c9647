"""Small makers of fixed-camera data for tests: videos in odd forms, caption files, hand files in register."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from manifests.profiles import Profile
from render.framing import Frames
from render.hand_estimation.settings import HandEstimationSettings
from render.hands import HandMotion
from render.video import write_video
from sources.fixed_camera_clip import FixedCameraSettings
from sources.synthetic.fixed_camera import captions_workbook
from sources.taste_rob import CAPTIONS_FILE

WIDTH, HEIGHT, FRAMES, FPS = 192, 128, 9, 8.0
TINY = Profile(name="tiny", width=WIDTH, height=HEIGHT, num_frames=FRAMES, fps=FPS, frame_step=1, stride=9)
_FACES = np.array([[0, 1, 2], [0, 2, 3], [4, 6, 5], [4, 7, 6], [0, 4, 5], [0, 5, 1], [3, 2, 6], [3, 6, 7]])
_CUBE = np.array([[x, y, z] for z in (-1, 1) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))], np.float32) * 0.03


def table_scene(num_frames: int = 24, *, seed: int = 1, width: int = WIDTH, height: int = HEIGHT) -> Frames:
    """A still, patterned background over which a bright thing travels."""
    random = np.random.default_rng(seed)
    patches = random.integers(30, 150, (height // 8, width // 8, 3), dtype=np.uint8)
    background = patches.repeat(8, axis=0).repeat(8, axis=1)
    frames = np.repeat(background[None], num_frames, axis=0)
    for index in range(num_frames):
        left = width // 6 + round(index * width / 2 / num_frames)
        frames[index, height // 3 : height // 3 + height // 6, left : left + width // 8] = (240, 190, 150)
    return frames


def write_table_video(path: Path, num_frames: int = 24, fps: float = 16.0, seed: int = 1) -> Path:
    """A usable fixed-camera video: 1.5 s at 16 frames a second."""
    write_video(path, table_scene(num_frames, seed=seed), fps)
    return path


def write_in_format(path: Path, frames: Frames, pixel_format: str, fps: int = 16) -> None:
    """Write H.264 in a pixel format such as ``yuv420p10le`` or ``yuv444p``."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_hands(
    folder: Path, name: str, *, hands: int = 2, frames: int = FRAMES, width: int = WIDTH, height: int = HEIGHT
) -> Path:
    """A hand file for the tiny profile: ``hands`` small blocks in register with a camera of 62 degrees."""
    focal, count = width * 160 / 192, hands * frames
    number = np.arange(count)
    frame, which = number // max(hands, 1), number % max(hands, 1)
    centre = np.stack([-0.12 + 0.08 * which, 0.02 + 0.004 * frame, np.full(count, 0.5)], axis=1).astype(np.float32)
    image = centre[:, None, :2] / centre[:, None, 2:] * focal + np.array([width / 2, height / 2])
    motion = HandMotion(
        frame=frame,
        is_right=which % 2 == 1,
        score=np.ones(count, np.float32),
        track_id=which,
        pose=np.full((count, 45), np.nan, np.float32),
        orientation=np.full((count, 3), np.nan, np.float32),
        translation=centre,
        joints_camera=np.repeat(centre[:, None], 21, axis=1),
        joints_image=np.repeat(image, 21, axis=1).astype(np.float32),
        vertices=centre[:, None] + _CUBE,
        faces_left=_FACES,
        faces_right=_FACES,
        focal_px=focal,
    )
    path = folder / f"{name}.npz"
    motion.save(path)
    return path


def file_settings(hands: Path, *, mirrored: bool = False, **changes: object) -> FixedCameraSettings:
    """Settings of the tiny profile with hands from files."""
    estimation = HandEstimationSettings(estimator="file", files=hands, mirrored=mirrored)
    return FixedCameraSettings.model_validate({"profile": TINY, "hands": estimation, **changes})


def write_release(raw: Path, videos: dict[str, int], rows: list[tuple[int | str | None, str, str | None]]) -> Path:
    """A release: videos by ``subset/scene/id`` with the seeds of their backgrounds, and `captions.xlsx`."""
    raw.mkdir(exist_ok=True)
    for name, seed in videos.items():
        write_table_video(raw / f"{name}.mp4", seed=seed)
    (raw / CAPTIONS_FILE).write_bytes(captions_workbook(rows))
    return raw
