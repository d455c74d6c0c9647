"""Hand meshes of a clip in the camera's frame: one type for every estimator, its file, and its video's look.

The hand video shows only hands on black, not occluded by the scene, with a depth test between the hands; left
(0.5, 0.8, 0.5), right (0.8, 0.4, 0.4), headlight shading with ambient 0.7 and diffuse 0.6 (paper 3.3 and 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.arrays import read_npz, write_npz
from render.body import FINGER_JOINTS, BodyModel, Joint, SkinnedBody
from render.camera import CameraPath, project_camera_points
from render.rotations import Floats, axis_angle_from_matrix
from render.scene import FloatArray, IntArray

LEFT_COLOUR = (0.5, 0.8, 0.5)
RIGHT_COLOUR = (0.8, 0.4, 0.4)

FINGER_ORDER = (4, 0, 1, 3, 2)
"""Thumb, index, middle, ring, pinky among the skeleton's index, middle, pinky, ring, thumb."""
TIP_VERTICES = ((5361, 4933, 5058, 5169, 5286), (8079, 7669, 7794, 7905, 8022))
"""SMPL-X vertices at the tips of the left and right thumb, index, middle, ring and pinky finger."""


@dataclass(frozen=True)
class HandMotion:
    """Hands of a clip, one entry N a visible hand; metres in the camera's frame (x right, y down, z forward).

    Attributes:
        frame: [N] frame of the clip.
        is_right: [N].
        score: [N] confidence, 1 = certain.
        track_id: [N] the same for one hand over time.
        pose: [N,45] axis-angle of the 15 finger joints; NaN when unknown.
        orientation: [N,3] axis-angle of the wrist in the camera's frame; NaN when unknown.
        translation: [N,3] position of the wrist.
        joints_camera: [N,21,3] wrist, then thumb, index, middle, ring, pinky from the palm to the tip.
        joints_image: [N,21,2] the same in pixels of the clip's videos.
        vertices: [N,V,3] of the mesh.
        faces_left: [F,3] of a left hand.
        faces_right: [F,3] of a right hand.
        focal_px: focal length in pixels of the clip's videos.
    """

    frame: IntArray
    is_right: npt.NDArray[np.bool_]
    score: FloatArray
    track_id: IntArray
    pose: FloatArray
    orientation: FloatArray
    translation: FloatArray
    joints_camera: FloatArray
    joints_image: FloatArray
    vertices: FloatArray
    faces_left: IntArray
    faces_right: IntArray
    focal_px: float

    def __len__(self) -> int:
        return len(self.frame)

    def faces(self, is_right: bool) -> IntArray:
        """Faces of one side."""
        return self.faces_right if is_right else self.faces_left

    def select(self, entries: npt.NDArray[np.bool_ | np.int64]) -> HandMotion:
        """The entries that ``entries`` [N] marks, or whose numbers it holds."""
        return replace(self, **{name: getattr(self, name)[entries] for name in _ENTRY_FIELDS})

    def save(self, path: Path) -> None:
        """Write the ``hand_motion_path`` file of a clip."""
        arrays: dict[str, npt.ArrayLike] = {name: getattr(self, name) for name in _ENTRY_FIELDS}
        arrays["faces_left"] = self.faces_left.astype(np.int32)
        arrays["faces_right"] = self.faces_right.astype(np.int32)
        arrays["focal_px"] = np.float64(self.focal_px)
        write_npz(path, arrays)

    @classmethod
    def load(cls, path: Path) -> HandMotion:
        """Read the ``hand_motion_path`` file of a clip.

        Raises:
            DwmError: the file is missing, broken, lacks an array, or its arrays differ in length.
        """
        required = (*_ENTRY_FIELDS, "faces_left", "faces_right", "focal_px")
        arrays = read_npz(path, required=required)
        lengths = {name: len(arrays[name]) for name in _ENTRY_FIELDS}
        if len(set(lengths.values())) > 1:
            raise DwmError(f"{path}: entries differ in number ({lengths}); make the file again")
        fields: dict[str, Any] = {name: arrays[name].astype(dtype) for name, dtype in _ENTRY_FIELDS.items()}
        fields |= {name: arrays[name].astype(np.int64) for name in ("faces_left", "faces_right")}
        return cls(**fields, focal_px=float(arrays["focal_px"].astype(np.float64)))


_ENTRY_FIELDS: dict[str, type[np.generic]] = {
    "frame": np.int64,
    "is_right": np.bool_,
    "score": np.float32,
    "track_id": np.int64,
    "pose": np.float32,
    "orientation": np.float32,
    "translation": np.float32,
    "joints_camera": np.float32,
    "joints_image": np.float32,
    "vertices": np.float32,
}
"""Fields of `HandMotion` with one value an entry, and their types."""


def hand_motion_from_body(body: BodyModel, skinned: SkinnedBody, cameras: CameraPath) -> HandMotion:
    """Both hands of a skinned body in every frame, exact (score 1), left before right.

    Args:
        body: the body model.
        skinned: the body posed over T frames.
        cameras: the clip's camera, T poses, intrinsics of the clip's videos.
    """
    rotation, origin = cameras.world_from_camera[:, :3, :3], cameras.world_from_camera[:, :3, 3]

    def to_camera(points: npt.ArrayLike) -> Floats:
        result: Floats = np.einsum("tab,tna->tnb", rotation, np.asarray(points, np.float64) - origin[:, None])
        return result

    frames = len(cameras)
    sides = []
    for side, wrist, fingers in (
        (0, Joint.LEFT_WRIST, Joint.LEFT_FINGERS),
        (1, Joint.RIGHT_WRIST, Joint.RIGHT_FINGERS),
    ):
        joints = to_camera(_hand_joints(skinned, side, wrist, fingers))
        local = _local_rotations(body, skinned.joint_rotations, range(fingers, fingers + FINGER_JOINTS))
        sides.append(
            HandMotion(
                frame=np.arange(frames),
                is_right=np.full(frames, side == 1),
                score=np.ones(frames, np.float32),
                track_id=np.full(frames, side),
                pose=axis_angle_from_matrix(local).reshape(frames, -1).astype(np.float32),
                orientation=axis_angle_from_matrix(
                    np.swapaxes(rotation, 1, 2) @ skinned.joint_rotations[:, wrist]
                ).astype(np.float32),
                translation=joints[:, 0].astype(np.float32),
                joints_camera=joints.astype(np.float32),
                joints_image=project_camera_points(cameras.intrinsics, joints)[0].astype(np.float32),
                vertices=to_camera(body.hands[side].vertices(skinned.vertices)).astype(np.float32),
                faces_left=body.hands[0].faces,
                faces_right=body.hands[1].faces,
                focal_px=float(cameras.intrinsics[0, 0]),
            )
        )
    return merged_sides(*sides)


def _hand_joints(skinned: SkinnedBody, side: int, wrist: int, fingers: int) -> Floats:
    """World joints [T,21,3] of one hand: wrist, then each finger's three joints and its tip."""
    chains = [[fingers + 3 * finger + bone for bone in range(3)] for finger in FINGER_ORDER]
    parts = [skinned.joints[:, [wrist]]]
    for chain, tip in zip(chains, TIP_VERTICES[side], strict=True):
        parts += [skinned.joints[:, chain], skinned.vertices[:, [tip]].astype(np.float64)]
    return np.concatenate(parts, axis=1)


def _local_rotations(body: BodyModel, world: Floats, joints: range) -> Floats:
    """Rotations [T,n,3,3] of joints relative to their parents."""
    ids = np.array(joints)
    result: Floats = np.swapaxes(world[:, body.parents[ids]], -1, -2) @ world[:, ids]
    return result


def merged_sides(left: HandMotion, right: HandMotion) -> HandMotion:
    """Entries of both sides in the order of their frames; shorter meshes are padded with NaN vertices."""
    count = max(left.vertices.shape[1], right.vertices.shape[1])
    padded = [
        replace(
            part,
            vertices=np.pad(
                part.vertices, ((0, 0), (0, count - part.vertices.shape[1]), (0, 0)), constant_values=np.nan
            ),
        )
        for part in (left, right)
    ]
    order = np.argsort(np.concatenate([left.frame, right.frame]), kind="stable")
    fields: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in padded])[order] for name in _ENTRY_FIELDS
    }
    return replace(left, **fields)
