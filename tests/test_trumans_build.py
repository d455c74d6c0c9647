"""TRUMANS windows as clips: checked triplets, rows with reasons, resumable, the same bytes however they are made."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import trimesh
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.profiles import Profile
from manifests.schema import Clip, ClipStatus, MaskId
from render.arrays import read_npz, write_npz
from render.body import Joint, load_body
from render.camera import CameraPath
from render.media_checks import check_clip_media
from render.mesh_renderer import ClipViews
from render.scene import Lighting, ObjectTrack, Scene, SceneObject, SpotLight, plain_surface
from render.video import read_video
from sources.trumans_build import TrumansSettings, build_chunk_in_worker, build_trumans, plan_build, settings_from
from sources.trumans_checks import MovingObject, height_below, object_flags, view_flag
from tests.helpers_trumans_real import HAS_REAL_DATA, NO_REAL_DATA, cup_mesh, cup_poses, write_real_recording

TINY = Profile(name="tiny", width=96, height=64, num_frames=5, fps=8.0, frame_step=2, stride=4)
FRAMES = 30


def write_room(raw: Path, scene_id: str) -> None:
    """A floor, a table and a cup."""
    folder = raw / "scenes" / scene_id
    (folder / "objects").mkdir(parents=True)
    scene = trimesh.Scene()
    for name, size, place in (("floor", (6, 0.1, 6), (0, -0.05, 0)), ("table", (1.2, 0.05, 0.6), (0, 0.75, 0.7))):
        box = trimesh.creation.box(size)
        box.visual = TextureVisuals(uv=box.vertices[:, :2], material=PBRMaterial(baseColorFactor=[200, 150, 90, 255]))
        pose = np.eye(4)
        pose[:3, 3] = place
        scene.add_geometry(box, node_name=name, geom_name=name, transform=pose)
    (folder / "background.glb").write_bytes(scene.export(file_type="glb"))
    (folder / "objects" / "cup.glb").write_bytes(trimesh.Scene({"cup": cup_mesh()}).export(file_type="glb"))


def write_recording(raw: Path, scene_id: str, recording_id: str, frames: int = FRAMES) -> Path:
    """A body that stands before the table, looks down, reaches forward and carries the cup."""
    folder = raw / "recordings" / recording_id
    folder.mkdir(parents=True)
    time = np.arange(frames)[:, None] / 30
    pose = np.zeros((frames, 21, 3), np.float32)
    pose[:, Joint.HEAD - 1, 0] = 0.7
    pose[:, Joint.LEFT_SHOULDER - 1, 1] = -1.3
    pose[:, Joint.RIGHT_SHOULDER - 1, 1] = 1.3 + 0.2 * np.sin(4 * time[:, 0])
    motion = {
        "global_orient": np.zeros((frames, 3), np.float32),
        "body_pose": pose.reshape(frames, 63),
        "left_hand_pose": np.zeros((frames, 45), np.float32),
        "right_hand_pose": np.zeros((frames, 45), np.float32),
        "jaw_pose": np.zeros((frames, 3), np.float32),
        "expression": np.zeros((frames, 10), np.float32),
        "transl": np.tile(np.float32([0, 1.32, 0]), (frames, 1)),
        "betas": np.zeros(0, np.float32),
    }
    (folder / "motion.pkl").write_bytes(pickle.dumps(motion))
    poses = cup_poses(folder / "motion.pkl", 0, frames - 1)
    write_npz(folder / "objects.npz", {"names": np.array(["cup"]), "matrix_world/cup": poses})
    (folder / "actions.txt").write_text(f"0\t{frames}\tlift the cup\n", encoding="utf-8")
    info = {"scene_id": scene_id, "fps": 30, "num_frames": frames}
    (folder / "recording.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trumans")
    for scene in ("room_a", "room_b"):
        write_room(folder, scene)
        write_recording(folder, scene, f"{scene}_take")
    return folder


@pytest.fixture(scope="module")
def settings() -> TrumansSettings:
    return TrumansSettings(profile=TINY)


@pytest.fixture(scope="module")
def built(raw: Path, settings: TrumansSettings, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("built") / "dataset"
    try:
        build_trumans(root, plan_build(raw, settings))
    except DwmError as error:
        pytest.skip(f"no off-screen OpenGL on this machine: {error}")
    return Dataset.open(root)


def ready(dataset: Dataset) -> list[Clip]:
    return [clip for clip in dataset.clips.rows() if clip.status is ClipStatus.READY]


def test_clips_are_whole_triplets_with_sidecars(built: Dataset) -> None:
    clips = ready(built)
    assert len(clips) == 6
    for clip in clips:
        assert [problem for problem in check_clip_media(built.root, clip) if problem.is_error] == []
        assert all(getattr(clip, column) for column in Clip.FILE_COLUMNS)
        assert clip.prompt == "Lift the cup."
        assert clip.action_label == "lift cup"
        assert clip.static_policy == "clip_first"
        assert clip.hand_visible_frames == TINY.num_frames
        assert clip.object_motion_m > 0.005
        assert clip.moved_objects == ("cup",)
        assert clip.background_psnr_db > 38, "outside what the masks mark, static and interaction differ by the codec"
        assert set(clip.input_hashes) >= {"motion", "objects", "scene", "mesh/cup"}
        depth = read_npz(built.absolute(clip.depth_path))["depth"]
        assert depth.dtype == np.float16
        assert 0.1 < np.median(depth[depth > 0].astype(float)) < 3
        assert (read_npz(built.absolute(clip.masks_path))["ids"] == MaskId.HANDS).any()


def test_windows_that_a_rule_leaves_out_have_rows(built: Dataset) -> None:
    dropped = [clip for clip in built.clips.rows() if clip.status is ClipStatus.DROPPED]
    assert len(dropped) == 2
    assert all("incomplete tail" in clip.reason for clip in dropped)


def test_stored_camera_projects_the_moved_object_into_its_mask(built: Dataset, raw: Path) -> None:
    clip = ready(built)[0]
    folder = raw / "recordings" / clip.recording_id
    poses = read_npz(folder / "objects.npz")["matrix_world/cup"]
    cameras = CameraPath.load(built.absolute(clip.camera_path))
    ids = read_npz(built.absolute(clip.masks_path))["ids"]
    hits = 0
    for frame in range(clip.num_frames):
        (column, row), depth = cameras[frame].project(poses[clip.start_frame + frame * clip.frame_step, :3, 3])
        if depth > 0.1 and 0 <= column < clip.width and 0 <= row < clip.height:
            hits += ids[frame, int(row), int(column)] in {MaskId.MOVED_OBJECT, MaskId.HANDS}
    assert hits == clip.num_frames


def test_building_again_changes_nothing(built: Dataset, raw: Path, settings: TrumansSettings) -> None:
    before = {clip.clip_id: clip for clip in built.clips.rows()}
    report = build_trumans(built.root, plan_build(raw, settings))
    assert (report.ready, report.unchanged) == (0, 6)
    assert {clip.clip_id: clip for clip in built.clips.rows()} == before


def test_workers_and_chunks_do_not_change_bytes(
    built: Dataset, raw: Path, settings: TrumansSettings, tmp_path: Path
) -> None:
    plan = plan_build(raw, settings, chunk_clips=2)
    assert len(plan.chunks) == 4
    build_trumans(tmp_path / "other", plan, workers=2)
    other = Dataset.open(tmp_path / "other")
    expected = {clip.clip_id: clip.output_hashes for clip in built.clips.rows()}
    assert {clip.clip_id: clip.output_hashes for clip in other.clips.rows()} == expected


def test_lost_clip_is_made_again_with_the_same_bytes(
    raw: Path, settings: TrumansSettings, tmp_path: Path, built: Dataset
) -> None:
    plan = plan_build(raw, settings, limit=2)
    assert plan.figures().clips == 2
    report = build_chunk_in_worker_or_skip(tmp_path / "part", plan)
    assert report.ready == 2
    part = Dataset.open(tmp_path / "part")
    lost = ready(part)[0]
    part.absolute(lost.static_path).unlink()
    assert build_trumans(part.root, plan).ready == 1
    again = part.clips.get(lost.clip_id)
    assert again.output_hashes == lost.output_hashes == built.clips.get(lost.clip_id).output_hashes


def build_chunk_in_worker_or_skip(root: Path, plan):  # noqa: ANN001, ANN201 - a test's shorthand
    Dataset.create_or_open(root)
    return build_chunk_in_worker(root, plan, plan.chunks[0])


def test_recording_that_cannot_be_read_gives_failed_rows(settings: TrumansSettings, tmp_path: Path) -> None:
    write_room(tmp_path / "raw", "room")
    folder = write_recording(tmp_path / "raw", "room", "take")
    (folder / "motion.pkl").write_bytes(pickle.dumps({"global_orient": print}))
    report = build_trumans(tmp_path / "dataset", plan_build(tmp_path / "raw", settings))
    assert len(report.failures) == 3
    for clip in Dataset.open(tmp_path / "dataset").clips.rows():
        assert clip.status is ClipStatus.FAILED
        assert "motion.pkl" in clip.reason
        assert str(tmp_path) not in clip.reason


def test_missing_object_mesh_drops_the_windows_where_it_moves(settings: TrumansSettings, tmp_path: Path) -> None:
    write_room(tmp_path / "raw", "room")
    write_recording(tmp_path / "raw", "room", "take")
    (tmp_path / "raw" / "scenes" / "room" / "objects" / "cup.glb").unlink()
    report = build_trumans(tmp_path / "dataset", plan_build(tmp_path / "raw", settings))
    assert report.ready == 0
    reasons = [clip.reason for clip in Dataset.open(tmp_path / "dataset").clips.rows()]
    assert any("no mesh" in reason for reason in reasons)


def test_plan_counts_and_filters(raw: Path, settings: TrumansSettings) -> None:
    figures = plan_build(raw, settings).figures()
    assert (figures.clips, figures.recordings) == (6, 2)
    assert figures.hours == pytest.approx(6 * 5 / 8 / 3600)
    assert plan_build(raw, settings, only="room_b*").figures().clips == 3
    with pytest.raises(DwmError, match="nowhere"):
        plan_build(raw, settings, only="nowhere")


def test_settings_name_the_value_that_they_refuse() -> None:
    with pytest.raises(DwmError, match=r"samples '3'"):
        settings_from(TINY, {"samples": 3})


def still_body():  # noqa: ANN201 - a test's shorthand
    from render.body import BodyMotion

    return load_body().skin(BodyMotion(np.zeros((5, 55, 3)), np.zeros((5, 3)), np.zeros(0), np.zeros(0)))


def cube_track(places: list[list[float]]) -> MovingObject:
    corners = np.array([[x, y, z] for x in (-0.05, 0.05) for y in (-0.05, 0.05) for z in (-0.05, 0.05)], np.float32)
    cube = SceneObject("cube", (plain_surface(corners, np.array([[0, 1, 2]]), (1, 1, 1)),), np.eye(4))
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    poses[:, :3, 3] = places
    return MovingObject("cube", ObjectTrack(cube, poses), poses)


def test_objects_that_jump_move_alone_or_float_are_flagged() -> None:
    floor = plain_surface(np.float32([[-9, 0, -9], [9, 0, -9], [0, 0, 9]]), np.array([[0, 1, 2]]), (1, 1, 1))
    spot = SpotLight((0, 3, 0), (0, 0, 0), (1, 1, 1))
    scene = Scene((SceneObject("floor", (floor,), np.eye(4)),), Lighting((1,) * 3, (1,) * 3, spot, (0, 2, 0), (1,) * 3))
    assert height_below(scene, np.array([0.0, 0.0]), 1.0) == pytest.approx(0.0)
    assert height_below(scene, np.array([50.0, 0.0]), 1.0) == -np.inf
    skinned = still_body()
    hand = skinned.joints[0, Joint.RIGHT_WRIST]
    carried = cube_track([[hand[0], hand[1], hand[2] + 0.02 * i] for i in range(5)])
    assert object_flags([carried], skinned, scene) == []
    jumping = cube_track([[hand[0], hand[1], hand[2] + 0.4 * (i > 2)] for i in range(5)])
    assert any("object_jump" in flag for flag in object_flags([jumping], skinned, scene))
    alone = cube_track([[4.0, 0.05, 0.1 * i] for i in range(5)])
    assert [flag.split(":")[0] for flag in object_flags([alone], skinned, scene)] == ["object_moves_alone"]
    floating = cube_track([[4.0, 1.0, 0.1 * i] for i in range(5)])
    assert any("object_floats" in flag for flag in object_flags([floating], skinned, scene))


def views_at(depths: np.ndarray) -> ClipViews:
    nothing = np.zeros((*depths.shape, 3), np.uint8)
    ids = np.zeros(depths.shape, np.uint8)
    return ClipViews(
        interaction=nothing,
        static=nothing,
        ids=ids,
        depth=depths.astype(np.float16),
        instances=ids,
        instance_names=(),
    )


def test_camera_inside_a_thing_is_flagged_and_a_near_thing_in_a_room_is_not() -> None:
    depths = np.full((5, 10, 10), 0.3)
    depths[1, :4] = 2.0  # over the edge of something near, a room
    depths[2, :4] = 0.0  # or the sky
    depths[3] = 0.5  # a wall at arm's length
    depths[4, 0] = 0.0  # inside, but for a gap
    flag = view_flag(views_at(depths))
    assert flag == "camera_inside: in 2 frames 75% of the view are nearer than 0.4 m"
    assert view_flag(views_at(depths[1:4])) is None


@pytest.mark.slow
@pytest.mark.skipif(not HAS_REAL_DATA, reason=NO_REAL_DATA)
def test_real_motion_is_flagged_while_its_head_is_in_the_sofa(tmp_path: Path) -> None:
    raw = write_real_recording(tmp_path / "raw", first=1306, frames=145, grasp=20, release=130)
    profile = Profile(name="tiny", width=96, height=64, num_frames=9, fps=8.0, frame_step=8, stride=9)
    build_trumans(tmp_path / "dataset", plan_build(raw, TrumansSettings(profile=profile)))
    first, second = sorted(ready(Dataset.open(tmp_path / "dataset")), key=lambda clip: clip.start_frame)
    assert "camera_inside: in 9 frames" in " ".join(first.flags)  # all of 1306, 1314, ... 1370
    assert "camera_inside" not in " ".join(second.flags)  # it has left the sofa by 1378


@pytest.mark.slow
@pytest.mark.skipif(not HAS_REAL_DATA, reason=NO_REAL_DATA)
def test_real_motion_in_the_real_room_shows_hands_where_the_body_has_them(tmp_path: Path) -> None:
    raw = write_real_recording(tmp_path / "raw", first=1275, frames=200, grasp=20, release=180)
    profile = Profile(name="half", width=360, height=240, num_frames=17, fps=8.0, frame_step=6, stride=9)
    build_trumans(tmp_path / "dataset", plan_build(raw, TrumansSettings(profile=profile)))
    dataset = Dataset.open(tmp_path / "dataset")
    inside = visible = 0
    for clip in ready(dataset):
        hands = read_npz(dataset.absolute(clip.hand_motion_path))
        video = read_video(dataset.absolute(clip.hands_path)).frames.max(axis=-1) > 40
        for frame, joints, points in zip(hands["frame"], hands["joints_image"], hands["joints_camera"], strict=True):
            fingers = [index for index in range(1, 21) if index % 4]  # joints, not the tips on the skin
            for (column, row), z in zip(joints[fingers], points[fingers, 2], strict=True):
                if z > 0.05 and 1 <= column < profile.width - 1 and 1 <= row < profile.height - 1:
                    visible += 1
                    inside += bool(video[frame, int(row), int(column)])
    assert visible > 500
    assert inside / visible >= 0.99
