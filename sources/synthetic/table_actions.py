"""What a seated person does to the things on the table."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import numpy as np

from render.rotations import Floats, matrix_from_axis_angle
from sources.synthetic.arm import Grip
from sources.synthetic.grasp import GripStyle, HandShape, Hold
from sources.synthetic.props import Prop
from sources.synthetic.staging import (
    Deed,
    Stage,
    hand_side,
    poses_from,
    shifted,
    turn_about_vertical,
)


class PushDirection(StrEnum):
    """Where the carton goes, seen by the person."""

    LEFT = "left"
    RIGHT = "right"
    AWAY = "away"
    CLOSER = "closer"


_PUSH_DIRECTIONS = {
    PushDirection.LEFT: np.array([1.0, 0.0, 0.0]),
    PushDirection.RIGHT: np.array([-1.0, 0.0, 0.0]),
    PushDirection.AWAY: np.array([0.0, 0.0, 1.0]),
    PushDirection.CLOSER: np.array([0.0, 0.0, -1.0]),
}
_PUSH_WORDS = {
    PushDirection.LEFT: "push the {} to the left",
    PushDirection.RIGHT: "push the {} to the right",
    PushDirection.AWAY: "push the {} away",
    PushDirection.CLOSER: "pull the {} closer",
}

_SIDE_SHAPE = HandShape(0.12, 0.16, 0.12, across=0.4, thumb_root=-0.1, thumb_bend=0.1)
_PALM_SHAPE = HandShape(0.10, 0.20, 0.15, across=0.2, thumb_bend=0.1)
_HOOKED_SHAPE = HandShape(1.2, 0.28, 0.2, across=0.3, thumb_bend=0.2)
_TOUCH_SHAPE = HandShape(0.28, 0.18, 0.12, across=0.0, thumb_bend=0.1, spread=0.05)
_WRAP = GripStyle(
    HandShape(0.15, 0.25, 0.15, 0.9, -0.4, 0.0, 0.05), HandShape(1.1, 1.5, 0.9, 1.2, 0.5, 0.6), (0.10, 0.06, 0.01)
)
_PINCH = GripStyle(HandShape(0.45, 0.35, 0.2, 0.45, -0.35, 0.0, 0.05), HandShape(1.2, 0.9, 0.5, 1.0, 0.5, 0.6))
_PINCH_KNOB = GripStyle(
    HandShape(0.65, 0.5, 0.3, 0.6, -0.1, 0.1, 0.0, 0.3), HandShape(1.3, 1.1, 0.6, 1.1, 0.6, 0.7, 0.0, 0.3)
)
_PALM_THICKNESS_M = 0.024


def push(stage: Stage, way: PushDirection) -> Deed:
    """Push the carton to a side or away with the palm, or pull it closer with hooked fingers."""
    carton, direction = stage.household.carton, _PUSH_DIRECTIONS[way]
    right = {PushDirection.LEFT: True, PushDirection.RIGHT: False}.get(way, stage.chance(0.6))
    side, (planned, distance) = hand_side(right), stage.motion(0.14, 0.22)
    across = float(-0.5 * planned * direction[0])
    ahead = {PushDirection.AWAY: 0.43, PushDirection.CLOSER: 0.57}.get(way, 0.49)
    start = [
        across + side * 0.04 + stage.uniform(-0.02, 0.02),
        stage.table_height,
        ahead + stage.uniform(-0.015, 0.015),
    ]
    yaw = stage.uniform(-0.14, 0.14)
    timeline = stage.timeline(grip=3)
    yawed = turn_about_vertical(yaw)
    poses = poses_from(yawed, np.array(start) + timeline.travel[:, None] * (yawed @ direction) * distance)
    hold, leave = _push_hold(stage, way, carton, right=right)
    words = _PUSH_WORDS[way].format(carton.label)
    return Deed(
        thing=carton, poses=poses, carrier=poses, timeline=timeline, right=right, hold=hold, leave=leave, words=words
    )


def _push_hold(stage: Stage, way: PushDirection, carton: Prop, *, right: bool) -> tuple[Hold, Floats]:
    """The hand against a side of the carton, or hooked over its top; and how it leaves."""
    fitter = stage.fitter(right=right)
    direction = _PUSH_DIRECTIONS[way]
    half = carton.size / 2
    height = float(carton.size[1])
    if way is PushDirection.CLOSER:
        style = GripStyle(_HOOKED_SHAPE, _HOOKED_SHAPE, (0.115, _PALM_THICKNESS_M + 0.006, 0.0))
        grip, target = Grip((-0.1, -0.05, 1.0), (0.0, -1.0, 0.0)), [0.0, height, half[2] - 0.02]
    elif way is PushDirection.AWAY:
        style = GripStyle(_PALM_SHAPE, _PALM_SHAPE, (0.09, 0.03, 0.0))
        grip, target = (
            Grip((-0.12, 0.62, 0.75), (0.0, -0.75, 0.62)),
            [0.0, max(0.115, height - 0.02), -half[2]],
        )
    else:
        style = GripStyle(_SIDE_SHAPE, _SIDE_SHAPE, (0.12, 0.03, 0.0))
        grip = Grip((-0.30, 0.12, 1.0), (-1.0, -0.05, 0.0))
        target = [-direction[0] * half[0], max(0.06, 0.5 * height), 0.0]
    rotation = fitter.arm.orientation(grip)
    hold = fitter.fit(style, np.array(target), carton.solids, rotation=rotation, press=direction, close=False)
    if way is PushDirection.CLOSER:
        return replace(hold, approach=np.array([0.0, -1.0, 0.0])), np.array([0.0, 1.0, 0.5])
    return hold, -direction


def touch(stage: Stage) -> Deed:
    """Lay the fingertips on the lid of the carton for a moment."""
    thing = stage.household.carton
    right = stage.chance(0.6)
    fitter = stage.fitter(right=right)
    timeline = stage.timeline(grip=3, carry=22)
    place = [hand_side(right) * 0.08, stage.table_height, stage.uniform(0.47, 0.52)]
    poses = poses_from(turn_about_vertical(stage.uniform(-0.3, 0.3)), np.tile(place, (timeline.num_frames, 1)))
    rotation = poses[0, :3, :3].T @ fitter.arm.orientation(Grip((-0.2, -0.35, 1.0), (0.0, -1.0, -0.3)))
    style = GripStyle(_TOUCH_SHAPE, _TOUCH_SHAPE, (0.16, 0.03, 0.02))
    down = np.array([0.0, -1.0, 0.0])
    hold = fitter.fit(style, thing.size * [0, 1, 0], thing.solids, rotation=rotation, press=down, close=False)
    return Deed(
        thing=thing,
        poses=poses,
        carrier=poses,
        timeline=timeline,
        right=right,
        hold=hold,
        leave=-down,
        words=f"touch the {thing.label}",
    )


def lift_and_place(stage: Stage) -> Deed:
    """Take the mug, can or bottle from the side, lift it over and put it down."""
    thing = stage.household.drink
    right = stage.chance(0.6)
    side = hand_side(right)
    fitter = stage.fitter(right=right)
    timeline = stage.timeline()
    start = np.array([side * stage.uniform(0.13, 0.18), stage.table_height, stage.uniform(0.45, 0.49)])
    end = np.array([side * stage.uniform(-0.07, -0.02), stage.table_height, stage.uniform(0.50, 0.56)])
    if stage.chance(0.4):
        start, end = end, start
    share = timeline.travel[:, None]
    path = start + share * (end - start)
    path[:, 1] += stage.motion(0.09, 0.13)[1] * (16 * (share * (1 - share)) ** 2)[:, 0]
    yaw = (0.0 if right else np.pi) + timeline.travel * side * -stage.uniform(0.1, 0.3)
    poses = poses_from(turn_about_vertical(yaw), path)
    pointing, palm = (-0.45, -0.08, 1.0), (-1.0, -0.05, -0.35)
    rotation = poses[0, :3, :3].T @ fitter.arm.orientation(Grip(pointing, palm))
    style = replace(_WRAP, centre=(0.10, float(thing.size[0]) / 2 + _PALM_THICKNESS_M, 0.012))
    hold = fitter.fit(style, thing.handle, thing.solids, rotation=rotation)
    approach = poses[0, :3, :3].T @ (np.add(pointing, np.multiply(palm, 0.4)) * [side, 1, 1])
    approach /= np.linalg.norm(approach)
    hold = replace(hold, approach=approach)
    words = f"pick up the {thing.label} and put it down"
    return Deed(
        thing=thing, poses=poses, carrier=poses, timeline=timeline, right=right, hold=hold, leave=-approach, words=words
    )


def turn_around(stage: Stage) -> Deed:
    """Turn the tin about the vertical with a grip from above."""
    thing = stage.household.tin
    right = stage.chance(0.6)
    side = hand_side(right)
    fitter = stage.fitter(right=right)
    timeline = stage.timeline()
    planned, angle = stage.motion(1.1, 1.45)
    sense = 1.0 if stage.chance(0.5) else -1.0
    place = [side * stage.uniform(0.04, 0.10), stage.table_height, stage.uniform(0.46, 0.52)]
    yaw = sense * (angle * timeline.travel - 0.5 * planned)
    poses = poses_from(turn_about_vertical(yaw), np.tile(place, (timeline.num_frames, 1)))
    # The grip lies across two faces of the tin, turned as the tin is.
    rotation = fitter.pinch_rotation(_PINCH, (0.0, 0.0, 1.0), (0.0, -0.9, 0.45))
    hold = fitter.fit(_PINCH, thing.handle, thing.solids, rotation=rotation)
    hold = replace(hold, approach=np.array([0.0, -1.0, 0.0]))
    words = f"turn the {thing.label} around"
    return Deed(
        thing=thing,
        poses=poses,
        carrier=poses,
        timeline=timeline,
        right=right,
        hold=hold,
        leave=np.array([0.0, 1.0, 0.0]),
        words=words,
    )


def open_lid(stage: Stage) -> Deed:
    """Open the hinged lid of the box by its knob."""
    box, lid = stage.household.box, stage.household.lid
    right = stage.chance(0.6)
    side = hand_side(right)
    fitter = stage.fitter(right=right)
    timeline = stage.timeline()
    place = np.array([side * stage.uniform(0.03, 0.08), stage.table_height, stage.uniform(0.46, 0.50)])
    angle = stage.motion(1.0, 1.2)[1] * timeline.travel
    hinge = place + np.array([0.0, box.size[1], box.size[2] / 2])
    poses = poses_from(matrix_from_axis_angle(np.outer(angle, [1.0, 0.0, 0.0])), np.tile(hinge, (len(angle), 1)))
    knob = hinge + poses[:, :3, :3] @ lid.handle
    # Thumb and fingers hold the knob from both sides: it turns between them while the hand tilts the other way.
    carrier = poses_from(matrix_from_axis_angle(np.outer(angle * -0.1, [1.0, 0.0, 0.0])), knob)
    rotation = fitter.pinch_rotation(_PINCH_KNOB, (side, 0.0, 0.15), (0.0, -0.8, 0.6))
    hold = fitter.fit(_PINCH_KNOB, lid.handle, lid.solids, rotation=rotation)
    hold = replace(
        hold, thing_from_wrist=shifted(hold.thing_from_wrist, -lid.handle), approach=np.array([0.0, -0.9, 0.4])
    )
    words = f"open the {lid.label}"
    box_poses = poses_from(np.eye(3), np.tile(place, (timeline.num_frames, 1)))
    return Deed(
        thing=lid,
        poses=poses,
        carrier=carrier,
        timeline=timeline,
        right=right,
        hold=hold,
        leave=np.array([0.0, 0.5, -0.8]),
        words=words,
        others={box.name: box_poses},
    )
