"""Floaters: what stands in empty space is found; walls without points, things with points and hands are not."""

from __future__ import annotations

import numpy as np
import pytest

from render.camera import CameraPath, intrinsics_from_fov, look_at
from render.floaters import LEAST_POINTS, floater_shares
from render.framing import Frames
from render.registration import Mask
from render.rotations import Floats
from render.scene import FloatArray

WIDTH, HEIGHT = 96, 64
CAMERAS = CameraPath(intrinsics_from_fov(WIDTH, HEIGHT, 90), np.stack([look_at((0, 1, -3), (0, 1, 0))] * 2))
COLUMNS = slice(24, 48)
"""A quarter of the picture, where something is before the wall."""


def wall_points(count: int = 2000) -> Floats:
    """Points on a wall three metres away that fills the view."""
    random = np.random.default_rng(0)
    places = random.uniform([-2.9, -0.9, 0.0], [2.9, 2.9, 0.0], (count, 3))
    return np.asarray(places)


def picture() -> tuple[FloatArray, Frames, Mask]:
    """Depth and frames of the wall, nothing ignored; two frames, of which the second gets what a test adds."""
    depth = np.full((2, HEIGHT, WIDTH), 3.0, np.float32)
    frames = np.full((2, HEIGHT, WIDTH, 3), 180, np.uint8)
    return depth, frames, np.zeros((2, HEIGHT, WIDTH), np.bool_)


def test_a_blob_in_empty_space_is_measured_by_its_share_of_the_picture() -> None:
    depth, frames, ignored = picture()
    rendered = frames.copy()
    depth[1, :, COLUMNS] = 0.8
    rendered[1, :, COLUMNS] = 60
    shares = floater_shares(wall_points(), CAMERAS, depth, ignored, (rendered, frames))
    assert shares[0] == 0.0
    assert shares[1] == pytest.approx(0.25, abs=0.04)
    ignored[1, :, COLUMNS] = True  # a hand: it says nothing
    assert floater_shares(wall_points(), CAMERAS, depth, ignored, (rendered, frames))[1] == 0.0


def test_what_has_points_of_its_own_is_no_floater() -> None:
    depth, frames, ignored = picture()
    rendered = frames.copy()
    depth[1, :, COLUMNS] = 0.8
    rendered[1, :, COLUMNS] = 60
    rows, columns = np.mgrid[0:HEIGHT:3, COLUMNS.start : COLUMNS.stop : 3]
    near = CAMERAS[1].unproject(np.stack([columns, rows], -1).reshape(-1, 2) + 0.5, np.full(rows.size, 0.8))
    points = np.concatenate([wall_points(), near])
    assert floater_shares(points, CAMERAS, depth, ignored, (rendered, frames))[1] == 0.0


def test_a_bare_wall_that_the_recording_shows_too_is_no_floater() -> None:
    """Points of the next room lie behind it; the exposure may differ."""
    depth, frames, ignored = picture()
    depth[1, :, COLUMNS] = 0.8
    frames[1, :, COLUMNS] = 150
    dimmer = (frames * 0.6).astype(np.uint8)
    assert floater_shares(wall_points(), CAMERAS, depth, ignored, (dimmer, frames))[1] == 0.0


def test_depth_a_little_in_front_is_no_floater_and_few_points_measure_nothing() -> None:
    depth, frames, ignored = picture()
    rendered = frames.copy()
    depth[1] = 2.7
    rendered[1] = 60
    shares = floater_shares(wall_points(), CAMERAS, depth, ignored, (rendered, frames))
    assert shares[1] == 0.0
    few = wall_points(LEAST_POINTS // 2)
    assert np.isnan(floater_shares(few, CAMERAS, depth, ignored, (rendered, frames))).all()
