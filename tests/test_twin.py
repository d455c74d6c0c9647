"""One's own scene, camera path and hand motion: conditions of a clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.profiles import get_profile
from manifests.schema import ClipStatus, Source
from render.arrays import write_npz
from render.body import load_body
from render.camera import CameraPath, intrinsics_from_fov, look_at
from render.gaussian_ply import write_ply
from render.gaussian_scene import scene_from_points
from render.hands import HandMotion
from render.media_checks import check_clip_media
from render.scene import Material, SceneObject, box_surface
from render.video import read_video
from sources.synthetic.gltf import write_glb
from sources.twin_build import TwinReport, TwinRequest, build_twin
from sources.twin_camera import read_camera
from sources.twin_hands import pose_hand, read_hands

MINI = get_profile("mini")
POSES = np.stack([look_at((0.02 * index, 1.2, 1.5), (0.0, 1.0, 0.0)) for index in range(20)])


def make_scene(folder: Path) -> Path:
    """A red box of half a metre in front of a big white one."""
    pose = np.eye(4)
    pose[:3, 3] = (0.0, 1.0, 0.0)
    wall = np.eye(4)
    wall[:3, 3] = (0.0, 1.0, -1.5)
    red, white = Material((0.7, 0.05, 0.05)), Material((0.8, 0.8, 0.8))
    write_glb(
        folder / "scene.glb",
        [
            SceneObject("box", (box_surface((0.5, 0.5, 0.5), red),), pose),
            SceneObject("wall", (box_surface((20.0, 20.0, 0.2), white),), wall),
        ],
    )
    return folder / "scene.glb"


def make_camera(folder: Path, **more: Any) -> Path:
    path = folder / "camera.npz"
    write_npz(path, {"intrinsics": intrinsics_from_fov(720, 480, 90), "world_from_camera": POSES, **more})
    return path


def make_poses(folder: Path) -> Path:
    """A right hand half a metre before every camera, a left hand that is away in the first ten frames."""
    forward = POSES[:, :3, 3] + 0.5 * POSES[:, :3, 2]
    left = forward - 0.2 * POSES[:, :3, 0]
    left[:10] = np.nan
    zero = np.zeros((20, 45))
    write_npz(
        folder / "hands.npz",
        {
            "right_pose": zero,
            "right_orientation": np.zeros((20, 3)),
            "right_translation": forward + 0.15 * POSES[:, :3, 0],
            "left_pose": zero,
            "left_orientation": np.zeros((20, 3)),
            "left_translation": left,
        },
    )
    return folder / "hands.npz"


def build(folder: Path, scene: Path, camera: Path, hands: Path | None = None) -> TwinReport:
    request = TwinRequest(scene=scene, camera=camera, hands=hands, prompt="Touch the box", profile=MINI)
    return build_twin(folder / "dataset", request)


def test_meshes_a_path_and_poses_give_conditions(tmp_path: Path) -> None:
    scene, camera, hands = make_scene(tmp_path), make_camera(tmp_path), make_poses(tmp_path)
    report = build(tmp_path, scene, camera, hands)
    assert report.made
    dataset = Dataset.open(tmp_path / "dataset")
    (clip,) = dataset.clips.rows()
    assert (clip.status, clip.source, clip.prompt) == (ClipStatus.CONDITIONS_ONLY, Source.TWIN, "Touch the box")
    assert clip.interaction_path is None
    assert clip.hand_estimator == "body_model"
    assert clip.unseen_share == 0.0
    assert not check_clip_media(dataset.root, clip)
    static, drawn = read_video(report.static).frames, read_video(report.hands).frames
    assert static.shape == drawn.shape == (17, 64, 96, 3)
    red, green, blue = static[0, 36, 48].astype(int)  # the box is in the middle
    assert red > green + 60
    assert red > blue + 60
    assert static[0, 4, 4].min() > 120  # the wall at the edge
    greenish = (drawn[..., 1].astype(int) - drawn[..., 0] > 20).any(axis=(1, 2))
    reddish = (drawn[..., 0].astype(int) - drawn[..., 1] > 20).any(axis=(1, 2))
    assert reddish.all()
    assert greenish.tolist() == [False] * 10 + [True] * 7
    motion = HandMotion.load(dataset.absolute(clip.hand_motion_path or ""))
    assert np.allclose(motion.translation[motion.is_right][:, 2], 0.5, atol=1e-4)
    again = build(tmp_path, scene, camera, hands)
    assert not again.made
    assert again.clip_id == report.clip_id


def test_meshes_in_the_scene_and_before_the_camera_look_alike(tmp_path: Path) -> None:
    camera = make_camera(tmp_path)
    body = load_body()
    wrist = POSES[:, :3, 3] + 0.5 * POSES[:, :3, 2]
    vertices, _ = pose_hand(body, 1, np.zeros((20, 45)), np.zeros((20, 3)), wrist)
    local = np.einsum("tab,tna->tnb", POSES[:, :3, :3], vertices - POSES[:, None, :3, 3])
    faces = body.hands[1].faces
    write_npz(tmp_path / "scene_frame.npz", {"right_vertices": vertices, "right_faces": faces})
    write_npz(tmp_path / "camera_frame.npz", {"right_vertices": local, "right_faces": faces, "in_camera": 1})
    cameras, _ = read_camera(camera).at(MINI)
    chosen = read_camera(camera).chosen(MINI)
    first, second = (
        read_hands(tmp_path / name).motion(body, cameras, chosen) for name in ("scene_frame.npz", "camera_frame.npz")
    )
    assert np.allclose(first.vertices, second.vertices, atol=1e-5)
    assert len(first) == 17
    assert np.isnan(first.joints_camera).all()
    first.save(tmp_path / "clip.npz")
    third = read_hands(tmp_path / "clip.npz").motion(body, cameras, chosen)
    assert np.array_equal(third.vertices, first.vertices)
    report = build(tmp_path, make_scene(tmp_path), camera, tmp_path / "scene_frame.npz")
    assert report.hand_visible_frames == 17


def test_hand_is_posed_about_its_wrist() -> None:
    body = load_body()
    turn = np.array([[0.0, np.pi / 2, 0.0]])
    place = np.array([[1.0, 2.0, 3.0]])
    still, still_joints = pose_hand(body, 0, np.zeros((1, 45)), np.zeros((1, 3)), np.zeros((1, 3)))
    moved, joints = pose_hand(body, 0, np.zeros((1, 45)), turn, place)
    expected = still @ np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]).T + place
    assert np.allclose(moved, expected, atol=1e-6)
    assert np.allclose(joints[:, 0], place)
    assert np.allclose(still_joints[:, 0], 0.0)
    bent, _ = pose_hand(body, 0, np.full((1, 45), 0.3), np.zeros((1, 3)), np.zeros((1, 3)))
    assert np.abs(bent - still).max() > 0.02


def test_gaussians_are_a_scene_too(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    points = random.uniform([-0.4, 0.7, -0.1], [0.4, 1.3, 0.1], (800, 3))
    scene = scene_from_points(points, np.tile([0.1, 0.2, 0.9], (800, 1)), sh_degree=0, opacity=0.95, scale=1.5)
    write_ply(tmp_path / "scene.ply", scene)
    report = build(tmp_path, tmp_path / "scene.ply", make_camera(tmp_path))
    static = read_video(report.static).frames
    assert static[8, 32, 48, 2] > 150
    assert report.unseen_share > 0.3
    assert any(flag.startswith("unseen: the scene holds nothing in") for flag in report.flags)
    assert any(flag.startswith("empty_hands") for flag in report.flags)
    assert torch.isfinite(scene.means).all()


def test_json_paths_of_another_rate_and_shape(tmp_path: Path) -> None:
    path = tmp_path / "camera.json"
    content = {"world_from_camera": POSES.tolist(), "fps": 4, "horizontal_fov_degrees": 60, "width": 640, "height": 640}
    path.write_text(json.dumps(content))
    camera = read_camera(path)
    assert camera.chosen(MINI).tolist()[:5] == [0, 0, 1, 1, 2]
    cameras, flag = camera.at(MINI)
    assert isinstance(cameras, CameraPath)
    assert cameras.intrinsics[0, 0] == pytest.approx(48 / np.tan(np.radians(30)))
    assert flag is not None
    assert flag.startswith("camera_reshaped: the path is for 640x640 pixels")


BAD_CAMERAS: list[tuple[dict[str, Any], str]] = [
    ({"poses": POSES}, "has no world_from_camera"),
    ({"world_from_camera": POSES[:, :3]}, r"shape \(20, 3, 4\), not \(T, 4, 4\)"),
    ({"world_from_camera": POSES * 2}, "pose 0 is no rigid motion"),
    ({"world_from_camera": np.where(np.arange(20)[:, None, None] == 3, np.nan, POSES)}, "pose 3 is not finite"),
    ({"world_from_camera": POSES[:5]}, "5 poses at 8 a second give 5 frames at 8, a clip of profile 'mini' has 17"),
    ({"world_from_camera": POSES, "intrinsics": np.zeros((3, 3))}, "focal length above 0"),
    ({"world_from_camera": POSES, "fps": 0.0}, "fps is"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_CAMERAS)
def test_broken_camera_paths_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    write_npz(tmp_path / "camera.npz", arrays)
    with pytest.raises(DwmError, match=message):
        build(tmp_path, make_scene(tmp_path), tmp_path / "camera.npz")
    dataset = tmp_path / "dataset"
    assert not dataset.exists() or not list(Dataset.open(dataset).clips.rows())


BAD_HANDS: list[tuple[dict[str, Any], str]] = [
    ({"left": np.zeros(3)}, "give left_/right_ vertices and faces"),
    ({"left_vertices": np.zeros((20, 5, 3))}, "lacks the array left_faces"),
    ({"left_vertices": np.zeros((20, 5, 3)), "left_faces": [[0, 1, 5]]}, "names vertices beyond the 5"),
    ({"left_pose": np.zeros((20, 45)), "left_orientation": np.zeros((20, 3))}, "lacks the array left_translation"),
    (
        {"left_pose": np.zeros((20, 48)), "left_orientation": np.zeros((20, 3)), "left_translation": np.zeros((20, 3))},
        r"left_pose has the shape \(20, 48\), not \(any, 45\)",
    ),
    ({"left_vertices": np.zeros((9, 5, 3)), "left_faces": [[0, 1, 2]]}, "has 9 frames, the clip takes frame 16"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_HANDS)
def test_broken_hand_motions_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    write_npz(tmp_path / "hands.npz", arrays)
    with pytest.raises(DwmError, match=message):
        build(tmp_path, make_scene(tmp_path), make_camera(tmp_path), tmp_path / "hands.npz")


def test_scenes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    camera = make_camera(tmp_path)
    with pytest.raises(DwmError, match="no such file; give the scene file"):
        build(tmp_path, tmp_path / "none.glb", camera)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DwmError, match="is no scene"):
        build(tmp_path, tmp_path / "a.txt", camera)
    away = POSES @ np.diag([1.0, -1.0, -1.0, 1.0])  # an OpenGL path: it looks away
    write_npz(camera, {"world_from_camera": away})
    scene = scene_from_points(np.random.default_rng(0).normal(0, 0.1, (50, 3)), np.ones((50, 3)), sh_degree=0)
    write_ply(tmp_path / "scene.ply", scene)
    with pytest.raises(DwmError, match="no camera of the path sees anything of scene"):
        build(tmp_path, tmp_path / "scene.ply", camera)
