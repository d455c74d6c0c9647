"""The actions of generated recordings: staged in a household, with the tracks of everything movable and the words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from render.body import BodyModel
from render.rotations import Floats
from sources.synthetic.furniture_actions import move_door, move_drawer
from sources.synthetic.household import Household
from sources.synthetic.performance import Script
from sources.synthetic.posture import Posture
from sources.synthetic.props import Prop
from sources.synthetic.routes import find_route, footprint_of, furniture_footprints
from sources.synthetic.staging import Deed, Stage, hand_side, turn_about_vertical
from sources.synthetic.table_actions import PushDirection, lift_and_place, open_lid, push, touch, turn_around
from sources.synthetic.walking import WALK_FRAMES, Walk, plan_walk

_PARKING_M = (-0.48, -0.17, 0.14, 0.46)
"""Where table things stand along the table's far edge while they are not used."""


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


@dataclass(frozen=True)
class StagedAction:
    """An action as it is staged.

    Attributes:
        action: what is done.
        place: [4,4] world from the person's place, in whose frame the script is.
        script: the motion.
        thing: what is moved or touched.
        tracks: [T,4,4] poses of all movable things in the world, by name.
        text: annotation of the action.
        walk_text: annotation of the walk that comes first, if any.
    """

    action: Action
    place: Floats
    script: Script
    thing: Prop
    tracks: dict[str, Floats]
    text: str
    walk_text: str | None


def stage_action(
    action: Action,
    household: Household,
    body: BodyModel,
    random: np.random.Generator,
    variation: np.random.Generator | None = None,
) -> StagedAction:
    """Stage one action in a household: seated at the table, or standing after a walk to the furniture.

    Args:
        action: what is done.
        household: where.
        body: who does it.
        random: chance of the recording.
        variation: chance of another motion in the same scene, see `Stage`.
    """
    places = {
        Action.OPEN_DRAWER: household.at_chest,
        Action.CLOSE_DRAWER: household.at_chest,
        Action.OPEN_DOOR: household.at_cupboard,
        Action.CLOSE_DOOR: household.at_cupboard,
    }
    walks = action in places
    stage = Stage(household, body, random, first_frame=WALK_FRAMES if walks else 0, variation=variation)
    deed = _deed(action, stage)
    place = places.get(action, household.seat)
    script = _standing_script(stage, deed, place) if walks else _seated_script(stage, deed)
    hand = "right" if deed.right else "left"
    text = f"{deed.words[0].upper()}{deed.words[1:]} with the {hand} hand"
    # "upper drawer of the oak chest"
    walk_text = f"Walk to the {deed.thing.label.rpartition(' of the ')[2]}" if walks else None
    return StagedAction(action, place, script, deed.thing, _all_tracks(stage, deed, place), text, walk_text)


_PUSHES = {
    Action.PUSH_LEFT: PushDirection.LEFT,
    Action.PUSH_RIGHT: PushDirection.RIGHT,
    Action.PUSH_AWAY: PushDirection.AWAY,
    Action.PULL: PushDirection.CLOSER,
}
_AT_TABLE = {
    Action.TOUCH: touch,
    Action.LIFT_AND_PLACE: lift_and_place,
    Action.TURN: turn_around,
    Action.OPEN_LID: open_lid,
}


def _deed(action: Action, stage: Stage) -> Deed:
    if action in _PUSHES:
        return push(stage, _PUSHES[action])
    if action in _AT_TABLE:
        return _AT_TABLE[action](stage)
    if action in {Action.OPEN_DRAWER, Action.CLOSE_DRAWER}:
        return move_drawer(stage, opens=action is Action.OPEN_DRAWER)
    return move_door(stage, opens=action is Action.OPEN_DOOR)


def _seated_script(stage: Stage, deed: Deed) -> Script:
    return Script(
        posture=Posture.SEATED,
        right=deed.right,
        timeline=deed.timeline,
        carrier=deed.carrier,
        thing_poses=deed.poses,
        solids=deed.thing.solids,
        hold=deed.hold,
        focus=deed.carrier[:, :3, 3] + np.array([0.0, 0.04, 0.05]),
        leave=deed.leave,
        table=stage.household.table,
        rest_gaze=np.array([0.0, stage.table_height, 0.72]),
        base_lean=stage.uniform(0.12, 0.2),
        phases=stage.random.uniform(0, 2 * np.pi, 8),
    )


def _standing_script(stage: Stage, deed: Deed, place: Floats) -> Script:
    wrist = (deed.carrier @ deed.hold.thing_from_wrist)[deed.timeline.touch, :3, 3]
    pelvis_x = -hand_side(deed.right) * 0.10
    handle = (deed.poses @ np.append(deed.thing.handle, 1.0))[:, :3]
    return Script(
        posture=Posture.STANDING,
        right=deed.right,
        timeline=deed.timeline,
        carrier=deed.carrier,
        thing_poses=deed.poses,
        solids=deed.thing.solids,
        hold=deed.hold,
        focus=handle + np.array([0.0, 0.03, 0.08]),
        leave=deed.leave,
        table=None,
        rest_gaze=wrist + np.array([0.0, 0.20, 0.38]),
        base_lean=stage.uniform(0.05, 0.12),
        phases=stage.random.uniform(0, 2 * np.pi, 8),
        pelvis_x=pelvis_x,
        walk=_walk(stage, deed, place, pelvis_x),
    )


def _walk(stage: Stage, deed: Deed, place: Floats, pelvis_x: float) -> Walk:
    """The walk to a place, around the furniture and the thing as it stands at first."""
    movable = footprint_of(deed.thing.surfaces, deed.poses[0])
    furniture = furniture_footprints(stage.household, place)
    route = find_route(furniture, [movable] if movable else [], pelvis_x, stage.random)
    return plan_walk(stage.body, route, deed.timeline.num_frames, left_first=stage.chance(0.5))


def _all_tracks(stage: Stage, deed: Deed, place: Floats) -> dict[str, Floats]:
    """Poses [T,4,4] of every movable thing in the world: the deed's, all others at rest."""
    house = stage.household
    frames = deed.timeline.num_frames
    tracks = {name: place @ poses for name, poses in {deed.thing.name: deed.poses, **deed.others}.items()}
    for name, pose in house.closed.items():
        where = house.at_cupboard if name == house.door.name else house.at_chest
        tracks.setdefault(name, np.tile(where @ pose, (frames, 1, 1)))
    slots = stage.random.permutation(_PARKING_M)
    for slot, prop in zip(slots, (house.carton, house.drink, house.tin, house.box), strict=True):
        pose = np.eye(4)
        pose[:3, 3] = (slot + stage.uniform(-0.02, 0.02), stage.table_height, stage.table_back - 0.105)
        pose[:3, :3] = turn_about_vertical(stage.uniform(-0.15, 0.15))
        tracks.setdefault(prop.name, np.tile(house.seat @ pose, (frames, 1, 1)))
    on_box = np.eye(4)
    on_box[:3, 3] = (0.0, house.box.size[1], house.box.size[2] / 2)
    tracks.setdefault(house.lid.name, tracks[house.box.name] @ on_box)
    return {prop.name: tracks[prop.name] for prop in house.props}
