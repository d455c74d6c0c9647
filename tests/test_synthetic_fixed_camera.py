"""Generated fixed-camera videos: the layout of the release, the same bytes, hands where the body has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.profiles import get_profile
from manifests.schema import Source
from render.body import load_body
from render.camera_motion import measure_camera_motion
from render.hands import HandMotion, hand_motion_from_body
from render.media_checks import check_clip_media
from render.mesh_renderer import MeshRenderer
from render.video import read_video
from sources.fixed_camera_build import FixedCameraSettings, build_fixed_camera, plan_build
from sources.fixed_camera_captions import open_captions
from sources.synthetic.fixed_camera import (
    FPS,
    HEIGHT,
    WIDTH,
    Take,
    captions_workbook,
    film,
    generate_fixed_camera,
    table_recording,
    video_path,
)
from sources.synthetic.recording import compose_recording
from sources.taste_rob import open_fixed_camera

SEED = 5


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    try:
        assert generate_fixed_camera(folder, 2, seed=SEED).made == 2
    except DwmError as error:
        pytest.skip(f"no off-screen OpenGL on this machine: {error}")
    return folder


@pytest.fixture(scope="module")
def take() -> Take:
    """The first generated video again, with what is true of it."""
    body = load_body()
    recording = compose_recording(table_recording(SEED, 0), body)
    try:
        renderer = MeshRenderer(WIDTH, HEIGHT)
    except DwmError as error:
        pytest.skip(f"no off-screen OpenGL on this machine: {error}")
    with renderer:
        return film(renderer, body, recording, np.random.default_rng([SEED, 0, 7]), from_behind=True)


def test_the_reader_takes_the_folder_as_generated_and_finds_every_caption(raw: Path) -> None:
    folder = open_fixed_camera(raw)
    assert folder.is_release
    assert folder.is_generated
    assert [video.path for video in folder.videos] == ["DoubleHand/Dinning/101.mp4", "DoubleHand/Kitchen/102.mp4"]
    book = open_captions(folder)
    assert all(book.find(video).text.endswith("hand") for video in folder.videos)
    assert book.notes == []


def test_the_camera_stands_still_and_something_happens(raw: Path) -> None:
    video = read_video(video_path(raw, 0))
    assert video.fps == FPS
    assert video.frames.shape == (25, HEIGHT, WIDTH, 3)
    assert measure_camera_motion(video.frames[::2]).step_px < 0.2
    assert np.abs(video.frames[12].astype(int) - video.frames[0]).max() > 80


def test_the_landmark_estimator_finds_the_hands_of_generated_videos(raw: Path, take: Take, tmp_path: Path) -> None:
    plan = plan_build(raw, FixedCameraSettings(profile=get_profile("mini")), limit=1)
    try:
        report = build_fixed_camera(tmp_path / "dataset", plan)
    except DwmError as error:
        if "not installed" not in str(error):
            raise
        pytest.skip(f"no landmark detector on this machine: {error}")
    assert (report.ready, report.failures) == (1, ())
    dataset = Dataset.open(tmp_path / "dataset")
    (clip,) = dataset.clips.rows()
    assert clip.source is Source.SYNTHETIC
    assert clip.hand_visible_frames >= 14
    assert not [flag for flag in clip.flags if flag.startswith(("no_hands", "camera", "empty"))]
    assert check_clip_media(dataset.root, clip) == []
    motion = HandMotion.load(dataset.absolute(clip.hand_motion_path))
    assert set(motion.is_right.tolist()) == {True, False}
    true = hand_motion_from_body(load_body(), take.skinned, take.cameras)
    for side in (False, True):  # in the first frame, in pixels of the clip, which is 96 wide and filmed at 360
        found = motion.joints_image[(motion.frame == 0) & (motion.is_right == side)][0]
        there = true.joints_image[(true.frame == 0) & (true.is_right == side)][0] * 96 / WIDTH
        assert np.median(np.linalg.norm(found - there, axis=-1)) < 3


def test_the_same_seed_gives_the_same_bytes_and_a_lost_video_comes_back(raw: Path) -> None:
    path, captions = video_path(raw, 1), raw / "captions.xlsx"
    before = path.read_bytes(), captions.read_bytes()
    path.unlink()
    report = generate_fixed_camera(raw, 2, seed=SEED)
    assert (report.made, report.kept) == (1, 1)
    assert (path.read_bytes(), captions.read_bytes()) == before
    with pytest.raises(DwmError, match="another seed"):
        generate_fixed_camera(raw, 2, seed=6)


def test_equal_captions_give_equal_workbooks() -> None:
    rows = [(1, "Kitchen", "Wash the cup")]
    assert captions_workbook(rows) == captions_workbook(rows)


def test_the_filmed_hands_are_where_the_body_has_them(take: Take) -> None:
    motion = hand_motion_from_body(load_body(), take.skinned, take.cameras)
    with MeshRenderer(WIDTH, HEIGHT) as renderer:
        drawn, shares = renderer.render_hands(motion, take.cameras.intrinsics, len(take.cameras))
    assert (shares > 0.002).mean() > 0.7  # both hands are in the picture nearly always
    skin = take.frames[drawn.max(axis=-1) > 40].astype(int)
    assert (skin[:, 0] > skin[:, 2]).mean() > 0.7  # what is drawn there is skin: redder than blue
