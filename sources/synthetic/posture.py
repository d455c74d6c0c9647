"""The body around the hands: seated or standing legs, a leaning torso, a head that looks. Metres, y up, facing +z."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from render.body import NUM_JOINTS, BodyModel, Joint, joint_transforms
from render.camera import look_at
from render.ego_camera import eye_midpoint
from render.rotations import Floats, axis_angle_from_matrix, matrix_from_axis_angle

HEAD_FROM_CAMERA = np.diag([-1.0, -1.0, 1.0])
"""Camera axes (x right, y down, z forward) against the head's rest axes (x left, y up, z forward)."""

SEATED_PELVIS_M, STANDING_PELVIS_M = 0.56, 0.975
"""Heights of the pelvis joint above the floor."""

_NECK_SHARE = 0.4
_SPINE = (Joint.SPINE_1, Joint.SPINE_2, Joint.SPINE_3)
_SEATED = {Joint.LEFT_HIP: -1.45, Joint.RIGHT_HIP: -1.45, Joint.LEFT_KNEE: 1.5, Joint.RIGHT_KNEE: 1.5}
STANDING_LEGS = {Joint.LEFT_HIP: -0.10, Joint.RIGHT_HIP: -0.10, Joint.LEFT_KNEE: 0.17, Joint.RIGHT_KNEE: 0.17}
"""Bend of hips and knees of a standing person, radians about x."""
_ANKLES = (7, 8)


class Posture(StrEnum):
    """How the legs are."""

    SEATED = "seated"
    STANDING = "standing"


def pose_torso(body: BodyModel, posture: Posture, pelvis: Floats, lean: Floats, twist: Floats) -> tuple[Floats, Floats]:
    """Pose [T,55,3] and translation [T,3] of a body with hanging arms.

    Args:
        body: the body.
        posture: of the legs.
        pelvis: [T,3] place of the pelvis joint.
        lean: [T] forward bend of pelvis and spine together, radians.
        twist: [T] turn of the chest to the left, radians.
    """
    pose = np.zeros((len(pelvis), NUM_JOINTS, 3))
    for joint, angle in (_SEATED if posture is Posture.SEATED else STANDING_LEGS).items():
        pose[:, joint, 0] = angle
    pelvis_share = 0.25 if posture is Posture.SEATED else 0.45
    pose[:, Joint.PELVIS, 0] = lean * pelvis_share
    for hip in (Joint.LEFT_HIP, Joint.RIGHT_HIP):
        pose[:, hip, 0] -= lean * pelvis_share
    for ankle in _ANKLES:
        pose[:, ankle, 0] = -0.05 if posture is Posture.SEATED else -0.07
    for spine in _SPINE:
        pose[:, spine, 0] = lean * (1 - pelvis_share) / 3 + 0.02
        pose[:, spine, 1] = twist / 3
    for sign, shoulder in ((1.0, Joint.LEFT_SHOULDER), (-1.0, Joint.RIGHT_SHOULDER)):
        pose[:, shoulder, 2] = -1.35 * sign
    return pose, pelvis - body.rest()[1][Joint.PELVIS]


def aim_head(body: BodyModel, pose: Floats, translation: Floats, gaze: Floats) -> None:
    """Turn neck and head in ``pose`` [T,55,3] so that the camera between the eyes faces ``gaze`` [T,3]."""
    rest_joints = body.rest()[1]
    offset = eye_midpoint(body)
    for _ in range(3):  # turning the head moves the eyes a little
        rotations = matrix_from_axis_angle(pose)
        world = joint_transforms(rotations, rest_joints, body.parents)
        eyes = world[:, Joint.HEAD, :3, 3] + world[:, Joint.HEAD, :3, :3] @ offset + translation
        wanted = np.stack([look_at(*pair) for pair in zip(eyes, gaze, strict=True)])[:, :3, :3] @ HEAD_FROM_CAMERA
        chest = world[:, body.parents[Joint.NECK], :3, :3]
        turn = axis_angle_from_matrix(np.swapaxes(chest, 1, 2) @ wanted)
        pose[:, Joint.NECK] = turn * _NECK_SHARE
        pose[:, Joint.HEAD] = turn * (1 - _NECK_SHARE)


def joints_of(body: BodyModel, pose: Floats, translation: Floats) -> Floats:
    """World transforms [T,55,4,4] of a pose."""
    world = joint_transforms(matrix_from_axis_angle(pose), body.rest()[1], body.parents)
    world[:, :, :3, 3] += translation[:, None]
    return world
