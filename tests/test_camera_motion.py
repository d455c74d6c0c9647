"""Whether a camera stands still: background motion against what moves in front of it, and scene cuts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from render.camera_motion import find_scene_cuts, measure_camera_motion
from render.framing import FitPolicy, LengthPolicy
from render.perceptual_hash import picture_hash
from render.resampling import picture_box, plan_windows, read_sampled, read_timing
from tests.helpers_video import REAL_FIXED_CAMERA, REAL_TRIPLETS

WIDTH, HEIGHT, FRAMES = 360, 240, 13


def wall(seed: int = 0) -> np.ndarray:
    """A large smooth pattern with corners everywhere."""
    noise = np.random.default_rng(seed).integers(0, 255, (50, 70, 3)).astype(np.uint8)
    return cv2.resize(noise, (700, 500), interpolation=cv2.INTER_CUBIC)


def filmed(step: float, *, foreground: int = 0, seed: int = 0) -> np.ndarray:
    """The wall by a camera that pans ``step`` pixels a frame, behind a thing of ``foreground`` pixels that moves."""
    picture, frames = wall(seed), []
    thing = wall(seed + 1)[: foreground or 1, : foreground or 1]
    for index in range(FRAMES):
        shift = np.float32([[1, 0, -60 - step * index], [0, 1, -40 - 0.5 * step * index]])
        frame = cv2.warpAffine(picture, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        if foreground:
            frame[40 : 40 + foreground, 20 + 9 * index : 20 + 9 * index + foreground] = thing
        frames.append(frame)
    return np.stack(frames)


@pytest.mark.parametrize("foreground", [0, 60, 110])
def test_a_still_camera_is_still_whatever_moves_before_it(foreground: int) -> None:
    motion = measure_camera_motion(filmed(0.0, foreground=foreground))
    assert motion.step_px < 0.05
    assert motion.drift_px < 0.1
    assert motion.tracked_share == 1.0


@pytest.mark.parametrize("step", [0.3, 1.0, 4.0])
def test_a_pan_is_measured_in_pixels(step: float) -> None:
    motion = measure_camera_motion(filmed(step, foreground=60))
    true = step * np.hypot(1, 0.5)
    assert motion.step_px == pytest.approx(true, rel=0.1)
    assert motion.drift_px == pytest.approx(true * (FRAMES - 1), rel=0.1) or (step > 2 and motion.drift_px > 20)


def test_hands_hold_no_corners() -> None:
    frames = filmed(0.0)
    moving = wall(9)[:200, :300]
    hands = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    for index in range(FRAMES):  # hands over most of the picture that move as one would outvote the rest
        frames[index, 20:220, 5 + 3 * index : 305 + 3 * index] = moving
        hands[index, 20:220, 5 + 3 * index : 305 + 3 * index] = True
    unmasked, masked = measure_camera_motion(frames), measure_camera_motion(frames, hands)
    assert unmasked.step_px > 2
    assert masked.step_px is None or masked.step_px < 0.1


def test_the_edge_of_a_padded_picture_is_no_background() -> None:
    frames = np.zeros((FRAMES, 300, WIDTH, 3), np.uint8)
    frames[:, 30:270] = filmed(3.0)
    motion = measure_camera_motion(frames, None, (0, 30, WIDTH, 270))
    assert motion.step_px == pytest.approx(3.0 * np.hypot(1, 0.5), rel=0.1)


def test_a_picture_without_corners_tells_nothing() -> None:
    motion = measure_camera_motion(np.full((5, 64, 96, 3), 90, np.uint8))
    assert (motion.step_px, motion.drift_px, motion.tracked_share) == (None, None, 0.0)


def test_cuts_are_found_and_fast_motion_is_none() -> None:
    first, second = filmed(0.0, foreground=110), 255 - filmed(0.0, seed=5) // 3
    assert find_scene_cuts(np.concatenate([first[:5], second[:6]])) == [5]
    assert find_scene_cuts(filmed(6.0, foreground=110)) == []
    darker = np.concatenate([first[:5], first[5:] // 2])
    assert find_scene_cuts(darker) == []  # a lamp goes out, the scene is the same


def test_hashes_of_alike_pictures_differ_in_few_bits() -> None:
    picture = filmed(0.0)[0]
    noise = np.random.default_rng(0).normal(0, 6, picture.shape)
    alike = np.clip(picture * 0.85 + noise, 0, 255).astype(np.uint8)

    def bits(first: np.ndarray, second: np.ndarray) -> int:
        return (int(picture_hash(first), 16) ^ int(picture_hash(second), 16)).bit_count()

    assert bits(picture, alike) <= 4
    assert bits(picture, cv2.resize(picture, (96, 64), interpolation=cv2.INTER_AREA)) <= 4
    assert bits(picture, filmed(0.0, seed=7)[0]) > 16


@pytest.mark.skipif(not REAL_FIXED_CAMERA.exists(), reason="the real videos are not on this machine")
def test_real_cameras_that_stand_and_that_move() -> None:
    still, moving = [], []
    for path in (REAL_FIXED_CAMERA, *sorted((REAL_TRIPLETS / "videos").glob("*.mp4"))):
        timing = read_timing(path)
        (window,) = plan_windows(timing, 8.0, 25, LengthPolicy.PAD_LAST)
        frames = read_sampled(path, window.indices, 360, 240, FitPolicy.PAD)
        assert find_scene_cuts(frames) == []
        motion = measure_camera_motion(frames, None, picture_box(timing.width, timing.height, 360, 240, FitPolicy.PAD))
        (still if path == REAL_FIXED_CAMERA else moving).append(motion)
    assert max(motion.step_px for motion in still) < 0.15
    assert max(motion.drift_px for motion in still) < 0.6
    assert min(motion.step_px for motion in moving) > 1.5
