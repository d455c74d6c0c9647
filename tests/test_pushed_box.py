"""The demo's generator: plausible pushes, whole and resumable recordings, the official layout."""

from pathlib import Path

import numpy as np
import pytest

from manifests.errors import DwmError
from manifests.profiles import get_profile
from manifests.schema import Group, MaskId, Source
from render.arrays import read_npz
from render.body import Joint, load_body
from render.camera import CameraPath
from render.gl_context import gl_description
from render.hands import HandMotion
from render.video import probe, read_video
from sources.official_layout import ClipMetadata
from sources.pushed_box import (
    RecordingContent,
    RecordingPlan,
    compose_recording,
    generate_pushed_box_triplets,
    generate_recordings,
    is_complete,
    plan_recordings,
    recording_files,
)
from sources.synthetic.push_motion import Action

PROFILE = get_profile("mini")


@pytest.fixture(scope="module")
def contents() -> list[RecordingContent]:
    body = load_body()
    return [compose_recording(plan, PROFILE, body) for plan in plan_recordings(4, 2, seed=11)]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        gl_description()
    except DwmError as error:
        pytest.skip(f"no off-screen OpenGL on this machine: {error}")
    out = tmp_path_factory.mktemp("raw")
    report = generate_pushed_box_triplets(out, num_scenes=2, clips_per_scene=2, profile=PROFILE, seed=3)
    assert (report.made, report.kept) == (4, 0)
    assert report.gl_renderer
    return out


def distance_to_box(points: np.ndarray, pose: np.ndarray, size: np.ndarray) -> float:
    """Least signed distance (metres, negative inside) of points to a box."""
    outside = np.abs((points - pose[:3, 3]) @ pose[:3, :3]) - size / 2
    signed = np.where((outside < 0).all(axis=1), outside.max(axis=1), np.linalg.norm(outside.clip(0), axis=1))
    return float(signed.min())


def pushing_hand(content: RecordingContent) -> np.ndarray:
    hand = content.actor.hands[1 if content.plan.use_right_hand else 0]
    return hand.vertices(content.actor.vertices)


def test_box_moves_only_while_the_hand_touches_it(contents: list[RecordingContent]) -> None:
    for content in contents:
        places = content.motion.box_poses[:, :3, 3]
        hand = pushing_hand(content)
        gaps = np.array(
            [distance_to_box(*state, content.box.size) for state in zip(hand, content.motion.box_poses, strict=True)]
        )
        moving = np.linalg.norm(np.diff(places, axis=0), axis=1) > 1e-6
        assert moving.sum() >= 4
        assert (gaps[:-1][moving] < 0.003).all()
        assert (gaps[1:][moving] < 0.003).all()
        assert gaps[0] > 0.02
        assert gaps[-1] > 0.02


def test_nothing_is_pierced(contents: list[RecordingContent]) -> None:
    for content in contents:
        hand = pushing_hand(content)
        for frame, pose in enumerate(content.motion.box_poses):
            assert distance_to_box(hand[frame], pose, content.box.size) > -0.004
            over_table = hand[frame][hand[frame][:, 2] > content.plan.table_front]
            assert (over_table[:, 1] > content.plan.table_height + 0.003).all()


def test_box_slides_on_the_table_for_10_to_25_cm_in_the_direction_of_the_action(
    contents: list[RecordingContent],
) -> None:
    assert {content.plan.action for content in contents} == set(Action)
    for content in contents:
        places = content.motion.box_poses[:, :3, 3]
        bottom = places[:, 1] - content.box.size[1] / 2
        np.testing.assert_allclose(bottom, content.plan.table_height, atol=1e-9)
        length = np.linalg.norm(np.diff(places, axis=0), axis=1).sum()
        assert 0.10 <= length <= 0.25
        assert length == pytest.approx(content.plan.distance)
        pixels = content.cameras[0].project(places[[0, -1]])[0]
        right, down = pixels[1] - pixels[0]
        expected = {
            Action.PUSH_LEFT: right < -8,
            Action.PUSH_RIGHT: right > 8,
            Action.PUSH_AWAY: down < -5,
            Action.PULL_BACK: down > 5,
        }
        assert expected[content.plan.action]


def test_camera_is_rigid_to_the_head_and_moves(contents: list[RecordingContent]) -> None:
    body = load_body()
    for content in contents:
        skinned = body.skin(content.motion.body)
        eyes = skinned.joints[:, [Joint.LEFT_EYE, Joint.RIGHT_EYE]].mean(axis=1)
        poses = content.cameras.world_from_camera
        np.testing.assert_allclose(eyes, poses[:, :3, 3], atol=1e-9)
        head = skinned.joint_rotations[:, Joint.HEAD]
        np.testing.assert_allclose(head @ np.diag([-1, -1, 1]), poses[:, :3, :3], atol=1e-9)
        assert 0.01 < np.ptp(poses[:, :3, 3], axis=0).max() < 0.15
        assert np.abs(np.diff(poses[:, :3, 2], axis=0)).max() < 0.12


def test_default_plan_has_12_clips_over_6_scenes_and_every_action() -> None:
    plans = plan_recordings(6, 2, seed=0)
    assert len({plan.recording_id for plan in plans}) == 12
    assert len({plan.scene_id for plan in plans}) == 6
    assert {plan.action for plan in plans} == set(Action)


def test_recordings_of_a_scene_share_their_room_and_other_seeds_do_not() -> None:
    body = load_body()
    first, second, other = (
        compose_recording(plan, PROFILE, body).room
        for plan in (RecordingPlan(0, 1, 0), RecordingPlan(0, 1, 1), RecordingPlan(1, 1, 0))
    )
    assert first.scene.lighting == second.scene.lighting
    assert first.description == second.description
    assert first.scene.lighting != other.scene.lighting


def test_layout_holds_whole_triplets_with_sidecars(generated: Path) -> None:
    shape = (PROFILE.num_frames, PROFILE.height, PROFILE.width)
    for plan in plan_recordings(2, 2, seed=3):
        files = recording_files(generated, plan)
        for name in ("videos", "videos_static", "videos_hands"):
            info = probe(files[name])
            assert (info.num_frames, info.height, info.width) == shape
            assert info.fps == PROFILE.fps
        metadata = ClipMetadata.model_validate_json(files["metadata"].read_text(encoding="utf-8"))
        assert metadata.source is Source.SYNTHETIC
        assert metadata.group is Group.SYNTHETIC_DYNAMIC
        assert metadata.action_label == plan.action.value
        assert metadata.recording_id == plan.recording_id
        assert files["prompts"].read_text(encoding="utf-8").startswith("I pu")
        ids = read_npz(files["masks"])["ids"]
        assert ids.dtype == np.uint8
        assert ids.shape == shape
        depth = read_npz(files["depth"])["depth"]
        assert depth.dtype == np.float16
        assert depth.shape == shape
        assert len(CameraPath.load(files["cameras"])) == PROFILE.num_frames


def test_hand_and_box_are_well_in_the_picture(generated: Path) -> None:
    for plan in plan_recordings(2, 2, seed=3):
        files = recording_files(generated, plan)
        ids = read_npz(files["masks"])["ids"]
        hand_pixels = (ids == MaskId.HANDS).sum(axis=(1, 2))
        assert (hand_pixels > 80).sum() >= 12
        assert ((ids == MaskId.MOVED_OBJECT).sum(axis=(1, 2)) > 60).all()
        assert ((ids == MaskId.BACKGROUND).mean(axis=(1, 2)) > 0.4).all()
        frames = read_video(files["videos"]).frames
        assert 60 < frames.mean() < 200
        assert frames.std() > 25


def test_finger_joints_project_onto_the_hand_video(generated: Path) -> None:
    for plan in plan_recordings(2, 2, seed=3):
        files = recording_files(generated, plan)
        motion = HandMotion.load(files["hand_motion"])
        drawn = read_video(files["videos_hands"]).frames.max(axis=-1) > 40
        hits = []
        for entry in range(len(motion)):
            for x, y in motion.joints_image[entry, 1:]:  # the wrist lies on the cut
                if 1 <= x < PROFILE.width - 1 and 1 <= y < PROFILE.height - 1:
                    near = drawn[motion.frame[entry], int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2]
                    hits.append(near.any())
        assert len(hits) > 100
        assert np.mean(hits) > 0.99


def test_interrupted_generation_ends_in_the_same_bytes_and_keeps_what_is_whole(generated: Path) -> None:
    before = {path: path.read_bytes() for path in generated.rglob("*") if path.is_file()}
    whole, broken = plan_recordings(1, 2, seed=3)
    for name in ("videos_hands", "metadata"):
        recording_files(generated, broken)[name].unlink()
    times = {path: path.stat().st_mtime_ns for path in recording_files(generated, whole).values()}
    assert is_complete(generated, whole)
    assert not is_complete(generated, broken)

    report = generate_pushed_box_triplets(generated, num_scenes=2, clips_per_scene=2, profile=PROFILE, seed=3)

    assert (report.made, report.kept) == (1, 3)
    assert {path: path.read_bytes() for path in generated.rglob("*") if path.is_file()} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_one_recording_alone_has_the_same_bytes_as_in_the_whole_set(generated: Path, tmp_path: Path) -> None:
    plan = RecordingPlan(seed=3, scene=1, recording=1)
    generate_recordings(tmp_path, [plan], PROFILE)
    for name, path in recording_files(tmp_path, plan).items():
        assert path.read_bytes() == recording_files(generated, plan)[name].read_bytes(), name


def test_folder_of_another_seed_is_refused(generated: Path) -> None:
    with pytest.raises(DwmError, match=r"settings\.json: .*another seed or profile"):
        generate_pushed_box_triplets(generated, num_scenes=1, clips_per_scene=1, profile=PROFILE, seed=4)
