"""A seated person who pushes a box over a table with one hand: body, box and head camera over time.

The person sits at the world's origin and faces +z; y is up, the left hand is at +x. All lengths are metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from render.body import FINGER_JOINTS, NUM_JOINTS, BodyModel, BodyMotion, Joint, joint_transforms
from render.camera import look_at
from render.rotations import Floats, axis_angle_from_matrix, matrix_from_axis_angle
from sources.synthetic.arm import Arm, Grip

_UP = np.array([0.0, 1.0, 0.0])
_HEAD_FROM_CAMERA = np.diag([-1.0, -1.0, 1.0])
"""Camera axes (x right, y down, z forward) against the head's rest axes (x left, y up, z forward)."""

_REACH_END, _PUSH_START, _PUSH_STOP, _LEAVE_START = 0.30, 0.32, 0.75, 0.77
"""Shares of a clip at which the hand has reached the box, the box starts and stops, and the hand lets go."""

_TOUCH_GAP_M = 0.001
_CLEARANCE_M = 0.006
"""Distances of the hand from the face that it pushes, and of palm and forearm from the lid below them."""

_CORRECTIONS = 4
"""Rounds that move the wrist until the skinned hand just touches the box."""


class Action(StrEnum):
    """What the hand does to the box."""

    PUSH_LEFT = "push_left"
    PUSH_RIGHT = "push_right"
    PUSH_AWAY = "push_away"
    PULL_BACK = "pull_back"

    @property
    def direction(self) -> Floats:
        """Direction [3] in which the box goes, before its own turn on the table."""
        return np.array(_DIRECTIONS[self])


_DIRECTIONS: dict[Action, tuple[float, float, float]] = {
    Action.PUSH_LEFT: (1.0, 0.0, 0.0),
    Action.PUSH_RIGHT: (-1.0, 0.0, 0.0),
    Action.PUSH_AWAY: (0.0, 0.0, 1.0),
    Action.PULL_BACK: (0.0, 0.0, -1.0),
}
_REST_GRIP = Grip(pointing=(-0.35, 0.05, 1.0), palm=(-0.3, -1.0, 0.0), knuckles=0.25, bends=0.3, thumb=0.3)
_SIDE_GRIP = Grip(pointing=(-0.35, 0.12, 1.0), palm=(-1.0, -0.05, 0.0), knuckles=0.12, bends=0.16, thumb=0.75)
_GRIPS = {
    Action.PUSH_LEFT: _SIDE_GRIP,
    Action.PUSH_RIGHT: _SIDE_GRIP,
    Action.PUSH_AWAY: Grip(pointing=(-0.12, 0.75, 0.65), palm=(0.0, -0.6, 0.9), knuckles=0.1, bends=0.2, thumb=0.6),
    Action.PULL_BACK: Grip(pointing=(-0.1, -0.05, 1.0), palm=(0.0, -1.0, 0.0), knuckles=1.2, bends=0.28, thumb=0.6),
}


@dataclass(frozen=True)
class PushPlan:
    """One push.

    Attributes:
        action: what is done.
        use_right_hand: which hand does it.
        box_size: [3] x, y, z in the box's own axes.
        box_start: [3] centre of the box at the start.
        box_yaw: turn of the box about the vertical, radians.
        distance: how far the box goes.
        table_height: of the table's top.
        table_front: z of the table's edge before the person.
        eye: [3] mean place of the eyes.
        gaze: [3] point that the head faces on average.
        sway_phases: [6] phases of the head's sway, radians.
    """

    action: Action
    use_right_hand: bool
    box_size: Floats
    box_start: Floats
    box_yaw: float
    distance: float
    table_height: float
    table_front: float
    eye: Floats
    gaze: Floats
    sway_phases: Floats

    @property
    def direction(self) -> Floats:
        """Direction [3] in which the box goes."""
        result: Floats = _turn(self.box_yaw) @ self.action.direction
        return result


@dataclass(frozen=True)
class PushMotion:
    """A push over T frames.

    Attributes:
        body: pose and place of the person.
        box_poses: [T,4,4] world from box.
        world_from_camera: [T,4,4] the camera between the eyes, rigid to the head.
        touching: [T] True while the hand touches the box.
    """

    body: BodyMotion
    box_poses: Floats
    world_from_camera: Floats
    touching: npt.NDArray[np.bool_]


def make_push_motion(body: BodyModel, plan: PushPlan, num_frames: int) -> PushMotion:
    """Body, box and camera of a push, sampled at ``num_frames`` evenly spaced times from start to end."""
    time = np.linspace(0.0, 1.0, num_frames)
    travel = plan.distance * _ease((time - _PUSH_START) / (_PUSH_STOP - _PUSH_START))
    box_poses = np.tile(np.eye(4), (num_frames, 1, 1))
    box_poses[:, :3, :3] = _turn(plan.box_yaw)
    box_poses[:, :3, 3] = plan.box_start + travel[:, None] * plan.direction

    cameras = _camera_path(plan, box_poses[:, :3, 3], time)
    pose, translation = _seated_pose(body, plan, cameras)
    touching = (time >= _REACH_END) & (time <= _LEAVE_START)
    motion = BodyMotion(pose, translation, betas=np.zeros(0), expression=np.zeros(0), flat_hand_mean=True)
    _Push(body, plan, motion, box_poses[:, :3, 3], time).move_arm(touching)
    return PushMotion(motion, box_poses, cameras, touching)


def _camera_path(plan: PushPlan, box: Floats, time: Floats) -> Floats:
    """Camera poses [T,4,4]: the head sways, leans in a little and half follows the box."""
    waves = np.sin(2 * np.pi * np.outer(time, [0.6, 0.45, 0.5, 0.7, 0.55, 0.4]) + plan.sway_phases)
    eye = plan.eye + waves[:, :3] * [0.028, 0.014, 0.016] + np.outer(_ease(time * 2.2), [0.0, -0.012, 0.03])
    gaze = plan.gaze + (box - plan.box_start) * 0.45 + waves[:, 3:] * [0.05, 0.02, 0.05]
    return np.stack([look_at(*pair) for pair in zip(eye, gaze, strict=True)])


def _seated_pose(body: BodyModel, plan: PushPlan, cameras: Floats) -> tuple[Floats, Floats]:
    """Pose [T,55,3] and translation [T,3] of a seated body whose eyes are the camera, one shoulder forward."""
    pose = np.zeros((len(cameras), NUM_JOINTS, 3))
    side = -1.0 if plan.use_right_hand else 1.0
    for joint, angle in _SEATED_BENDS.items():
        pose[:, joint, 0] = angle
    for spine in (Joint.SPINE_1, Joint.SPINE_2, Joint.SPINE_3):
        pose[:, spine, 1] = -0.1 * side
    pose[:, Joint.RIGHT_COLLAR if plan.use_right_hand else Joint.LEFT_COLLAR, 1] = -0.35 * side
    for sign, shoulder in ((1.0, Joint.LEFT_SHOULDER), (-1.0, Joint.RIGHT_SHOULDER)):
        pose[:, shoulder, 2] = -1.35 * sign
    rest_joints = body.rest()[1]
    world = joint_transforms(matrix_from_axis_angle(pose), rest_joints, body.parents)
    head = cameras[:, :3, :3] @ _HEAD_FROM_CAMERA
    pose[:, Joint.HEAD] = axis_angle_from_matrix(np.swapaxes(world[:, Joint.NECK, :3, :3], 1, 2) @ head)
    eyes = rest_joints[[Joint.LEFT_EYE, Joint.RIGHT_EYE]].mean(axis=0) - rest_joints[Joint.HEAD]
    return pose, cameras[:, :3, 3] - world[:, Joint.HEAD, :3, 3] - head @ eyes


_SEATED_BENDS = {
    Joint.SPINE_1: 0.10,
    Joint.SPINE_2: 0.10,
    Joint.SPINE_3: 0.06,
    Joint.NECK: 0.15,
    Joint.LEFT_HIP: -1.45,
    Joint.RIGHT_HIP: -1.45,
    Joint.LEFT_KNEE: 1.5,
    Joint.RIGHT_KNEE: 1.5,
}
"""Forward bends of the joints of a person who sits, radians."""


class _Push:
    """Moves the pushing arm of a seated body.

    Args:
        body: the body.
        plan: the push.
        motion: the seated body; its pose is changed in place.
        box: [T,3] centres of the box.
        time: [T] shares of the clip.
    """

    def __init__(self, body: BodyModel, plan: PushPlan, motion: BodyMotion, box: Floats, time: Floats) -> None:
        self.body, self.plan, self.motion, self.box, self.time = body, plan, motion, box, time
        self.arm = Arm.of(body, right=plan.use_right_hand)
        self.grip = _GRIPS[plan.action]
        self.over_the_top = plan.action is Action.PULL_BACK
        self.across = np.cross(_UP, plan.direction)
        self.half_along = float(np.abs(plan.action.direction) @ plan.box_size) / 2
        self.half_across = float(np.abs(np.cross(_UP, plan.action.direction)) @ plan.box_size) / 2

    def move_arm(self, touching: npt.NDArray[np.bool_]) -> None:
        """Reach, push and withdraw; rounds of correction make the skinned hand touch the box and pierce nothing."""
        near = np.where(
            self.time < _LEAVE_START,
            _ease(self.time / _REACH_END),
            1.0 - _ease((self.time - _LEAVE_START) / (1.0 - _LEAVE_START)),
        )
        arm = self.arm
        wrist = self._wrist_path(near)
        goals = (arm.orientation(_REST_GRIP), _turn(self.plan.box_yaw) @ arm.orientation(self.grip))
        rest_fingers, grip_fingers = arm.fingers(_REST_GRIP), arm.fingers(self.grip)
        for round_number in range(_CORRECTIONS + 1):
            for frame, share in enumerate(near):
                pose = self.motion.pose[frame]
                early = min(1.0, 1.6 * float(share))
                arm.place_wrist(pose, self.motion.translation[frame], wrist[frame], _between(*goals, early))
                fingers = early * grip_fingers + (1.0 - early) * rest_fingers
                pose[arm.first_finger : arm.first_finger + FINGER_JOINTS] = fingers
            if round_number < _CORRECTIONS:
                points = self.body.skin(self.motion, arm.vertex_ids).vertices
                wrist += np.stack([self._correction(*state) for state in zip(points, self.box, touching, strict=True)])

    def _wrist_path(self, near: Floats) -> Floats:
        """First guess of the wrist's path [T,3]: from the lap along a curve that ends in the direction of the push."""
        plan = self.plan
        rest = np.array([self.arm.side * 0.27, plan.table_height + 0.11, plan.table_front - 0.06])
        hand_length = 0.12
        fingers = _turn(plan.box_yaw) @ self.arm.orientation(self.grip)[:, 0] * self.arm.side
        offset = -plan.direction * (self.half_along + 0.03) - fingers * hand_length
        offset[1] = plan.box_size[1] / 2 + 0.05 if self.over_the_top else 0.0
        contact = self.box + offset
        via = contact + (_UP * 0.16 if self.over_the_top else -plan.direction * 0.14)
        share = near[:, None]
        result: Floats = (1 - share) ** 2 * rest + 2 * share * (1 - share) * via + share**2 * contact
        return result

    def _correction(self, points: npt.NDArray[np.float32], box: Floats, touching: bool) -> Floats:
        """Shift [3] of the wrist in one frame: onto the box while touching, out of it always."""
        plan = self.plan
        offset = points - box
        along, across, height = offset @ plan.direction, offset @ self.across, offset[:, 1]
        top = plan.box_size[1] / 2
        shift = np.zeros(3)

        beside = np.abs(across) < self.half_across
        if self.over_the_top:
            above = beside & (np.abs(along) < self.half_along - 0.012) & (height < top + _CLEARANCE_M)
            if above.any():
                shift += _UP * (top + _CLEARANCE_M - float(height[above].min()))
        facing = beside & (height < top - 0.002) & (along < 0.3 * self.half_along)
        facing[self.arm.num_hand_vertices :] &= not self.over_the_top
        if facing.any():
            depth = float(along[facing].max()) + self.half_along + _TOUCH_GAP_M
            if touching or depth > 0:
                shift -= plan.direction * depth
        return shift


def _between(first: Floats, second: Floats, share: float) -> Floats:
    """Rotation [3,3] a share of the way from one to another."""
    result: Floats = first @ matrix_from_axis_angle(axis_angle_from_matrix(first.T @ second) * share)
    return result


def _turn(yaw: float) -> Floats:
    return matrix_from_axis_angle([0.0, yaw, 0.0])


def _ease(share: Floats) -> Floats:
    """0 before 0, 1 after 1, smooth between."""
    clipped = np.clip(share, 0.0, 1.0)
    result: Floats = clipped**3 * (clipped * (6.0 * clipped - 15.0) + 10.0)
    return result
