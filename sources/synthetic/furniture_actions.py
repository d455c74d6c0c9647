"""What a standing person does to the chest of drawers and the cupboard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from render.rotations import matrix_from_axis_angle
from sources.synthetic.arm import Grip
from sources.synthetic.grasp import GripStyle, HandShape
from sources.synthetic.staging import Deed, Stage, hand_side, poses_from, shifted, turn_about_vertical

_HOOK = GripStyle(
    HandShape(0.45, 0.75, 0.5, -0.1, 0.0, 0.1), HandShape(0.9, 1.5, 0.9, 0.9, 0.4, 0.6), (0.128, 0.04, 0.0)
)


def move_drawer(stage: Stage, *, opens: bool) -> Deed:
    """Open or close the upper drawer of the chest by its bar."""
    house = stage.household
    drawer = house.drawers[0]
    right = stage.chance(0.6)
    fitter = stage.fitter(right=right)
    timeline = stage.timeline()
    planned, way = stage.motion(0.17, 0.21)
    out = way * timeline.travel if opens else planned - way * timeline.travel
    closed = house.closed[drawer.name]
    poses = poses_from(np.eye(3), closed[:3, 3] - np.outer(out, [0.0, 0.0, 1.0]))
    rotation = fitter.arm.orientation(Grip((-0.05, -0.45, 0.9), (0.0, -0.9, -0.45)))
    hold = fitter.fit(_HOOK, drawer.handle + np.array([0.0, 0.004, 0.006]), drawer.solids, rotation=rotation)
    hold = replace(hold, approach=np.array([0.0, -0.8, 0.6]))
    words = f"{'open' if opens else 'close'} the {drawer.label}"
    return Deed(
        thing=drawer,
        poses=poses,
        carrier=poses,
        timeline=timeline,
        right=right,
        hold=hold,
        leave=np.array([0.0, 0.8, -0.6]),
        words=words,
    )


def move_door(stage: Stage, *, opens: bool) -> Deed:
    """Open or close the door of the cupboard by its bar."""
    house, door = stage.household, stage.household.door
    reach_side = house.door_side
    right = reach_side > 0  # the hinge is on the side of the hand, so that the door opens away from it
    fitter = stage.fitter(right=right)
    timeline = stage.timeline()
    planned, way = stage.motion(0.85, 1.05)
    angle = reach_side * (way * timeline.travel if opens else planned - way * timeline.travel)
    hinge = house.closed[door.name][:3, 3]
    poses = poses_from(turn_about_vertical(angle), np.tile(hinge, (len(angle), 1)))
    bar = hinge + poses[:, :3, :3] @ door.handle
    carrier = poses_from(turn_about_vertical(angle * 0.7), bar)
    upright = matrix_from_axis_angle([0.0, 0.0, -hand_side(right) * np.pi / 2])
    rotation = upright @ fitter.arm.orientation(Grip((0.0, -0.45, 0.9), (0.0, -0.9, -0.45)))
    target = door.handle + np.array([hand_side(right) * 0.004, 0.0, 0.006])
    hold = fitter.fit(_HOOK, target, door.solids, rotation=rotation)
    hold = replace(
        hold, thing_from_wrist=shifted(hold.thing_from_wrist, -door.handle), approach=np.array([0.0, 0.0, 1.0])
    )
    words = f"{'open' if opens else 'close'} the {door.label}"
    return Deed(
        thing=door,
        poses=poses,
        carrier=carrier,
        timeline=timeline,
        right=right,
        hold=hold,
        leave=np.array([0.0, 0.0, -1.0]),
        words=words,
    )
