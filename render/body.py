"""Linear blend skinning of bodies in the SMPL-X file format (55 joints), and the hands cut from them.

The package ships a licence-free stand-in body; a user's own ``SMPLX_*.npz`` is given by path. Vertices and joints
are in metres in the world of the motion (y up). Hand poses are axis-angle, not principal components (PCA off).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.arrays import Array, read_npz
from render.hand_part import HandPart, Ints, cut_hand
from render.rotations import Floats, matrix_from_axis_angle

DEFAULT_BODY_PATH = Path(__file__).parent / "assets" / "body" / "SMPLX_NEUTRAL.npz"
"""The stand-in body that ships with the package (CC0)."""

NUM_JOINTS = 55
FINGER_JOINTS = 15
SMPLX_VERTICES = 10475
"""Vertices of the SMPL-X topology: a body with another number is a stand-in for it."""

_SMPLX_PELVIS = np.array([0.0031, -0.3514, 0.0120])
"""Rest pelvis of the neutral SMPL-X body, metres."""
_SHAPE_COMPONENTS = 300
_REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")


class Joint(IntEnum):
    """Joints of the SMPL-X skeleton that other modules name."""

    PELVIS = 0
    LEFT_HIP = 1
    RIGHT_HIP = 2
    SPINE_1 = 3
    LEFT_KNEE = 4
    RIGHT_KNEE = 5
    SPINE_2 = 6
    SPINE_3 = 9
    NECK = 12
    LEFT_COLLAR = 13
    RIGHT_COLLAR = 14
    HEAD = 15
    LEFT_SHOULDER = 16
    RIGHT_SHOULDER = 17
    LEFT_ELBOW = 18
    RIGHT_ELBOW = 19
    LEFT_WRIST = 20
    RIGHT_WRIST = 21
    LEFT_EYE = 23
    RIGHT_EYE = 24
    LEFT_FINGERS = 25
    """First of 15: index, middle, pinky, ring, thumb, three joints each from the palm outwards."""
    RIGHT_FINGERS = 40


@dataclass(frozen=True)
class BodyMotion:
    """Pose of one body over T frames, as axis-angle vectors relative to the parent joint.

    Attributes:
        pose: [T,55,3] radians; row 0 is the global orientation, 25-39 the left and 40-54 the right fingers.
        translation: [T,3] metres, added to the skinned vertices and joints.
        betas: [S] shape coefficients, S <= 300.
        expression: [E] face coefficients, E <= 100.
        flat_hand_mean: True when finger poses are relative to a flat hand; False adds the file's mean hand pose.
    """

    pose: Floats
    translation: Floats
    betas: Floats
    expression: Floats
    flat_hand_mean: bool = True


@dataclass(frozen=True)
class SkinnedBody:
    """A body posed over T frames, metres in the world.

    Attributes:
        vertices: [T,V,3] float32 (only those asked for).
        joints: [T,55,3].
        joint_rotations: [T,55,3,3] rotation of each joint against the rest pose (world from rest axes).
    """

    vertices: npt.NDArray[np.float32]
    joints: Floats
    joint_rotations: Floats


@dataclass(frozen=True)
class BodyModel:
    """A body in the SMPL-X file format.

    Attributes:
        name: file name, recorded with clips as their body model.
        template: [V,3] rest vertices, metres.
        shape_directions: [V,3,S] shape displacements (all-zero components at the end are left out).
        expression_directions: [V,3,E] face displacements.
        pose_directions: [486, V*3] pose correctives, or None where the file's are all zero.
        joint_regressor: [55,V].
        weights: [V,55] skinning weights.
        parents: [55], -1 for the root.
        faces: [F,3].
        hand_means: [2,15,3] mean finger pose of the left and the right hand.
    """

    name: str
    template: Floats
    shape_directions: Floats
    expression_directions: Floats
    pose_directions: Floats | None
    joint_regressor: Floats
    weights: npt.NDArray[np.float32]
    parents: Ints
    faces: Ints
    hand_means: Floats

    def rest(self, betas: npt.ArrayLike = (), expression: npt.ArrayLike = ()) -> tuple[Floats, Floats]:
        """Rest vertices [V,3] and joints [55,3] of a shape; coefficients that the file lacks must be zero.

        Raises:
            DwmError: more non-zero coefficients than the file has components.
        """
        vertices = (
            self.template
            + _displacement(self.shape_directions, betas, f"{self.name}: betas")
            + _displacement(self.expression_directions, expression, f"{self.name}: expression")
        )
        return vertices, self.joint_regressor @ vertices

    def skin(self, motion: BodyMotion, vertex_ids: Ints | None = None) -> SkinnedBody:
        """Pose the body by linear blend skinning, as the reference implementation of SMPL-X does.

        Args:
            motion: T frames of pose and place.
            vertex_ids: [n] the only vertices to skin, in this order; all by default.

        Raises:
            DwmError: the pose is not [T,55,3] or the translation not [T,3].
        """
        frames = len(motion.pose)
        if motion.pose.shape != (frames, NUM_JOINTS, 3) or motion.translation.shape != (frames, 3):
            raise DwmError(
                f"body motion: pose {motion.pose.shape} and translation {motion.translation.shape} must have the "
                f"shapes (T, {NUM_JOINTS}, 3) and (T, 3)"
            )
        pose = motion.pose if motion.flat_hand_mean else self._with_hand_means(motion.pose)
        rotations = matrix_from_axis_angle(pose)
        rest_vertices, rest_joints = self.rest(motion.betas, motion.expression)
        world = joint_transforms(rotations, rest_joints, self.parents)
        world[:, :, :3, 3] += motion.translation[:, None]

        # Transforms from the rest pose: what moves a rest vertex, not a point in the joint's own frame.
        skinning = world[:, :, :3].copy()
        skinning[..., 3] -= np.einsum("tjab,jb->tja", world[:, :, :3, :3], rest_joints)
        chosen = slice(None) if vertex_ids is None else vertex_ids
        weights = self.weights[chosen]
        vertices = np.empty((frames, len(weights), 3), dtype=np.float32)
        for frame in range(frames):
            corrected = (rest_vertices + self._pose_corrective(rotations[frame]))[chosen].astype(np.float32)
            blended = (weights @ skinning[frame].reshape(NUM_JOINTS, 12).astype(np.float32)).reshape(-1, 3, 4)
            vertices[frame] = np.einsum("vab,vb->va", blended[..., :3], corrected) + blended[..., 3]
        return SkinnedBody(vertices, world[:, :, :3, 3].copy(), world[:, :, :3, :3].copy())

    @property
    def is_stand_in(self) -> bool:
        """Whether this is no SMPL-X body but one that stands in for it."""
        return len(self.template) != SMPLX_VERTICES

    @cached_property
    def translation_offset(self) -> Floats:
        """What to add [3] to the ``transl`` of an SMPL-X motion, metres: zero for SMPL-X itself.

        SMPL-X poses turn about the rest pelvis, so that a translation means a place only with its pelvis.
        """
        if not self.is_stand_in:
            return np.zeros(3)
        result: Floats = _SMPLX_PELVIS - self.rest()[1][Joint.PELVIS]
        return result

    @cached_property
    def hands(self) -> tuple[HandPart, HandPart]:
        """Left and right hand: what is skinned mostly to the wrist and finger joints, cut cleanly at the wrist."""
        return (
            self._cut_hand(Joint.LEFT_ELBOW, Joint.LEFT_WRIST, Joint.LEFT_FINGERS),
            self._cut_hand(Joint.RIGHT_ELBOW, Joint.RIGHT_WRIST, Joint.RIGHT_FINGERS),
        )

    def _cut_hand(self, elbow: Joint, wrist: Joint, first_finger: Joint) -> HandPart:
        fingers = range(first_finger, first_finger + FINGER_JOINTS)
        joints = self.rest()[1]
        return cut_hand(
            self.name,
            self.template,
            self.faces,
            hand_weights=self.weights[:, [int(wrist), *fingers]].sum(axis=1),
            arm_weights=self.weights[:, elbow],
            forearm=(joints[elbow], joints[wrist]),
        )

    def _with_hand_means(self, pose: Floats) -> Floats:
        result = pose.copy()
        result[:, Joint.LEFT_FINGERS :] += self.hand_means.reshape(1, 2 * FINGER_JOINTS, 3)
        return result

    def _pose_corrective(self, rotations: Floats) -> Floats | float:
        if self.pose_directions is None:
            return 0.0
        feature = (rotations[1:] - np.eye(3)).reshape(-1)
        corrective: Floats = (feature @ self.pose_directions).reshape(-1, 3)
        return corrective


def joint_transforms(rotations: Floats, rest_joints: Floats, parents: Ints) -> Floats:
    """World transforms [T,J,4,4] of joints, from local rotations [T,J,3,3] and rest positions [J,3] (metres)."""
    local = np.zeros((*rotations.shape[:2], 4, 4))
    local[..., :3, :3] = rotations
    local[..., :3, 3] = rest_joints - np.where(parents[:, None] >= 0, rest_joints[parents], 0.0)
    local[..., 3, 3] = 1.0
    world = local.copy()
    for joint in range(1, len(parents)):
        world[:, joint] = world[:, parents[joint]] @ local[:, joint]
    return world


@lru_cache(maxsize=2)
def load_body(path: Path = DEFAULT_BODY_PATH) -> BodyModel:
    """Load a body in the SMPL-X npz format; pickled contents are refused.

    Raises:
        DwmError: the file is missing, is no plain npz (the official pickles are not), or lacks an array.
    """
    if path.suffix != ".npz":
        raise DwmError(f"{path}: not an npz; give the SMPL-X body as SMPLX_<GENDER>.npz (pickles are not read)")
    try:
        arrays = read_npz(path, required=_REQUIRED)
    except DwmError as error:
        raise DwmError(f"{error}; a file that holds pickled objects must be saved again as plain arrays") from error
    if arrays["weights"].shape[1] != NUM_JOINTS:
        raise DwmError(f"{path}: has {arrays['weights'].shape[1]} joints, SMPL-X has {NUM_JOINTS}; give an SMPL-X file")
    return _body_from_arrays(f"{path.parent.name}/{path.name}", arrays)


def _body_from_arrays(name: str, arrays: dict[str, Array]) -> BodyModel:
    directions = arrays["shapedirs"]
    pose_directions = arrays["posedirs"]
    parents = arrays["kintree_table"][0].astype(np.int64)
    parents[0] = -1
    means = [arrays.get(f"hands_mean{side}", np.zeros(FINGER_JOINTS * 3)) for side in "lr"]
    return BodyModel(
        name=name,
        template=arrays["v_template"].astype(np.float64),
        shape_directions=_used_components(directions[..., :_SHAPE_COMPONENTS]),
        expression_directions=_used_components(directions[..., _SHAPE_COMPONENTS:]),
        pose_directions=(
            pose_directions.reshape(-1, pose_directions.shape[-1]).T.astype(np.float64)
            if pose_directions.any()
            else None
        ),
        joint_regressor=arrays["J_regressor"].astype(np.float64),
        weights=arrays["weights"].astype(np.float32),
        parents=parents,
        faces=arrays["f"].astype(np.int64),
        hand_means=np.stack(means).reshape(2, FINGER_JOINTS, 3).astype(np.float64),
    )


def _used_components(directions: Array) -> Floats:
    """Drop the all-zero components at the end: the stand-in body has 6 of 300."""
    used = np.flatnonzero(directions.any(axis=(0, 1)))
    return directions[..., : int(used[-1]) + 1 if len(used) else 0].astype(np.float64)


def _displacement(directions: Floats, coefficients: npt.ArrayLike, what: str) -> Floats | float:
    values = np.asarray(coefficients, dtype=np.float64).reshape(-1)
    count = min(len(values), directions.shape[-1])
    if values[count:].any():
        raise DwmError(f"{what} has {len(values)} coefficients, the file has {count}; leave the others at 0")
    if count == 0:
        return 0.0
    result: Floats = directions[..., :count] @ values[:count]
    return result
