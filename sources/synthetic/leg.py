"""Legs of a body: two-bone inverse kinematics that puts a foot where it should be, flat or rolling.

Metres, y up; a person that faces +z has the left foot at +x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from render.body import BodyModel, Joint
from render.rotations import Floats, axis_angle_from_matrix, frame_from_axes, matrix_from_axis_angle, normalised
from sources.synthetic.arm import joint_between
from sources.synthetic.posture import STANDING_LEGS

_LEFT_ANKLE, _RIGHT_ANKLE = 7, 8
_STRETCH = 0.992
"""Longest distance from hip to ankle, as a share of the straight leg."""
_SOLE_M = 0.01
"""Vertices this near to the lowest one are the sole."""
_HEEL_ROUNDING_M = 0.012
"""How far in front of its end a heel meets the floor, and behind theirs the toes."""


@dataclass(frozen=True)
class Leg:
    """One leg of a body.

    Attributes:
        hip: joint number; likewise ``knee`` and ``ankle_joint``.
        rest_joints: [55,3] joints of the rest pose.
        ankle_height: of the ankle of a foot that stands flat, metres.
        heel: z of the point, relative to the ankle, about which a landing foot rolls; likewise ``toes`` for one that
            leaves the floor.
    """

    hip: int
    knee: int
    ankle_joint: int
    rest_joints: Floats
    ankle_height: float
    heel: float
    toes: float

    @classmethod
    def of(cls, body: BodyModel, *, right: bool) -> Leg:
        """The left or right leg of a body."""
        hip, knee, ankle = (
            (Joint.RIGHT_HIP, Joint.RIGHT_KNEE, _RIGHT_ANKLE)
            if right
            else (Joint.LEFT_HIP, Joint.LEFT_KNEE, _LEFT_ANKLE)
        )
        joints = body.rest()[1]
        foot = body.template[body.weights[:, [ankle, ankle + 3]].sum(axis=1) > 0.5] - joints[ankle]
        low = float(foot[:, 1].min())
        sole = foot[foot[:, 1] < low + _SOLE_M]
        return cls(
            hip=hip,
            knee=knee,
            ankle_joint=ankle,
            rest_joints=joints,
            ankle_height=-low,
            heel=float(sole[:, 2].min()) + _HEEL_ROUNDING_M,
            toes=float(sole[:, 2].max()) - _HEEL_ROUNDING_M,
        )

    @property
    def stance(self) -> tuple[float, float]:
        """Place (x, z) of the ankle of a standing person, relative to the pelvis."""
        down = np.zeros(2)  # (y, z) of a leg that bends about x only
        angle = 0.0
        for start, end in ((self.hip, self.knee), (self.knee, self.ankle_joint)):
            angle += STANDING_LEGS[Joint(start)]
            _, y, z = self.rest_joints[end] - self.rest_joints[start]
            down += [np.cos(angle) * y - np.sin(angle) * z, np.sin(angle) * y + np.cos(angle) * z]
        hip = self.rest_joints[self.hip] - self.rest_joints[Joint.PELVIS]
        across = self.rest_joints[self.ankle_joint] - self.rest_joints[Joint.PELVIS]
        return float(across[0]), float(hip[2] + down[1])

    def ankle(self, places: Floats, headings: Floats, pitch: Floats, height: Floats) -> tuple[Floats, Floats]:
        """Places [T,3] of the ankle and rotations [T,3,3] of a foot.

        Args:
            places: [T,2] (x, z) below the ankle if the foot stood flat.
            headings: [T] where it points, radians to the left.
            pitch: [T] turn about the toes (positive) or the heel (negative), radians.
            height: [T] of its lowest point above the floor.
        """
        facing = matrix_from_axis_angle(np.multiply.outer(headings, [0.0, 1.0, 0.0]))
        roll = matrix_from_axis_angle(np.multiply.outer(pitch, [1.0, 0.0, 0.0]))
        pivot = np.zeros((len(pitch), 3))
        pivot[:, 2] = np.where(pitch > 0, self.toes, self.heel)
        ankle = np.array([0.0, self.ankle_height, 0.0])
        moved = pivot + np.einsum("tab,tb->ta", roll, ankle - pivot)
        base = np.stack([places[:, 0], height, places[:, 1]], axis=1)
        return base + np.einsum("tab,tb->ta", facing, moved), facing @ roll

    def highest_hip(self, hips: Floats, ankles: Floats) -> Floats:
        """How much [T] a hip at ``hips`` [T,3] may rise until the leg to ``ankles`` [T,3] is as straight as it gets."""
        across = np.linalg.norm((hips - ankles)[:, [0, 2]], axis=1)
        upright = np.sqrt(np.maximum((self._length * _STRETCH) ** 2 - across**2, 0.0))
        result: Floats = ankles[:, 1] + upright - hips[:, 1]
        return result

    def place(self, pose: Floats, world: Floats, ankles: Floats, feet: Floats) -> None:
        """Write hip, knee and ankle into ``pose`` [T,55,3] so that the foot has these places [T,3] and turns [T,3,3].

        Args:
            pose: of the body.
            world: [T,55,4,4] transforms of its joints.
            ankles: where the ankle goes.
            feet: rotations of the foot.
        """
        thigh_rest = self.rest_joints[self.knee] - self.rest_joints[self.hip]
        shank_rest = self.rest_joints[self.ankle_joint] - self.rest_joints[self.knee]
        rest_thigh, rest_shank = (frame_from_axes(bone, [1.0, 0.0, 0.0]).T for bone in (thigh_rest, shank_rest))
        lengths = float(np.linalg.norm(thigh_rest)), float(np.linalg.norm(shank_rest))
        for frame, (ankle, foot) in enumerate(zip(ankles, feet, strict=True)):
            pelvis, hip = world[frame, Joint.PELVIS, :3, :3], world[frame, self.hip, :3, 3]
            sideways = normalised(pelvis[:, 0] + foot[:, 0])
            forward = np.cross(sideways, [0.0, 1.0, 0.0])
            knee = joint_between(hip, ankle, *lengths, forward)
            hinge = np.cross(forward, ankle - hip)
            thigh = frame_from_axes(knee - hip, hinge) @ rest_thigh
            shank = frame_from_axes(ankle - knee, hinge) @ rest_shank
            pose[frame, self.hip] = axis_angle_from_matrix(pelvis.T @ thigh)
            pose[frame, self.knee] = axis_angle_from_matrix(thigh.T @ shank)
            pose[frame, self.ankle_joint] = axis_angle_from_matrix(shank.T @ foot)

    @property
    def _length(self) -> float:
        thigh, shank = (
            np.linalg.norm(self.rest_joints[end] - self.rest_joints[start])
            for start, end in ((self.hip, self.knee), (self.knee, self.ankle_joint))
        )
        return float(thigh + shank)
