"""The hands of a body as chains of hinges with limits: angles to key points, derivatives and meshes.

Angles that a hand can bend by are one number a hinge; from them follow the 15 joint rotations of the SMPL-X format.
Limits are rounded from the ranges of motion that hand surgery handbooks give for healthy adults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from render.body import FINGER_JOINTS, NUM_JOINTS, BodyModel, BodyMotion, Joint
from render.hands import FINGER_ORDER, TIP_VERTICES
from render.rotations import Floats, axis_angle_from_matrix, matrix_from_axis_angle, normalised

NUM_POINTS = 21
_PALM_DOWN = np.array([0.0, -1.0, 0.0])
"""Where the palms face in the rest pose of the SMPL-X format."""

_LANDMARK_OFFSETS_MM = (
    (-13.2, -2.1, -2.3),
    (6.6, -13.8, 5.5),
    (-6.2, -4.0, 4.5),
    (-0.6, 0.5, -4.3),
    (7.1, 2.7, -5.0),
    (9.4, -6.5, -4.6),
    (-3.1, -4.9, -1.3),
    (-1.1, -4.3, 0.1),
    (8.5, -0.1, 0.4),
    (6.7, -6.7, 0.8),
    (0.3, -4.1, 1.5),
    (2.0, -4.2, 1.4),
    (9.7, -2.4, 1.5),
    (4.6, -7.2, 1.8),
    (-2.5, -3.9, 0.4),
    (-0.4, -4.2, 0.4),
    (10.3, -3.2, 2.5),
    (2.8, -5.9, 3.9),
    (-2.6, -3.0, 0.2),
    (-2.7, -2.2, -0.3),
    (5.1, -2.8, 0.5),
)
"""Where the landmark network sees each key point of the stand-in body's right hand, against the key point, in the rest
axes of the bone that follows it; measured by `benchmarks/calibrate_landmarks.py`. Its wrist lies 13 mm nearer to the
fingers, its knuckles 3 to 9 mm nearer to the wrist."""

_FINGER = (  # joint of the finger, axis, lowest, usual and highest angle in degrees
    (0, "spread", -18.0, 0.0, 18.0),
    (0, "bend", -20.0, 20.0, 90.0),
    (1, "bend", -5.0, 30.0, 110.0),
    (2, "bend", -5.0, 15.0, 80.0),
)
_THUMB = (
    (0, "spread", -35.0, 0.0, 35.0),
    (0, "bend", -30.0, 5.0, 45.0),
    (0, "twist", -25.0, 0.0, 35.0),
    (1, "bend", -15.0, 10.0, 60.0),
    (2, "bend", -20.0, 15.0, 80.0),
)


@dataclass(frozen=True)
class HandPose:
    """Hands of one side over N frames, in the camera's frame.

    Attributes:
        orientation: [N,3,3] rotation of the rest pose.
        translation: [N,3] position of the wrist, metres.
        angles: [N,H] of the hinges, radians.
    """

    orientation: Floats
    translation: Floats
    angles: Floats

    def __len__(self) -> int:
        return len(self.angles)

    def select(self, index: npt.NDArray[np.generic] | slice) -> HandPose:
        """The entries that ``index`` picks."""
        return HandPose(self.orientation[index], self.translation[index], self.angles[index])


@dataclass(frozen=True)
class PosedHand:
    """Key points and their hinges in the camera's frame.

    Attributes:
        points: [N,21,3] wrist, then thumb, index, middle, ring, pinky from the palm to the tip, metres.
        landmarks: [N,21,3] where the landmark network sees them.
        axes: [N,H,3] axis of each hinge.
        origins: [N,H,3] a point of each axis.
        joint_rotations: [N,15,3,3] of the finger joints against their parents, in the body's order.
    """

    points: Floats
    landmarks: Floats
    axes: Floats
    origins: Floats
    joint_rotations: Floats


@dataclass(frozen=True)
class HandModel:
    """One hand of a body.

    Attributes:
        body: the body.
        is_right: side.
        rest_points: [21,3] key points of the rest pose against the wrist, metres.
        landmark_offsets: [21,3] from the key points to what the landmark network sees there, metres.
        hinge_axes: [H,3] in the rest pose.
        hinge_points: [H] key point at which each hinge lies.
        moves: [H,21] True where a hinge moves a landmark.
        lower: [H] least angles, radians.
        usual: [H] angles of a relaxed hand.
        upper: [H] greatest angles.
    """

    body: BodyModel
    is_right: bool
    rest_points: Floats
    landmark_offsets: Floats
    hinge_axes: Floats
    hinge_points: npt.NDArray[np.int64]
    moves: npt.NDArray[np.bool_]
    lower: Floats
    usual: Floats
    upper: Floats

    @property
    def num_hinges(self) -> int:
        """H."""
        return len(self.hinge_axes)

    @property
    def palm_length(self) -> float:
        """From the wrist to the base of the middle finger, metres."""
        landmarks = self.rest_points + self.landmark_offsets
        return float(np.linalg.norm(landmarks[9] - landmarks[0]))

    def pose(self, hands: HandPose) -> PosedHand:
        """Key points, hinge axes and joint rotations of N hands."""
        count = len(hands)
        points, landmarks = np.empty((2, count, NUM_POINTS, 3))
        points[:, 0] = hands.translation
        landmarks[:, 0] = hands.translation + hands.orientation @ self.landmark_offsets[0]
        axes, origins = np.empty((2, count, self.num_hinges, 3))
        local = np.empty((count, FINGER_JOINTS, 3, 3))
        for finger in range(5):
            place, world, reached = 0, hands.orientation, hands.translation
            for bone in range(4):
                point = 1 + 4 * finger + bone
                step = self.rest_points[point] - self.rest_points[place]
                reached = reached + world @ step
                points[:, point] = reached
                place = point
                if bone == 3:
                    landmarks[:, point] = reached + world @ self.landmark_offsets[point]
                    break
                turn = np.broadcast_to(np.eye(3), (count, 3, 3))
                for hinge in np.flatnonzero(self.hinge_points == point):
                    axes[:, hinge] = (world @ turn) @ self.hinge_axes[hinge]
                    origins[:, hinge] = reached
                    turn = turn @ matrix_from_axis_angle(hands.angles[:, hinge, None] * self.hinge_axes[hinge])
                local[:, 3 * FINGER_ORDER[finger] + bone] = turn
                world = world @ turn
                landmarks[:, point] = reached + world @ self.landmark_offsets[point]
        return PosedHand(points, landmarks, axes, origins, local)

    def mesh(self, hands: HandPose) -> tuple[npt.NDArray[np.float32], Floats]:
        """Vertices [N,V,3] of the closed hand mesh, metres, and the finger pose [N,45], axis-angle.

        The whole body is turned so that its hand lies in place: the arm behind it stays straight.
        """
        count = len(hands)
        finger_pose = axis_angle_from_matrix(self.pose(hands).joint_rotations)
        first = Joint.RIGHT_FINGERS if self.is_right else Joint.LEFT_FINGERS
        pose = np.zeros((count, NUM_JOINTS, 3))
        pose[:, Joint.PELVIS] = axis_angle_from_matrix(hands.orientation)
        pose[:, first : first + FINGER_JOINTS] = finger_pose
        joints = self.body.rest()[1]
        wrist = joints[Joint.RIGHT_WRIST if self.is_right else Joint.LEFT_WRIST]
        root = joints[Joint.PELVIS]
        translation = hands.translation - (hands.orientation @ (wrist - root) + root)
        motion = BodyMotion(pose, translation, np.zeros(0), np.zeros(0))
        part = self.body.hands[int(self.is_right)]
        skinned = self.body.skin(motion, part.vertex_ids).vertices
        centre = skinned[:, part.cap_ids].mean(axis=1, keepdims=True, dtype=np.float64)
        vertices = np.concatenate([skinned, centre.astype(np.float32)], axis=1)
        return vertices, finger_pose.reshape(count, 3 * FINGER_JOINTS)


def hand_model(body: BodyModel, is_right: bool) -> HandModel:
    """The hinges of one hand of a body, from its rest pose."""
    vertices, joints = body.rest()
    first, wrist = (Joint.RIGHT_FINGERS, Joint.RIGHT_WRIST) if is_right else (Joint.LEFT_FINGERS, Joint.LEFT_WRIST)
    points = [joints[wrist]]
    for finger, tip in zip(FINGER_ORDER, TIP_VERTICES[int(is_right)], strict=True):
        points += [*joints[first + 3 * finger : first + 3 * finger + 3], vertices[tip]]
    rest = np.array(points) - joints[wrist]
    axes, places, limits = [], [], []
    for finger in range(5):
        base = 1 + 4 * finger
        for joint, kind, low, middle, high in _THUMB if finger == 0 else _FINGER:
            bone = normalised(rest[base + joint + 1] - rest[base + joint])
            inward = rest[17] - rest[base + joint] if finger == 0 else _PALM_DOWN
            inward = normalised(inward - bone * (inward @ bone))
            axis = {"bend": np.cross(bone, inward), "spread": inward, "twist": bone}[kind]
            # The mirror image of a turn about an axis is a turn the other way about the mirrored axis: spreading and
            # twisting have the same sign on both sides.
            axes.append(-axis if kind != "bend" and is_right else axis)
            places.append(base + joint)
            limits.append((low, middle, high))
    moves = np.zeros((len(axes), NUM_POINTS), np.bool_)
    for hinge, place in enumerate(places):
        moves[hinge, place : 5 + 4 * ((place - 1) // 4)] = True
    offsets = np.array(_LANDMARK_OFFSETS_MM) / 1000 * (1.0 if is_right else -1.0, 1.0, 1.0)
    lower, usual, upper = np.radians(np.array(limits)).T.copy()
    return HandModel(
        body=body,
        is_right=is_right,
        rest_points=rest,
        landmark_offsets=offsets if body.is_stand_in else np.zeros_like(offsets),
        hinge_axes=np.array(axes),
        hinge_points=np.array(places),
        moves=moves,
        lower=lower,
        usual=usual,
        upper=upper,
    )
