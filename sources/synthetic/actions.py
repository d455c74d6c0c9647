"""What a person does in a household: for each action the thing's track, the grip, and the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from render.body import BodyModel
from render.rotations import Floats, matrix_from_axis_angle
from sources.synthetic.arm import Arm, Grip
from sources.synthetic.grasp import GripStyle, HandFitter, HandShape, Hold
from sources.synthetic.household import Household
from sources.synthetic.performance import Script
from sources.synthetic.posture import Posture
from sources.synthetic.props import Prop
from sources.synthetic.timing import Timeline

NUM_FRAMES = 150
"""Source frames of a recording: 5 seconds."""


class Action(StrEnum):
    """What is done."""

    PUSH_LEFT = "push_left"
    LIFT_AND_PLACE = "lift_and_place"
    OPEN_DRAWER = "open_drawer"
    PUSH_RIGHT = "push_right"
    TURN = "turn"
    OPEN_DOOR = "open_door"
    PUSH_AWAY = "push_away"
    OPEN_LID = "open_lid"
    CLOSE_DRAWER = "close_drawer"
    PULL = "pull"
    TOUCH = "touch"
    CLOSE_DOOR = "close_door"


_PUSH_DIRECTIONS = {
    Action.PUSH_LEFT: np.array([1.0, 0.0, 0.0]),
    Action.PUSH_RIGHT: np.array([-1.0, 0.0, 0.0]),
    Action.PUSH_AWAY: np.array([0.0, 0.0, 1.0]),
    Action.PULL: np.array([0.0, 0.0, -1.0]),
}
_PUSH_WORDS = {
    Action.PUSH_LEFT: "push the {} to the left",
    Action.PUSH_RIGHT: "push the {} to the right",
    Action.PUSH_AWAY: "push the {} away",
    Action.PULL: "pull the {} closer",
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
_HOOK = GripStyle(
    HandShape(0.45, 0.75, 0.5, -0.1, 0.0, 0.1), HandShape(0.9, 1.5, 0.9, 0.9, 0.4, 0.6), (0.128, 0.04, 0.0)
)
_PALM_THICKNESS_M = 0.021


@dataclass(frozen=True)
class StagedAction:
    """An action as it is staged.

    Attributes:
        place: [4,4] world from the person's place, in whose frame the script and the tracks are.
        script: the motion.
        thing: what is moved or touched.
        tracks: [T,4,4] poses of all movable things in the WORLD, by name.
        text: annotation of the action.
    """

    place: Floats
    script: Script
    thing: Prop
    tracks: dict[str, Floats]
    text: str


class Director:
    """Stages actions in a household.

    Args:
        household: the room.
        body: who acts.
        random: of one recording.
    """

    def __init__(self, household: Household, body: BodyModel, random: np.random.Generator) -> None:
        self.household, self.body, self.random = household, body, random
        top = household.table
        self.table_height = top.centre[1] + top.size[1] / 2
        self.table_front = top.centre[2] - top.size[2] / 2
        self.table_back = top.centre[2] + top.size[2] / 2

    def stage(self, action: Action) -> StagedAction:
        """Stage one action."""
        stagings = {
            Action.TOUCH: self._touch,
            Action.LIFT_AND_PLACE: self._lift_and_place,
            Action.TURN: self._turn,
            Action.OPEN_LID: self._open_lid,
            Action.OPEN_DRAWER: lambda: self._drawer(opens=True),
            Action.CLOSE_DRAWER: lambda: self._drawer(opens=False),
            Action.OPEN_DOOR: lambda: self._door(opens=True),
            Action.CLOSE_DOOR: lambda: self._door(opens=False),
        }
        return stagings[action]() if action in stagings else self._push(action)

    def _push(self, action: Action) -> StagedAction:
        carton, direction = self.household.carton, _PUSH_DIRECTIONS[action]
        right = {Action.PUSH_LEFT: True, Action.PUSH_RIGHT: False}.get(action, self._chance(0.6))
        side, distance = _side(right), self._uniform(0.14, 0.22)
        across = float(-0.5 * distance * direction[0])
        ahead = {Action.PUSH_AWAY: 0.43, Action.PULL: 0.57}.get(action, 0.49)
        start = [
            across + side * 0.04 + self._uniform(-0.02, 0.02),
            self.table_height,
            ahead + self._uniform(-0.015, 0.015),
        ]
        yaw = self._uniform(-0.14, 0.14)
        timeline = self._timeline(grip=3)
        turn = _turn(yaw)
        poses = _moved(turn, np.array(start) + timeline.travel[:, None] * (turn @ direction) * distance)
        hold, leave = self._push_hold(action, right, carton)
        words = _PUSH_WORDS[action].format(carton.label)
        return self._at_table(carton, poses, poses, timeline, right, hold, leave, words)

    def _push_hold(self, action: Action, right: bool, carton: Prop) -> tuple[Hold, Floats]:
        """The hand against a side of the carton, or hooked over its top; and how it leaves."""
        fitter = HandFitter(self.body, Arm.of(self.body, right=right))
        direction = _PUSH_DIRECTIONS[action]
        half = carton.size / 2
        height = float(carton.size[1])
        if action is Action.PULL:
            style = GripStyle(_HOOKED_SHAPE, _HOOKED_SHAPE, (0.115, _PALM_THICKNESS_M + 0.006, 0.0))
            grip, target = Grip((-0.1, -0.05, 1.0), (0.0, -1.0, 0.0), 0, 0, 0), [0.0, height, half[2] - 0.02]
        elif action is Action.PUSH_AWAY:
            style = GripStyle(_PALM_SHAPE, _PALM_SHAPE, (0.09, 0.03, 0.0))
            grip, target = (
                Grip((-0.12, 0.62, 0.75), (0.0, -0.75, 0.62), 0, 0, 0),
                [0.0, max(0.115, height - 0.02), -half[2]],
            )
        else:
            style = GripStyle(_SIDE_SHAPE, _SIDE_SHAPE, (0.12, 0.03, 0.0))
            grip = Grip((-0.30, 0.12, 1.0), (-1.0, -0.05, 0.0), 0, 0, 0)
            target = [-direction[0] * half[0], max(0.06, 0.5 * height), 0.0]
        rotation = fitter.arm.orientation(grip)
        hold = fitter.fit(style, np.array(target), carton.solids, rotation=rotation, press=direction, close=False)
        if action is Action.PULL:
            return replace(hold, approach=np.array([0.0, -1.0, 0.0])), np.array([0.0, 1.0, 0.2])
        return hold, -direction

    def _touch(self) -> StagedAction:
        thing = self.household.carton
        right = self._chance(0.6)
        fitter = HandFitter(self.body, Arm.of(self.body, right=right))
        timeline = self._timeline(grip=3, carry=22)
        place = [_side(right) * 0.08, self.table_height, self._uniform(0.47, 0.52)]
        poses = _moved(_turn(self._uniform(-0.3, 0.3)), np.tile(place, (timeline.num_frames, 1)))
        rotation = poses[0, :3, :3].T @ fitter.arm.orientation(Grip((-0.2, -0.35, 1.0), (0.0, -1.0, -0.3), 0, 0, 0))
        style = GripStyle(_TOUCH_SHAPE, _TOUCH_SHAPE, (0.16, 0.03, 0.02))
        down = np.array([0.0, -1.0, 0.0])
        hold = fitter.fit(style, thing.size * [0, 1, 0], thing.solids, rotation=rotation, press=down, close=False)
        return self._at_table(thing, poses, poses, timeline, right, hold, -down, f"touch the {thing.label}")

    def _lift_and_place(self) -> StagedAction:
        thing = self.household.drink
        right = self._chance(0.6)
        side = _side(right)
        fitter = HandFitter(self.body, Arm.of(self.body, right=right))
        timeline = self._timeline()
        start = np.array([side * self._uniform(0.13, 0.18), self.table_height, self._uniform(0.42, 0.46)])
        end = np.array([side * self._uniform(-0.07, -0.02), self.table_height, self._uniform(0.50, 0.56)])
        if self._chance(0.4):
            start, end = end, start
        share = timeline.travel[:, None]
        path = start + share * (end - start)
        path[:, 1] += self._uniform(0.09, 0.13) * (16 * (share * (1 - share)) ** 2)[:, 0]
        yaw = (0.0 if right else np.pi) + timeline.travel * side * -self._uniform(0.1, 0.3)
        poses = _moved(_turn(yaw), path)
        pointing, palm = (-0.45, -0.08, 1.0), (-1.0, -0.05, -0.35)
        rotation = poses[0, :3, :3].T @ fitter.arm.orientation(Grip(pointing, palm, 0, 0, 0))
        style = replace(_WRAP, centre=(0.10, float(thing.size[0]) / 2 + _PALM_THICKNESS_M, 0.012))
        hold = fitter.fit(style, thing.handle, thing.solids, rotation=rotation)
        approach = poses[0, :3, :3].T @ (np.add(pointing, np.multiply(palm, 0.4)) * [side, 1, 1])
        approach /= np.linalg.norm(approach)
        hold = replace(hold, approach=approach)
        words = f"pick up the {thing.label} and put it down"
        return self._at_table(thing, poses, poses, timeline, right, hold, -approach, words)

    def _turn(self) -> StagedAction:
        thing = self.household.tin
        right = self._chance(0.6)
        side = _side(right)
        fitter = HandFitter(self.body, Arm.of(self.body, right=right))
        timeline = self._timeline()
        angle = self._uniform(1.1, 1.45) * (1.0 if self._chance(0.5) else -1.0)
        place = [side * self._uniform(0.04, 0.10), self.table_height, self._uniform(0.46, 0.52)]
        yaw = angle * (timeline.travel - 0.5)
        poses = _moved(_turn(yaw), np.tile(place, (timeline.num_frames, 1)))
        # The grip lies across two faces of the tin, turned as the tin is.
        rotation = fitter.pinch_rotation(_PINCH, (0.0, 0.0, 1.0), (0.0, -0.9, 0.45))
        hold = fitter.fit(_PINCH, thing.handle, thing.solids, rotation=rotation)
        hold = replace(hold, approach=np.array([0.0, -1.0, 0.0]))
        words = f"turn the {thing.label} around"
        return self._at_table(thing, poses, poses, timeline, right, hold, np.array([0.0, 1.0, 0.0]), words)

    def _open_lid(self) -> StagedAction:
        box, lid = self.household.box, self.household.lid
        right = self._chance(0.6)
        side = _side(right)
        fitter = HandFitter(self.body, Arm.of(self.body, right=right))
        timeline = self._timeline()
        place = np.array([side * self._uniform(0.03, 0.08), self.table_height, self._uniform(0.46, 0.50)])
        angle = self._uniform(1.15, 1.4) * timeline.travel
        hinge = place + [0.0, box.size[1], box.size[2] / 2]
        poses = _moved(matrix_from_axis_angle(np.outer(angle, [1.0, 0.0, 0.0])), np.tile(hinge, (len(angle), 1)))
        knob = hinge + poses[:, :3, :3] @ lid.handle
        # The fingers roll on the round knob: the hand turns less than the lid.
        carrier = _moved(matrix_from_axis_angle(np.outer(angle * 0.45, [1.0, 0.0, 0.0])), knob)
        rotation = fitter.pinch_rotation(_PINCH_KNOB, (side * 0.35, 0.0, 1.0), (0.0, -0.9, 0.4))
        hold = fitter.fit(_PINCH_KNOB, lid.handle, lid.solids, rotation=rotation)
        hold = replace(
            hold, thing_from_wrist=_shifted(hold.thing_from_wrist, -lid.handle), approach=np.array([0.0, -0.9, 0.4])
        )
        words = f"open the {lid.label}"
        box_poses = _moved(np.eye(3), np.tile(place, (timeline.num_frames, 1)))
        return self._at_table(
            lid, poses, carrier, timeline, right, hold, np.array([0.0, 0.5, -0.8]), words, {box.name: box_poses}
        )

    def _drawer(self, *, opens: bool) -> StagedAction:
        house = self.household
        drawer = house.drawers[int(self.random.integers(len(house.drawers)))]
        right = self._chance(0.6)
        fitter = HandFitter(self.body, Arm.of(self.body, right=right))
        timeline = self._timeline()
        way = self._uniform(0.20, 0.24)
        out = way * (timeline.travel if opens else 1 - timeline.travel)
        closed = house.closed[drawer.name]
        poses = _moved(np.eye(3), closed[:3, 3] - np.outer(out, [0.0, 0.0, 1.0]))
        rotation = fitter.arm.orientation(Grip((-0.05, -0.45, 0.9), (0.0, -0.9, -0.45), 0, 0, 0))
        hold = fitter.fit(_HOOK, drawer.handle + [0.0, 0.004, 0.006], drawer.solids, rotation=rotation)
        hold = replace(hold, approach=np.array([0.0, -0.8, 0.6]))
        words = f"{'open' if opens else 'close'} the {drawer.label}"
        return self._standing(
            house.at_chest, drawer, poses, poses, timeline, right, hold, np.array([0.0, 0.8, -0.6]), words
        )

    def _door(self, *, opens: bool) -> StagedAction:
        house, door = self.household, self.household.door
        reach_side = house.door_side
        right = reach_side > 0  # the hinge is on the side of the hand, so that the door opens away from it
        fitter = HandFitter(self.body, Arm.of(self.body, right=right))
        timeline = self._timeline()
        angle = reach_side * self._uniform(1.05, 1.25) * (timeline.travel if opens else 1 - timeline.travel)
        hinge = house.closed[door.name][:3, 3]
        poses = _moved(_turn(angle), np.tile(hinge, (len(angle), 1)))
        bar = hinge + poses[:, :3, :3] @ door.handle
        carrier = _moved(_turn(angle * 0.7), bar)
        upright = matrix_from_axis_angle([0.0, 0.0, -_side(right) * np.pi / 2])
        rotation = upright @ fitter.arm.orientation(Grip((0.0, -0.45, 0.9), (0.0, -0.9, -0.45), 0, 0, 0))
        target = door.handle + [_side(right) * 0.004, 0.0, 0.006]
        hold = fitter.fit(_HOOK, target, door.solids, rotation=rotation)
        hold = replace(
            hold, thing_from_wrist=_shifted(hold.thing_from_wrist, -door.handle), approach=np.array([0.0, 0.0, 1.0])
        )
        words = f"{'open' if opens else 'close'} the {door.label}"
        return self._standing(
            house.at_cupboard, door, poses, carrier, timeline, right, hold, np.array([0.0, 0.0, -1.0]), words
        )

    def _at_table(
        self,
        thing: Prop,
        poses: Floats,
        carrier: Floats,
        timeline: Timeline,
        right: bool,
        hold: Hold,
        leave: Floats,
        words: str,
        others: dict[str, Floats] | None = None,
    ) -> StagedAction:
        rest_gaze = np.array([0.0, self.table_height, 0.72])
        script = Script(
            posture=Posture.SEATED,
            right=right,
            timeline=timeline,
            carrier=carrier,
            hold=hold,
            focus=carrier[:, :3, 3] + [0.0, 0.04, 0.05],
            leave=leave,
            table=self.household.table,
            rest_gaze=rest_gaze,
            base_lean=self._uniform(0.12, 0.2),
            phases=self.random.uniform(0, 2 * np.pi, 8),
        )
        local = {thing.name: poses, **(others or {})}
        return StagedAction(
            self.household.seat, script, thing, self._all_tracks(local, self.household.seat), _sentence(words, right)
        )

    def _standing(
        self,
        place: Floats,
        thing: Prop,
        poses: Floats,
        carrier: Floats,
        timeline: Timeline,
        right: bool,
        hold: Hold,
        leave: Floats,
        words: str,
    ) -> StagedAction:
        handle = (carrier @ hold.thing_from_wrist)[timeline.touch, :3, 3]
        script = Script(
            posture=Posture.STANDING,
            right=right,
            timeline=timeline,
            carrier=carrier,
            hold=hold,
            focus=(poses @ np.append(thing.handle, 1.0))[:, :3],
            leave=leave,
            table=None,
            rest_gaze=handle + [0.0, 0.12, 0.35],
            base_lean=self._uniform(0.05, 0.12),
            phases=self.random.uniform(0, 2 * np.pi, 8),
            pelvis_x=-_side(right) * 0.10,
        )
        return StagedAction(place, script, thing, self._all_tracks({thing.name: poses}, place), _sentence(words, right))

    def _all_tracks(self, local: dict[str, Floats], place: Floats) -> dict[str, Floats]:
        """Poses [T,4,4] of every movable thing in the world: the moved ones, all others at rest."""
        house = self.household
        frames = len(next(iter(local.values())))
        tracks = {name: place @ poses for name, poses in local.items()}
        for name, pose in house.closed.items():
            where = house.at_cupboard if name == house.door.name else house.at_chest
            tracks.setdefault(name, np.tile(where @ pose, (frames, 1, 1)))
        slots = self.random.permutation([-0.48, -0.17, 0.14, 0.46])
        for slot, prop in zip(slots, (house.carton, house.drink, house.tin, house.box), strict=True):
            pose = np.eye(4)
            pose[:3, 3] = (slot + self._uniform(-0.02, 0.02), self.table_height, self.table_back - 0.105)
            pose[:3, :3] = _turn(self._uniform(-0.15, 0.15))
            tracks.setdefault(prop.name, np.tile(house.seat @ pose, (frames, 1, 1)))
        on_box = np.eye(4)
        on_box[:3, 3] = (0.0, house.box.size[1], house.box.size[2] / 2)
        tracks.setdefault(house.lid.name, tracks[house.box.name] @ on_box)
        return {prop.name: tracks[prop.name] for prop in house.props}

    def _timeline(self, grip: int = 8, carry: int | None = None) -> Timeline:
        reach = int(self.random.integers(5, 11))
        touch = reach + int(self.random.integers(24, 29))
        moved = touch + grip + (carry or int(self.random.integers(34, 40)))
        released = moved + max(grip - 1, 2)
        return Timeline(
            reach, touch, touch + grip, moved, released, released + int(self.random.integers(24, 30)), NUM_FRAMES
        )

    def _chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def _uniform(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))


def _sentence(words: str, right: bool) -> str:
    return f"{words[0].upper()}{words[1:]} with the {'right' if right else 'left'} hand"


def _side(right: bool) -> float:
    return -1.0 if right else 1.0


def _turn(yaw: float | Floats) -> Floats:
    """Rotation [...,3,3] about the vertical."""
    return matrix_from_axis_angle(np.multiply.outer(np.asarray(yaw), np.array([0.0, 1.0, 0.0])))


def _moved(rotations: Floats, places: Floats | Sequence[Sequence[float]]) -> Floats:
    """Poses [T,4,4] from rotations [3,3] or [T,3,3] and places [T,3]."""
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    poses[:, :3, :3] = rotations
    poses[:, :3, 3] = places
    return poses


def _shifted(pose: Floats, offset: Floats) -> Floats:
    result = pose.copy()
    result[:3, 3] += offset
    return result
