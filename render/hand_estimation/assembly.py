"""From the tracks of an estimator to the one type of hand motions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from render.camera import project_camera_points
from render.hand_estimation.estimator import HandVideo, motion_intrinsics
from render.hands import HandMotion
from render.rotations import Floats
from render.scene import IntArray


@dataclass(frozen=True)
class TrackMeshes:
    """One hand over N frames, in the camera's frame.

    Attributes:
        frame: [N].
        is_right: its side.
        score: [N].
        pose: [N,45] axis-angle.
        orientation: [N,3] axis-angle.
        joints: [N,21,3] metres.
        vertices: [N,V,3] metres.
    """

    frame: npt.NDArray[np.int64]
    is_right: bool
    score: Floats
    pose: Floats
    orientation: Floats
    joints: Floats
    vertices: npt.NDArray[np.floating]


def assemble(
    tracks: Sequence[TrackMeshes], faces: tuple[IntArray, IntArray], focal_px: float, video: HandVideo
) -> HandMotion:
    """The motion of a video, its entries in the order of their frames; empty without tracks.

    Args:
        tracks: hands over time; their places in the list become the track ids.
        faces: of the left and the right hand.
        focal_px: focal length that the tracks were made with.
        video: the video.
    """
    count = 1 + max(int(each.max()) for each in faces)
    empty = TrackMeshes(
        np.empty(0, np.int64),
        False,
        np.empty(0),
        np.empty((0, 45)),
        np.empty((0, 3)),
        np.empty((0, 21, 3)),
        np.empty((0, count, 3)),
    )
    parts = [empty, *tracks]

    def joined(name: str) -> Floats:
        return np.concatenate([np.asarray(getattr(part, name)) for part in parts])

    joints = joined("joints")
    motion = HandMotion(
        frame=joined("frame").astype(np.int64),
        is_right=np.repeat([part.is_right for part in parts], [len(part.frame) for part in parts]),
        score=joined("score").astype(np.float32),
        track_id=np.repeat(np.arange(len(parts)) - 1, [len(part.frame) for part in parts]),
        pose=joined("pose").astype(np.float32),
        orientation=joined("orientation").astype(np.float32),
        translation=joints[:, 0].astype(np.float32),
        joints_camera=joints.astype(np.float32),
        joints_image=np.empty((len(joints), 21, 2), np.float32),
        vertices=joined("vertices").astype(np.float32),
        faces_left=faces[0],
        faces_right=faces[1],
        focal_px=float(focal_px),
    )
    camera = motion_intrinsics(motion, video.width, video.height)
    motion = replace(motion, joints_image=project_camera_points(camera, joints)[0].astype(np.float32))
    return _in_order(motion)


def _in_order(motion: HandMotion) -> HandMotion:
    """The entries in the order of their frames, those of a frame in the order of their tracks."""
    order = np.argsort(motion.frame, kind="stable")
    names = [each.name for each in fields(motion) if np.shape(getattr(motion, each.name))[:1] == motion.frame.shape]
    entries = {name: getattr(motion, name)[order] for name in names if not name.startswith("faces")}
    return replace(motion, **entries)


def as_mirrored(motion: HandMotion) -> HandMotion:
    """The same meshes under the names of the person's own hands, for a video that shows its person mirrored.

    What looks like a left hand is the mirror image of a right one: the side and the faces change places, finger poses
    become those of the other side; no turn of a right hand gives its mirror image, so the orientation is unknown.
    """
    pose = motion.pose.reshape(-1, 15, 3) * np.array([1.0, -1.0, -1.0], np.float32)
    return replace(
        motion,
        is_right=~motion.is_right,
        pose=pose.reshape(-1, 45),
        orientation=np.full_like(motion.orientation, np.nan),
        faces_left=motion.faces_right,
        faces_right=motion.faces_left,
    )
