"""A hand motion of one's own: meshes in the scene or before the camera, poses of stand-in hands, or a clip's file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.arrays import Array, read_npz
from render.body import FINGER_JOINTS, NUM_JOINTS, BodyModel, BodyMotion, Joint
from render.camera import CameraPath
from render.hands import HandMotion, hand_motion_from_body, merged_sides
from render.rotations import Floats, axis_angle_from_matrix, matrix_from_axis_angle
from sources.trumans import BodyParameters
from sources.trumans_scene import body_motion

HandForm = Literal["clip", "meshes", "hand_poses", "body_poses"]
Frames = npt.NDArray[np.int64]

_SIDES = ("left", "right")
_BODY_KEYS = ("global_orient", "body_pose", "transl", "left_hand_pose", "right_hand_pose")
_POSE_KEYS = ("pose", "orientation", "translation")


@dataclass(frozen=True, eq=False)
class TwinHands:
    """A hand motion as its file has it.

    Attributes:
        path: the file.
        form: which of the forms it has, see `read_hands`.
        arrays: what it holds.
        num_frames: frames of the motion; None for a clip's file, whose last frames may show no hand.
        in_camera: meshes and hand poses are in the camera's frame, not in the scene's.
    """

    path: Path
    form: HandForm
    arrays: dict[str, Array]
    num_frames: int | None
    in_camera: bool

    def motion(self, body: BodyModel, cameras: CameraPath, chosen: Frames) -> HandMotion:
        """The hands of a clip in its cameras' frames.

        Args:
            body: the hands that poses move.
            cameras: T poses of the clip.
            chosen: [T] frame of the file that each frame of the clip takes.

        Raises:
            DwmError: the file has fewer frames than the camera path, or values that cannot be used.
        """
        if self.num_frames is not None and int(chosen.max()) >= self.num_frames:
            raise DwmError(
                f"{self.path}: has {self.num_frames} frames, the clip takes frame {int(chosen.max())} of the camera's "
                "path; give one entry a pose of the path"
            )
        if self.form == "clip":
            return _of_clip(HandMotion.load(self.path), chosen, cameras)
        if self.form == "body_poses":
            return hand_motion_from_body(body, body.skin(self._body_motion(body, chosen)), cameras)
        parts = [self._side(body, side, cameras, chosen) for side in range(2) if self._has(side)]
        if len(parts) == 1:
            return parts[0]
        return replace(merged_sides(*parts), faces_right=parts[1].faces_right)

    def _has(self, side: int) -> bool:
        key = "vertices" if self.form == "meshes" else "pose"
        return f"{_SIDES[side]}_{key}" in self.arrays

    def _side(self, body: BodyModel, side: int, cameras: CameraPath, chosen: Frames) -> HandMotion:
        name = _SIDES[side]
        if self.form == "meshes":
            vertices = self.arrays[f"{name}_vertices"].astype(np.float64)[chosen]
            faces = self.arrays[f"{name}_faces"].astype(np.int64)
            joints = np.full((len(chosen), 21, 3), np.nan)
            pose = np.full((len(chosen), 45), np.nan)
            orientation = np.full((len(chosen), 3), np.nan)
        else:
            pose, orientation, translation = (
                self.arrays[f"{name}_{key}"].astype(np.float64)[chosen] for key in _POSE_KEYS
            )
            known = np.isfinite(np.concatenate([pose, orientation, translation], axis=1)).all(axis=1)
            vertices, joints = pose_hand(
                body, side, *(np.nan_to_num(each) for each in (pose, orientation, translation))
            )
            vertices[~known] = np.nan
            faces = body.hands[side].faces
        return _in_cameras(side, vertices, joints, pose, orientation, faces, cameras, in_camera=self.in_camera)

    def _body_motion(self, body: BodyModel, chosen: Frames) -> BodyMotion:
        count = self.num_frames or 0
        given = {key: self.arrays[key].astype(np.float64) for key in _BODY_KEYS}
        parameters = BodyParameters(
            **given, jaw_pose=np.zeros((count, 3)), expression=np.zeros((count, 10)), betas=np.zeros(0)
        )
        return body_motion(body, parameters, chosen, flat_hand_mean=True)


def read_hands(path: Path) -> TwinHands:
    """Read a hand motion; one entry for each pose of the camera's path.

    An npz in one of four forms; NaN where a hand is away:

    - ``left_vertices`` [T,V,3] with ``left_faces`` [F,3], and the same for the right: meshes;
    - ``left_pose`` [T,45], ``left_orientation`` [T,3] and ``left_translation`` [T,3] (axis-angle of the fingers
      relative to a flat hand, axis-angle and place of the wrist; as MANO and SMPL-X have them), and for the right: the
      stand-in hands move;
    - ``global_orient``, ``body_pose``, ``transl``, ``left_hand_pose``, ``right_hand_pose`` of SMPL-X, in the scene;
    - a clip's own hand motion file (`HandMotion.save`), in the camera's frame.

    The first two are in the scene's frame unless ``in_camera`` is 1.

    Raises:
        DwmError: the file is missing or broken, has another form, or arrays whose shapes do not go together.
    """
    arrays = read_npz(path)
    form = _form_of(path, arrays)
    in_camera = bool(arrays["in_camera"].astype(np.float64).reshape(-1)[0]) if "in_camera" in arrays else False
    if form == "clip":
        return TwinHands(path, form, arrays, None, True)
    wanted = _shapes(form, arrays)
    lengths = set()
    for name, shape in wanted.items():
        if name not in arrays:
            raise DwmError(f"{path}: lacks the array {name}; add it")
        found = arrays[name]
        if found.ndim != len(shape) or any(
            want not in {0, size} for want, size in zip(shape, found.shape, strict=True)
        ):
            raise DwmError(f"{path}: {name} has the shape {found.shape}, not {_told(shape)}")
        if not name.endswith("_faces"):
            lengths.add(len(found))
    if len(lengths) != 1 or lengths == {0}:
        raise DwmError(f"{path}: its arrays have {sorted(lengths)} frames; give one entry a frame in each")
    for side in _SIDES:
        if form == "meshes" and f"{side}_vertices" in arrays:
            faces, count = arrays[f"{side}_faces"].astype(np.int64), arrays[f"{side}_vertices"].shape[1]
            if not len(faces) or faces.min() < 0 or faces.max() >= count:
                raise DwmError(f"{path}: {side}_faces names vertices beyond the {count} there are; correct it")
    return TwinHands(path, form, arrays, lengths.pop(), in_camera)


def _form_of(path: Path, arrays: dict[str, Array]) -> HandForm:
    names = set(arrays)
    if {"frame", "is_right", "vertices"} <= names:
        return "clip"
    if names & {"left_vertices", "right_vertices"}:
        return "meshes"
    if set(_BODY_KEYS) & {"global_orient", "body_pose"} <= names:
        return "body_poses"
    if names & {"left_pose", "right_pose"}:
        return "hand_poses"
    raise DwmError(
        f"{path}: holds {', '.join(sorted(names)) or 'nothing'}; give left_/right_ vertices and faces, or left_/right_ "
        "pose, orientation and translation, or SMPL-X poses, or a clip's hand motion"
    )


def _shapes(form: HandForm, arrays: dict[str, Array]) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays that a form must have; 0 is any size."""
    if form == "body_poses":
        return dict(zip(_BODY_KEYS, ((0, 3), (0, 63), (0, 3), (0, 45), (0, 45)), strict=True))
    shapes: dict[str, tuple[int, ...]] = {}
    for side in _SIDES:
        if form == "meshes" and f"{side}_vertices" in arrays:
            shapes |= {f"{side}_vertices": (0, 0, 3), f"{side}_faces": (0, 3)}
        if form == "hand_poses" and f"{side}_pose" in arrays:
            sizes = ((0, 45), (0, 3), (0, 3))
            shapes |= {f"{side}_{key}": size for key, size in zip(_POSE_KEYS, sizes, strict=True)}
    return shapes


def _told(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(size) if size else "any" for size in shape) + ")"


def pose_hand(
    body: BodyModel, side: int, pose: Floats, orientation: Floats, translation: Floats
) -> tuple[Floats, Floats]:
    """Vertices [T,V,3] and joints [T,21,3] of one hand of a body, posed as MANO poses its hand.

    Args:
        body: whose hand.
        side: 0 left, 1 right.
        pose: [T,45] axis-angle of the finger joints relative to a flat hand.
        orientation: [T,3] axis-angle of the wrist.
        translation: [T,3] where the wrist is, metres.
    """
    first = Joint.RIGHT_FINGERS if side else Joint.LEFT_FINGERS
    wrist = Joint.RIGHT_WRIST if side else Joint.LEFT_WRIST
    full = np.zeros((len(pose), NUM_JOINTS, 3))
    full[:, first : first + FINGER_JOINTS] = pose.reshape(-1, FINGER_JOINTS, 3)
    zeros = np.zeros((len(pose), 3))
    skinned = body.skin(BodyMotion(full, zeros, betas=np.zeros(0), expression=np.zeros(0), flat_hand_mean=True))
    still = CameraPath(np.eye(3), np.tile(np.eye(4), (len(pose), 1, 1)))
    hands = hand_motion_from_body(body, skinned, still)
    own = hands.select(hands.is_right == bool(side))
    count = int(body.hands[side].faces.max()) + 1
    at_wrist = skinned.joints[:, wrist][:, None]
    rotation = matrix_from_axis_angle(orientation)

    def moved(points: npt.ArrayLike) -> Floats:
        local = np.asarray(points, np.float64) - at_wrist
        result: Floats = np.einsum("tab,tnb->tna", rotation, local) + translation[:, None]
        return result

    return moved(own.vertices[:, :count]), moved(own.joints_camera)


def _in_cameras(  # noqa: PLR0917
    side: int,
    vertices: Floats,
    joints: Floats,
    pose: Floats,
    orientation: Floats,
    faces: npt.NDArray[np.int64],
    cameras: CameraPath,
    *,
    in_camera: bool,
) -> HandMotion:
    """One side's entries, those of the frames whose mesh is known."""
    if not in_camera:
        rotation, origin = cameras.world_from_camera[:, :3, :3], cameras.world_from_camera[:, None, :3, 3]
        vertices = np.einsum("tab,tna->tnb", rotation, vertices - origin)
        joints = np.einsum("tab,tna->tnb", rotation, joints - origin)
        turned = np.swapaxes(rotation, 1, 2) @ matrix_from_axis_angle(np.nan_to_num(orientation))
        known_turn = np.isfinite(orientation).all(axis=1, keepdims=True)
        orientation = np.where(known_turn, axis_angle_from_matrix(turned), np.nan)
    frames = np.flatnonzero(np.isfinite(vertices).all(axis=(1, 2)))
    count = len(frames)
    homogeneous = joints[frames] @ cameras.intrinsics.T
    with np.errstate(invalid="ignore", divide="ignore"):
        pixels = homogeneous[..., :2] / homogeneous[..., 2:]
    return HandMotion(
        frame=frames.astype(np.int64),
        is_right=np.full(count, side == 1),
        score=np.ones(count, np.float32),
        track_id=np.full(count, side),
        pose=pose[frames].astype(np.float32),
        orientation=orientation[frames].astype(np.float32),
        translation=joints[frames, 0].astype(np.float32),
        joints_camera=joints[frames].astype(np.float32),
        joints_image=pixels.astype(np.float32),
        vertices=vertices[frames].astype(np.float32),
        faces_left=faces,
        faces_right=faces,
        focal_px=float(cameras.intrinsics[0, 0]),
    )


def _of_clip(motion: HandMotion, chosen: Frames, cameras: CameraPath) -> HandMotion:
    """The entries of the frames that a clip takes, a frame that it takes twice twice."""
    entries = [np.flatnonzero(motion.frame == frame) for frame in chosen]
    order = np.concatenate(entries)
    numbers = np.repeat(np.arange(len(chosen)), [len(each) for each in entries])
    fields = {
        name: getattr(motion, name)[order]
        for name in (
            "is_right",
            "score",
            "track_id",
            "pose",
            "orientation",
            "translation",
            "joints_camera",
            "vertices",
        )
    }
    homogeneous = fields["joints_camera"].astype(np.float64) @ cameras.intrinsics.T
    with np.errstate(invalid="ignore", divide="ignore"):
        pixels = (homogeneous[..., :2] / homogeneous[..., 2:]).astype(np.float32)
    return replace(motion, frame=numbers, joints_image=pixels, focal_px=float(cameras.intrinsics[0, 0]), **fields)
