"""The egocentric camera of a body: between the eyes, facing where the head faces, rigid to the head joint.

Paper section 3.3: the camera sits at the midpoint between the eyes in the canonical pose, looks along the head's
forward axis and is attached to the head joint (SMPL-X joint 15). The public release gives it a horizontal field of
view of 90 degrees: fx = fy = 360, cx = 360, cy = 240 at 720x480.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from render.body import BodyModel, Joint, SkinnedBody
from render.camera import CameraPath, intrinsics_from_fov
from render.rotations import Floats

HORIZONTAL_FOV_DEGREES = 90.0
"""Field of view over the width of the image, as in the public release."""

_HEAD_FROM_CAMERA = np.diag([-1.0, -1.0, 1.0])
"""The head's rest axes are x to its left, y up, z forward; the camera's x right, y down, z forward."""

_JAW = 22
_HEAD_JOINTS = (Joint.NECK, Joint.HEAD, _JAW, Joint.LEFT_EYE, Joint.RIGHT_EYE)
_HEAD_WEIGHT = 0.3


def eye_midpoint(body: BodyModel, betas: npt.ArrayLike = ()) -> Floats:
    """Midpoint [3] between the eyes relative to the head joint in the canonical pose, metres."""
    joints = body.rest(betas)[1]
    result: Floats = joints[[Joint.LEFT_EYE, Joint.RIGHT_EYE]].mean(axis=0) - joints[Joint.HEAD]
    return result


def ego_cameras(
    body: BodyModel,
    skinned: SkinnedBody,
    width: int,
    height: int,
    *,
    betas: npt.ArrayLike = (),
    horizontal_fov_degrees: float = HORIZONTAL_FOV_DEGREES,
) -> CameraPath:
    """Camera of each frame of a posed body.

    Args:
        body: the body model.
        skinned: the body over T frames, world metres.
        width: width of the images, pixels.
        height: height of the images, pixels.
        betas: the shape that was posed: it places the eyes.
        horizontal_fov_degrees: angle over the image's width.

    Returns:
        T poses (world from camera, OpenCV axes), intrinsics of a ``width`` x ``height`` image.
    """
    rotations = skinned.joint_rotations[:, Joint.HEAD]
    poses = np.tile(np.eye(4), (len(rotations), 1, 1))
    poses[:, :3, :3] = rotations @ _HEAD_FROM_CAMERA
    poses[:, :3, 3] = skinned.joints[:, Joint.HEAD] + rotations @ eye_midpoint(body, betas)
    return CameraPath(intrinsics_from_fov(width, height, horizontal_fov_degrees), poses)


def head_faces(body: BodyModel) -> npt.NDArray[np.bool_]:
    """Faces [F] of head and neck: they carry the camera, so that the actor's own view never shows them."""
    on_head = body.weights[:, list(_HEAD_JOINTS)].sum(axis=1) > _HEAD_WEIGHT
    result: npt.NDArray[np.bool_] = on_head[body.faces].any(axis=1)
    return result
