"""A generated capture, opened by the readers of real ones: pictures, poses and points fit together."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests.errors import DwmError
from render.camera import CameraPath, intrinsics_from_fov
from render.mesh_renderer import MeshRenderer
from sources.aria import RELEASE_FOV_DEGREES, AriaCapture, open_capture
from sources.aria_files import find_captures
from sources.synthetic.aria_capture import (
    CapturePlan,
    StagedCapture,
    generate_captures,
    recording_path,
    stage_capture,
    static_truth,
)
from sources.synthetic.marks import is_generated

PLAN = CapturePlan(seed=0, number=0, explore_frames=10, act_frames=5, source_step=8)
WIDTH, HEIGHT = 360, 240
INTRINSICS = intrinsics_from_fov(WIDTH, HEIGHT, RELEASE_FOV_DEGREES)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    report = generate_captures(folder, [PLAN])
    assert (report.made, report.kept) == (1, 0)
    return folder


@pytest.fixture(scope="module")
def capture(raw: Path) -> AriaCapture:
    return open_capture(find_captures(raw)[0])


@pytest.fixture(scope="module")
def staged() -> StagedCapture:
    return stage_capture(PLAN)


def test_capture_is_whole_and_marked_as_generated(raw: Path, capture: AriaCapture) -> None:
    assert is_generated(raw)
    assert capture.calibration_source == "online"
    assert capture.has_pose.all()
    assert len(capture.recording) == PLAN.num_frames
    assert len(capture.points.positions) > 1000
    assert capture.files.phases is not None
    assert capture.files.caption is not None
    report = generate_captures(raw, [PLAN])
    assert (report.made, report.kept) == (0, 1)
    with pytest.raises(DwmError, match="another seed"):
        generate_captures(raw, [CapturePlan(seed=1, number=0)])


def test_views_are_what_a_pinhole_camera_there_sees(capture: AriaCapture, staged: StagedCapture) -> None:
    """Against a picture drawn straight at the reader's own camera: lens, rotation, poses, half pixels."""
    clip = capture.read_clip(np.array([2, 7]), INTRINSICS, WIDTH, HEIGHT)
    drawn = static_truth(staged, clip.cameras, WIDTH, HEIGHT)
    for straight, expected, strength in zip(clip.frames, drawn, clip.exposure_s / 0.006, strict=True):
        here, there = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64) for image in (straight, expected))
        (dx, dy), _ = cv2.phaseCorrelate(here, there * strength)
        assert abs(dx) < 0.1
        assert abs(dy) < 0.1
        error = np.mean((straight.astype(float) - expected.astype(float) * strength) ** 2)
        assert 10 * np.log10(255**2 / error) > 30


def test_hands_and_moved_things_are_in_the_interaction_only(capture: AriaCapture, staged: StagedCapture) -> None:
    frames = np.arange(PLAN.explore_frames, PLAN.num_frames)
    clip = capture.read_clip(frames, INTRINSICS, WIDTH, HEIGHT)
    still = static_truth(staged, clip.cameras, WIDTH, HEIGHT)
    differs = (np.abs(clip.frames.astype(int) - still).max(axis=-1) > 40).mean(axis=(1, 2))
    hands = staged.hands(frames, clip.cameras)
    with MeshRenderer(WIDTH, HEIGHT, samples=4, shadows=False) as renderer:
        video, shares = renderer.render_hands(hands, INTRINSICS, len(frames))
    shown = video.any(axis=-1)
    assert differs.max() > 0.03
    assert shares.max() > 0.003
    # Where the true hands are drawn, the recording shows skin, which the empty room does not.
    apart = np.abs(clip.frames.astype(int) - still).max(axis=-1)
    assert apart[shown].mean() > 3 * apart[~shown].mean()


def test_semi_dense_points_reproject_within_a_pixel(capture: AriaCapture) -> None:
    """What the picture shows at a point's place in one frame is found at its place in another, by optical flow."""
    width, height = 720, 480
    intrinsics = intrinsics_from_fov(width, height, RELEASE_FOV_DEGREES)
    clip = capture.read_clip(np.arange(10, 15), intrinsics, width, height)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames]
    distances = []
    for first, second in ((0, 1), (1, 2), (2, 3), (3, 4)):
        here, near = clip.cameras[first].project(capture.points.positions)
        there, far = clip.cameras[second].project(capture.points.positions)
        inside = (near > 0) & (far > 0)
        for place in (here, there):
            inside &= (place > 20).all(axis=1) & (place[:, 0] < width - 20) & (place[:, 1] < height - 20)
        start = (here[inside] - 0.5).astype(np.float32)  # OpenCV's first pixel centre is at 0
        guess = (there[inside] - 0.5).astype(np.float32)
        found, status, _ = cv2.calcOpticalFlowPyrLK(
            grey[first],
            grey[second],
            start,
            guess.copy(),
            winSize=(15, 15),
            maxLevel=0,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        back, again, _ = cv2.calcOpticalFlowPyrLK(
            grey[second],
            grey[first],
            found,
            start.copy(),
            winSize=(15, 15),
            maxLevel=0,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        eigen = cv2.cornerMinEigenVal(grey[first], 7)
        textured = eigen[start[:, 1].astype(int), start[:, 0].astype(int)] > 0.0002
        sure = (status[:, 0] > 0) & (again[:, 0] > 0) & (np.linalg.norm(back - start, axis=1) < 0.5) & textured
        distances.append(np.linalg.norm(found - guess, axis=1)[sure])
    away = np.concatenate(distances)
    assert len(away) > 100
    assert np.median(away) < 0.5
    assert (away < 1.0).mean() > 0.7  # the rest lies on what moves, or on the edges of shadows


def test_same_plan_gives_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    plan = CapturePlan(seed=0, number=0, explore_frames=2, act_frames=1)
    for folder in ("a", "b"):
        generate_captures(tmp_path / folder, [plan], with_phases=False)
    for path in sorted((tmp_path / "a").rglob("*.*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path
    assert not recording_path(tmp_path / "a", plan).with_name("phases.json").exists()
    assert len(CameraPath(INTRINSICS, stage_capture(plan).poses)) == 3
