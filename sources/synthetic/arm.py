"""Arms and hands of a body: grips, and two-bone inverse kinematics that puts a wrist where it should be.

Metres, y up; the person faces +z with the left hand at +x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from render.body import BodyModel, Joint, joint_transforms
from render.hand_part import Ints
from render.rotations import Floats, axis_angle_from_matrix, frame_from_axes, matrix_from_axis_angle, normalised

_TWIST_OF_FOREARM, _TWIST_OF_UPPER_ARM = 0.55, 0.15
"""Shares of the hand's turn about the arm that elbow and shoulder take: all of it at the wrist would wring the skin."""

ELBOW_OUT = (0.8, -0.5, -0.35)
"""Where the elbow of a bent left arm goes, in the person's axes."""


@dataclass(frozen=True)
class Grip:
    """How a left hand is held, in the person's axes; a right hand is its mirror image.

    Attributes:
        pointing: direction of the fingers.
        palm: direction out of the palm.
    """

    pointing: tuple[float, float, float]
    palm: tuple[float, float, float]


@dataclass(frozen=True)
class Arm:
    """One arm of a body.

    Attributes:
        side: +1 for the left arm, -1 for the right.
        shoulder: joint number; likewise ``elbow``, ``wrist`` and ``first_finger``.
        vertex_ids: [n] vertices of the hand.
        rest_joints: [55,3] joints of the rest pose.
        parents: [55] parents of the joints.
    """

    side: float
    shoulder: int
    elbow: int
    wrist: int
    first_finger: int
    vertex_ids: Ints
    rest_joints: Floats
    parents: Ints

    @classmethod
    def of(cls, body: BodyModel, *, right: bool) -> Arm:
        """The left or right arm of a body."""
        shoulder, elbow, wrist, first_finger = (
            (Joint.RIGHT_SHOULDER, Joint.RIGHT_ELBOW, Joint.RIGHT_WRIST, Joint.RIGHT_FINGERS)
            if right
            else (Joint.LEFT_SHOULDER, Joint.LEFT_ELBOW, Joint.LEFT_WRIST, Joint.LEFT_FINGERS)
        )
        hand = body.hands[1 if right else 0].vertex_ids
        return cls(
            side=-1.0 if right else 1.0,
            shoulder=shoulder,
            elbow=elbow,
            wrist=wrist,
            first_finger=first_finger,
            vertex_ids=hand,
            rest_joints=body.rest()[1],
            parents=body.parents,
        )

    def orientation(self, grip: Grip) -> Floats:
        """World rotation [3,3] of the wrist for a grip: the rest hand points along its arm with the palm down."""
        mirror = np.array([self.side, 1.0, 1.0])
        wanted = frame_from_axes(np.array(grip.pointing) * mirror, np.array(grip.palm) * mirror)
        result: Floats = wanted @ frame_from_axes([self.side, 0.0, 0.0], [0.0, -1.0, 0.0]).T
        return result

    def place_wrist(
        self,
        pose: Floats,
        translation: Floats,
        wrist: Floats,
        orientation: Floats,
        outward: npt.ArrayLike = ELBOW_OUT,
    ) -> None:
        """Write shoulder, elbow and wrist into ``pose`` [55,3] so that the wrist has this place [3] and rotation [3,3].

        A place out of reach is met with an almost straight arm that points to it; ``outward`` [3] is where a left
        elbow goes.
        """
        world = joint_transforms(matrix_from_axis_angle(pose)[None], self.rest_joints, self.parents)[0]
        chest = world[self.parents[self.shoulder], :3, :3]
        shoulder = world[self.shoulder, :3, 3] + translation
        aside = np.asarray(outward) * [self.side, 1.0, 1.0]
        elbow = joint_between(shoulder, wrist, self._bone(self.shoulder), self._bone(self.elbow), aside)

        hinge = np.cross(elbow - shoulder, wrist - elbow)
        upper_rest, fore_rest = self._direction(self.shoulder), self._direction(self.elbow)
        upper = frame_from_axes(elbow - shoulder, hinge) @ frame_from_axes(upper_rest, [0.0, -self.side, 0.0]).T
        fore = frame_from_axes(wrist - elbow, hinge) @ frame_from_axes(fore_rest, [0.0, -self.side, 0.0]).T
        twist = _twist_about(fore.T @ orientation, fore_rest)
        fore = fore @ matrix_from_axis_angle(fore_rest * twist * _TWIST_OF_FOREARM)
        upper = upper @ matrix_from_axis_angle(upper_rest * twist * _TWIST_OF_UPPER_ARM)
        pose[self.shoulder] = axis_angle_from_matrix(chest.T @ upper)
        pose[self.elbow] = axis_angle_from_matrix(upper.T @ fore)
        pose[self.wrist] = axis_angle_from_matrix(fore.T @ orientation)

    @property
    def length(self) -> float:
        """From shoulder to wrist, straight, metres."""
        return self._bone(self.shoulder) + self._bone(self.elbow)

    def _bone(self, start: int) -> float:
        end = self.elbow if start == self.shoulder else self.wrist
        return float(np.linalg.norm(self.rest_joints[end] - self.rest_joints[start]))

    def _direction(self, start: int) -> Floats:
        """Unit direction [3] of a bone of the rest pose."""
        end = self.elbow if start == self.shoulder else self.wrist
        return normalised(self.rest_joints[end] - self.rest_joints[start])


def joint_between(start: Floats, end: Floats, upper: float, lower: float, outward: Floats) -> Floats:
    """Elbow or knee [3] of a two-bone limb from ``start`` [3] to ``end`` [3] that bends towards ``outward`` [3]."""
    line = end - start
    distance = min(float(np.linalg.norm(line)), (upper + lower) * 0.999)
    along = normalised(line)
    share = (upper**2 - lower**2 + distance**2) / (2 * distance)
    aside = normalised(outward - along * (outward @ along))
    result: Floats = start + along * share + aside * np.sqrt(max(upper**2 - share**2, 0.0))
    return result


def _twist_about(rotation: Floats, axis: Floats) -> float:
    """Angle (-pi to pi) of the part of a rotation [3,3] that turns about ``axis`` [3]."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    angle = 2.0 * np.arctan2(np.dot([x, y, z], axis), w)
    return float((angle + np.pi) % (2 * np.pi) - np.pi)
