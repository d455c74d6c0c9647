"""Measurements of a TRUMANS clip that need its geometry: object motion, objects that jump or float, the ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manifests.errors import DwmError
from manifests.schema import MaskId
from render.body import BodyModel, Joint, SkinnedBody
from render.mesh_renderer import ClipViews
from render.rotations import Floats
from render.scene import ObjectTrack, Scene

MOVED_M = 0.005
"""A track whose farthest corner leaves its rest place by more than this is a moved object of the clip."""

_JUMP_M, _JUMP_DEGREES = 0.35, 50.0
"""Between neighbouring source frames (1/30 s): faster than a hand that throws."""
_TOUCH_M = 0.45
"""A moving object's box is nearer to a wrist or pelvis than this, or nobody moves it."""
_FLOAT_M = 0.08
_GROUND_M = 0.15
_INSIDE_SHARE, _INSIDE_M = 0.75, 0.4


@dataclass(frozen=True)
class MovingObject:
    """An object that moves in a clip.

    Attributes:
        name: its name.
        track: its poses at the clip's frames.
        source_poses: [S,4,4] at every source frame of the window.
    """

    name: str
    track: ObjectTrack
    source_poses: Floats


def check_alignment(views: ClipViews) -> None:
    """Static and interaction frames are equal wherever the mask says that nothing happens.

    Raises:
        DwmError: some pixel differs; nothing must be written then.
    """
    for frame, (one, other, ids) in enumerate(zip(views.interaction, views.static, views.ids, strict=True)):
        count = np.count_nonzero((one != other).any(axis=-1) & (ids == MaskId.BACKGROUND))
        if count:
            raise DwmError(
                f"frame {frame}: {count} pixels outside the mask differ between static and interaction; "
                "report the OpenGL driver (`dwm doctor` names it) or set PYOPENGL_PLATFORM=osmesa"
            )


def path_length_m(moving: MovingObject) -> float:
    """Length of the path of an object's centre over the clip's frames, metres."""
    centre = np.append(_corners(moving.track).mean(axis=0), 1.0)
    places = moving.track.poses[:, :3] @ centre
    return float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())


def object_flags(moving: Sequence[MovingObject], skinned: SkinnedBody, scene: Scene) -> list[str]:
    """Reasons to look at moved objects: they jump, move with nobody near, or end in the air."""
    flags = []
    for each in moving:
        flags += [flag for flag in (_jump(each), _alone(each, skinned), _floating(each, skinned, scene)) if flag]
    return flags


def ground_flag(body: BodyModel, skinned: SkinnedBody) -> str | None:
    """A reason to look where the actor's feet are far from the floor (y = 0) over the clip."""
    lowest = float(np.median(skinned.vertices[..., 1].min(axis=1)))
    if abs(lowest) <= _GROUND_M:
        return None
    side = "above" if lowest > 0 else "below"
    return f"ground: the body {body.name} is {abs(lowest):.2f} m {side} the floor (median of its lowest point)"


def view_flag(views: ClipViews) -> str | None:
    """A reason to look where nearly all of the view is nearer than a room ever is: the camera is inside a thing."""
    spots = views.depth.reshape(len(views.depth), -1).astype(np.float32)
    # Nothing (0) is far away. On the real motion, heads inside the sofa see three quarters of it within 0.10-0.37 m;
    # as soon as they leave it, the same share reaches to 0.96 m and beyond.
    reach = np.quantile(np.where(spots > 0, spots, np.inf), _INSIDE_SHARE, axis=1, method="lower")
    near = int((reach < _INSIDE_M).sum())
    if not near:
        return None
    return f"camera_inside: in {near} frames {_INSIDE_SHARE:.0%} of the view are nearer than {_INSIDE_M} m"


def _jump(moving: MovingObject) -> str | None:
    places = moving.source_poses[:, :3, 3]
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    turns = moving.source_poses[:, :3, :3] / np.maximum(
        np.linalg.norm(moving.source_poses[:, :3, :3], axis=1, keepdims=True), 1e-12
    )
    cosines = (np.einsum("tij,tij->t", turns[1:], turns[:-1]) - 1) / 2
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    if len(steps) and steps.max() > _JUMP_M:
        return f"object_jump: '{moving.name}' moves {steps.max():.2f} m within one source frame"
    if len(angles) and angles.max() > _JUMP_DEGREES:
        return f"object_jump: '{moving.name}' turns {angles.max():.0f} degrees within one source frame"
    return None


def _alone(moving: MovingObject, skinned: SkinnedBody) -> str | None:
    places = moving.track.poses[:, :3, 3]
    steps = np.append(np.linalg.norm(np.diff(places, axis=0), axis=1), 0.0)
    frames = np.flatnonzero(steps > MOVED_M)
    alone = [frame for frame in frames if _distance_to_body(moving, skinned, int(frame)) > _TOUCH_M]
    if len(alone) <= len(frames) // 2:
        return None
    return f"object_moves_alone: '{moving.name}' moves in {len(alone)} frames with nobody near"


def _floating(moving: MovingObject, skinned: SkinnedBody, scene: Scene) -> str | None:
    """An object that nobody touches in the last frame has something below it."""
    last = len(moving.track.poses) - 1
    if _distance_to_body(moving, skinned, last) <= _TOUCH_M:
        return None
    pose = moving.track.poses[last]
    corners = _corners(moving.track) @ pose[:3, :3].T + pose[:3, 3]
    low, high = corners.min(axis=0), corners.max(axis=0)
    columns = np.linspace(0.1, 0.9, 3)
    sides = low[[0, 2]], high[[0, 2]] - low[[0, 2]]
    feet = [sides[0] + np.array([across, along]) * sides[1] for across in columns for along in columns]
    support = max((height_below(scene, foot, float(low[1]) + _FLOAT_M) for foot in feet), default=-np.inf)
    gap = float(low[1]) - support
    if gap <= _FLOAT_M:
        return None
    where = "with nothing below it" if np.isinf(gap) else f"{gap:.2f} m above what is below it"
    return f"object_floats: '{moving.name}' ends {where}"


def height_below(scene: Scene, place: Floats, limit: float) -> float:
    """Greatest height (y) of the scene's triangles at ``place`` (x, z) up to ``limit``; -inf without any."""
    best = -np.inf
    for item in scene.objects:
        for surface in item.surfaces:
            world = surface.vertices @ item.pose[:3, :3].T + item.pose[:3, 3]
            a, b, c = (world[surface.faces[:, corner]] for corner in range(3))
            area = (b[:, 0] - a[:, 0]) * (c[:, 2] - a[:, 2]) - (c[:, 0] - a[:, 0]) * (b[:, 2] - a[:, 2])
            usable = np.abs(area) > 1e-12
            a, b, c, area = a[usable], b[usable], c[usable], area[usable]
            x, z = place[0] - a[:, 0], place[1] - a[:, 2]
            along_b = (x * (c[:, 2] - a[:, 2]) - (c[:, 0] - a[:, 0]) * z) / area
            along_c = ((b[:, 0] - a[:, 0]) * z - x * (b[:, 2] - a[:, 2])) / area
            inside = (along_b >= 0) & (along_c >= 0) & (along_b + along_c <= 1)
            heights = (a[:, 1] + along_b * (b[:, 1] - a[:, 1]) + along_c * (c[:, 1] - a[:, 1]))[inside]
            heights = heights[heights <= limit]
            best = max(best, float(heights.max(initial=-np.inf)))
    return best


def _corners(track: ObjectTrack) -> Floats:
    vertices = np.concatenate([surface.vertices for surface in track.scene_object.surfaces]).astype(np.float64)
    ends = np.stack([vertices.min(axis=0), vertices.max(axis=0)])
    return np.array([[ends[i, 0], ends[j, 1], ends[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)])


def _distance_to_body(moving: MovingObject, skinned: SkinnedBody, frame: int) -> float:
    """From the object's box to the nearest hand, foot or pelvis joint of a frame, metres."""
    pose = moving.track.poses[frame]
    corners = _corners(moving.track) @ pose[:3, :3].T + pose[:3, 3]
    joints = skinned.joints[frame, [Joint.PELVIS, 10, 11, Joint.LEFT_WRIST, Joint.RIGHT_WRIST, 28, 43]]
    nearest = np.clip(joints, corners.min(axis=0), corners.max(axis=0))
    return float(np.linalg.norm(joints - nearest, axis=1).min())
