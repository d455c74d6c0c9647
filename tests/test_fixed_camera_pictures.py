"""Which part of a window's frames is picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from render.framing import FitPolicy
from render.resampling import read_timing
from render.video import write_video
from sources.fixed_camera_pictures import read_pictures
from tests.helpers_fixed_camera import TINY, table_scene


@pytest.mark.parametrize("scale", [1, 2])
def test_hands_are_black_where_the_clip_is_padding(tmp_path: Path, scale: int) -> None:
    path = tmp_path / "wide.mp4"
    write_video(path, table_scene(TINY.num_frames, width=192, height=64), TINY.fps)  # half as high as the clip
    indices = np.arange(TINY.num_frames)
    pictures = read_pictures(path, read_timing(path), indices, TINY, fit=FitPolicy.PAD, scale=scale)
    drawn = np.full((TINY.num_frames, TINY.height, TINY.width, 3), 200, np.uint8)
    shown = pictures.within_picture(drawn)
    assert (shown[:, 32:96] == 200).all()
    assert not shown[:, :32].any()
    assert not shown[:, 96:].any()


def test_hands_are_left_alone_in_a_clip_that_is_all_picture(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, table_scene(TINY.num_frames), TINY.fps)
    indices = np.arange(TINY.num_frames)
    pictures = read_pictures(path, read_timing(path), indices, TINY, fit=FitPolicy.STRETCH, scale=1)
    drawn = np.full((TINY.num_frames, TINY.height, TINY.width, 3), 200, np.uint8)
    assert (pictures.within_picture(drawn) == drawn).all()
