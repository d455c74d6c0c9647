"""A generated capture, opened by the readers of real ones: pictures, poses and points fit together."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests.errors import DwmError
from render.camera import CameraPath, intrinsics_from_fov
from render.fisheye import STORED_FROM_UPRIGHT, Mask
from render.mesh_renderer import MeshRenderer
from render.rotations import Floats
from sources.aria import RELEASE_FOV_DEGREES, AriaCapture, open_capture
from sources.aria_files import find_captures
from sources.synthetic.aria_capture import (
    LENS_RADIUS_PX,
    RENDER_SIZE,
    CapturePlan,
    StagedCapture,
    generate_captures,
    lens_maps,
    recording_path,
    render_intrinsics,
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


def test_semi_dense_points_reproject_within_a_pixel(capture: AriaCapture, staged: StagedCapture) -> None:
    """The readers' calibration, pose and points against the renderer's own projection and depth of the same surfaces.

    The readers say at which stored pixel of the recording a point lies. The renderer, at the true pose, says where in
    its straight picture that point is drawn and how far away its surface is there; the generator's map from stored to
    straight pixels joins the two. Points that the renderer does not see there (something is in front) do not count.
    """
    for frames in (np.array([3, 7]), np.array([PLAN.explore_frames + 2])):
        cameras = CameraPath(render_intrinsics(), staged.poses[frames])
        for number, depth in enumerate(rendered_depth(staged, cameras, frames)):
            frame = int(frames[number])
            truth, far = cameras[number].project(capture.points.positions)
            inside = (far > 0.1) & (truth >= 1).all(axis=1) & (truth < RENDER_SIZE - 1).all(axis=1)
            columns, rows = truth[inside].astype(np.int64).T
            seen = np.abs(depth[rows, columns] - far[inside]) < 0.02 * far[inside]
            places, told = stored_places(capture, frame, capture.points.positions[inside][seen])
            straight = cv2.remap(
                np.stack(lens_maps()[:2], axis=-1),
                places[None].astype(np.float32),
                None,
                cv2.INTER_LINEAR,
            )[0]
            away = np.linalg.norm(straight + 0.5 - truth[inside][seen], axis=1)[told]
            assert len(away) > 800, frame
            assert np.median(away) < 0.15, frame
            assert away.max() < 1.0, frame


def rendered_depth(
    staged: StagedCapture, cameras: CameraPath, frames: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> Floats:
    """[T,S,S] metres along z of what the renderer draws in some frames of the recording."""
    with MeshRenderer(RENDER_SIZE, RENDER_SIZE, samples=4) as renderer:
        if staged.plan.shows_actor(int(frames[0])):
            return staged.views(renderer, cameras, frames).depth.astype(np.float64)
        count = len(frames)
        views = renderer.render_views(staged.scene, staged.resting(count), staged.absent(count), cameras)
        return views.depth.astype(np.float64)


def stored_places(capture: AriaCapture, frame: int, points: Floats) -> tuple[Floats, Mask]:
    """Stored pixels [n,2] (first centre at 0) of world points by the readers, and which the lens sees well inside."""
    world_from_camera = capture.poses(np.array([frame]))[0]
    here = (points - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
    pixels, visible = capture.calibration(frame).lens.project(here @ STORED_FROM_UPRIGHT.T)
    lens = capture.calibration(frame).lens
    inner = np.linalg.norm(pixels - lens.params[1:3], axis=1) < LENS_RADIUS_PX - 8
    return pixels, visible & inner


def test_same_plan_gives_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    plan = CapturePlan(seed=0, number=0, explore_frames=2, act_frames=1)
    for folder in ("a", "b"):
        generate_captures(tmp_path / folder, [plan], with_phases=False)
    for path in sorted((tmp_path / "a").rglob("*.*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path
    assert not recording_path(tmp_path / "a", plan).with_name("phases.json").exists()
    assert len(CameraPath(INTRINSICS, stage_capture(plan).poses)) == 3
