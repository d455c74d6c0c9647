"""A TRUMANS folder in the exported form made from real parts: the real motion in the real room, a cup in its hand.

No real object track is at hand, so a small script attaches one: the cup keeps its place in the right hand between two
frames, and stays where it is before and after.
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from render.arrays import write_npz
from render.body import Joint, load_body
from sources.trumans_files import read_motion
from sources.trumans_scene import body_motion

DATA = Path(__file__).parents[2] / "shared" / "data" / "trumans"
HAS_REAL_DATA = DATA.is_dir()
NO_REAL_DATA = "the real TRUMANS motion and room are not on this machine"
_CUP_IN_HAND = (-0.10, -0.045, 0.02)
"""Centre of the cup in the right wrist's rest axes, metres: under the palm."""


def cup_mesh() -> trimesh.Trimesh:
    """A striped cup of 7 cm by 9 cm, upright around its origin."""
    mesh = trimesh.creation.cylinder(radius=0.035, height=0.09, sections=24)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:] = (200, 40, 40)
    stripes[24:40] = (245, 235, 220)
    uv = np.stack(
        [np.arctan2(mesh.vertices[:, 0], mesh.vertices[:, 2]) / np.pi, mesh.vertices[:, 1] / 0.09 + 0.5], axis=1
    )
    mesh.visual = TextureVisuals(uv=uv, material=PBRMaterial(baseColorTexture=Image.fromarray(stripes)))
    return mesh


def cup_poses(motion_path: Path, grasp: int, release: int) -> np.ndarray:
    """World-from-cup [T,4,4]: in the right hand from ``grasp`` to ``release``."""
    body = load_body()
    parameters, _ = read_motion(motion_path)
    frames = np.clip(np.arange(parameters.num_frames), grasp, release)
    skinned = body.skin(body_motion(body, parameters, frames, flat_hand_mean=True), np.array([0]))
    poses = np.tile(np.eye(4), (len(frames), 1, 1))
    poses[:, :3, :3] = skinned.joint_rotations[:, Joint.RIGHT_WRIST]
    poses[:, :3, 3] = skinned.joints[:, Joint.RIGHT_WRIST] + poses[:, :3, :3] @ np.array(_CUP_IN_HAND)
    return poses


def write_real_recording(raw: Path, *, first: int, frames: int, grasp: int, release: int) -> Path:
    """Write a cut of the real motion in the real room in the exported form; the cut has ``grasp`` and ``release``."""
    scene, recording = raw / "scenes" / "real_room", raw / "recordings" / "real_motion"
    (scene / "objects").mkdir(parents=True)
    recording.mkdir(parents=True)
    shutil.copyfile(DATA / "scene_glb" / "room.glb", scene / "background.glb")
    (scene / "objects" / "cup.glb").write_bytes(trimesh.Scene({"cup": cup_mesh()}).export(file_type="glb"))
    source = next((DATA / "smplx_result").glob("*.pkl"))
    parameters, _ = read_motion(source)
    cut = slice(first, first + frames)
    names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "expression", "transl")
    arrays = {name: getattr(parameters, name)[cut].astype(np.float32) for name in names}
    motion_path = recording / "motion.pkl"
    motion_path.write_bytes(pickle.dumps({**arrays, "betas": np.zeros(0, np.float32), "gender": ""}))
    write_npz(
        recording / "objects.npz",
        {"names": np.array(["cup"]), "matrix_world/cup": cup_poses(motion_path, grasp, release)},
    )
    (recording / "actions.txt").write_text(f"0\t{frames}\tpick up the striped cup and carry it\n", encoding="utf-8")
    info = {"scene_id": "real_room", "fps": 30, "num_frames": frames}
    (recording / "recording.json").write_text(json.dumps(info), encoding="utf-8")
    return raw
