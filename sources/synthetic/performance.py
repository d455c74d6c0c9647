"""From a script (which hand, which thing, when and where to) to the motion of the whole body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from render.body import FINGER_JOINTS, BodyModel, BodyMotion
from render.rotations import Floats
from sources.synthetic.arm import ELBOW_OUT, Arm, Grip
from sources.synthetic.grasp import GripStyle, HandFitter, HandShape, Hold
from sources.synthetic.posture import (
    SEATED_PELVIS_M,
    STANDING_PELVIS_M,
    Posture,
    aim_head,
    joints_of,
    pose_torso,
)
from sources.synthetic.solids import Box, Solid, distance_to
from sources.synthetic.timing import Timeline, between, ease, smoothed
from sources.synthetic.walking import Walk, walk_legs

_UP = np.array([0.0, 1.0, 0.0])
_ELBOW_HANGING = (0.25, -0.2, -0.9)
_PREGRASPS_M = (0.12, 0.18, 0.24, 0.30, 0.38)
_LIFT_M = 0.08
_CLEARANCE_M = 0.0
_STRETCH = 0.94
"""Longest distance from shoulder to wrist, as a share of the straight arm."""

_LEANS = np.linspace(0.0, 0.95, 39)
_RELAXED = HandShape(0.25, 0.35, 0.2, across=0.2, thumb_bend=0.1, spread=0.03)
_FLAT = HandShape(0.10, 0.14, 0.08, across=-0.35, thumb_bend=0.05, spread=0.04)


@dataclass(frozen=True)
class Script:
    """One action of one hand, in the frame of the person's place.

    Attributes:
        posture: seated or standing.
        right: the hand that acts.
        timeline: when.
        carrier: [T,4,4] pose of the thing as the hand holds it (a hinged thing may turn within the hand).
        thing_poses: [T,4,4] pose of the thing itself.
        solids: the thing, for the hand to keep clear of.
        hold: the hand fitted to the thing.
        focus: [T,3] what the person watches.
        leave: [3] direction in the thing's frame in which the hand leaves.
        table: the table's top for a seated person.
        rest_gaze: [3] where the person looks before and after.
        base_lean: forward lean of the resting person, radians.
        phases: [8] phases of the sway of head and torso, radians.
        pelvis_x: where the pelvis is, to the left.
        walk: how a standing person comes to the place.
    """

    posture: Posture
    right: bool
    timeline: Timeline
    carrier: Floats
    thing_poses: Floats
    solids: tuple[Solid, ...]
    hold: Hold
    focus: Floats
    leave: Floats
    table: Box | None
    rest_gaze: Floats
    base_lean: float
    phases: Floats
    pelvis_x: float = 0.0
    walk: Walk | None = None


def perform(body: BodyModel, script: Script) -> BodyMotion:
    """Motion of the body over the script's frames, in the frame of its place."""
    timeline = script.timeline
    fitters = {right: HandFitter(body, Arm.of(body, right=right)) for right in (False, True)}
    rests = {right: _rest_pose(fitter, script) for right, fitter in fitters.items()}
    wrist, turn = _wrist_path(script, rests[script.right][0], fitters[script.right])
    pelvis, twist = _sway(script)
    goal = _needed_lean(body, script, wrist, pelvis, twist)
    lean = _lean(script, goal)
    pose, translation = pose_torso(body, script.posture, pelvis, lean, twist)
    if script.walk is not None:
        walk_legs(body, pose, translation, script.walk)
    aim_head(body, pose, translation, _gaze(script, wrist))

    fingers = _fingers(script, rests[script.right][1])
    for right, fitter in fitters.items():
        rest, rest_fingers = rests[right]
        acts = right == script.right
        rows = slice(fitter.arm.first_finger, fitter.arm.first_finger + FINGER_JOINTS)
        pose[:, rows] = fingers if acts else rest_fingers
        places = wrist if acts else rest[:3, 3] + _drift(script)
        turns = turn if acts else np.broadcast_to(rest[:3, :3], turn.shape)
        outward = _elbows(script, acts=acts)
        if script.walk is not None:
            places, turns = script.walk.swung(fitter.arm.side, places, turns)
            outward = script.walk.turned(outward, side=fitter.arm.side)
        for frame in range(timeline.num_frames):
            fitter.arm.place_wrist(pose[frame], translation[frame], places[frame], turns[frame], outward=outward[frame])
    return BodyMotion(pose, translation, betas=np.zeros(0), expression=np.zeros(0), flat_hand_mean=True)


def _elbows(script: Script, *, acts: bool) -> Floats:
    """Directions [T,3] of a left elbow: behind a hanging arm, aside of one at work."""
    if script.posture is Posture.SEATED:
        return np.tile(ELBOW_OUT, (script.timeline.num_frames, 1))
    share = script.timeline.at_thing[:, None] * float(acts)
    result: Floats = share * np.array(ELBOW_OUT) + (1 - share) * np.array(_ELBOW_HANGING)
    return result


def _drift(script: Script) -> Floats:
    """Offsets [T,3] of the resting hand: a hanging arm moves a little, a hand on the table does not."""
    drift = np.zeros((script.timeline.num_frames, 3))
    if script.posture is Posture.STANDING:
        drift[:, 2] = 0.012 * np.sin(2.1 * script.timeline.frames / 30.0 + script.phases[0])
    return drift


def _rest_pose(fitter: HandFitter, script: Script) -> tuple[Floats, Floats]:
    """Wrist pose [4,4] and fingers [15,3] of a hand that lies on the table or hangs beside the body."""
    arm = fitter.arm
    if script.table is None:
        pose = np.eye(4)
        pose[:3, :3] = arm.orientation(Grip((0.0, -1.0, 0.22), (-1.0, 0.0, 0.1)))
        pose[:3, 3] = (arm.side * 0.27 + script.pelvis_x, 0.86, 0.06)
        return pose, _RELAXED.pose(arm.side)
    front = script.table.centre[2] - script.table.size[2] / 2
    top = script.table.centre[1] + script.table.size[1] / 2
    rotation = arm.orientation(Grip((-0.16, 0.02, 1.0), (-0.05, -1.0, 0.0)))
    style = GripStyle(_FLAT, _FLAT, centre=(0.0, 0.03, 0.0))
    target = np.array([arm.side * 0.29, top, front + 0.0])
    hold = fitter.fit(style, target, [script.table], rotation=rotation, press=-_UP, close=False)
    return hold.thing_from_wrist, hold.closed_fingers


def _wrist_path(script: Script, rest: Floats, fitter: HandFitter) -> tuple[Floats, Floats]:
    """Places [T,3] and rotations [T,3,3] of the acting wrist: rest, reach, hold, return.

    The hand comes and goes along its directions for so long that it keeps clear of the thing.
    """
    timeline = script.timeline
    contact = script.carrier @ script.hold.thing_from_wrist
    places, turns = contact[:, :3, 3].copy(), contact[:, :3, :3].copy()
    hand = fitter.points(script.hold.open_fingers[None])[0]
    for frames, at, direction, share in (
        (
            np.arange(timeline.touch),
            timeline.touch,
            -script.hold.approach,
            timeline.share(timeline.reach, timeline.touch),
        ),
        (
            np.arange(timeline.released + 1, timeline.num_frames),
            timeline.released,
            script.leave,
            1.0 - timeline.share(timeline.released, timeline.home),
        ),
    ):
        state, away = contact[at], script.carrier[at, :3, :3] @ direction
        best = -np.inf
        for length in _PREGRASPS_M:
            path, turn = _curve(rest, state, away * length, share[frames])
            points = np.einsum("tab,nb->tna", turn, hand[::3]) + path[:, None]
            gap = float(distance_to(script.solids, _into(script.thing_poses[at], points)).min())
            if script.table is not None:
                gap = min(gap, float(script.table.distance(points).min()))
            if gap > best + 1e-4:
                best = gap
                places[frames], turns[frames] = path, turn
            if gap > _CLEARANCE_M:
                break
    return places, turns


def _curve(rest: Floats, state: Floats, away: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """Places [n,3] and rotations [n,3,3] between a rest (share 0) and a touch (share 1) that is met from ``away``."""
    share = shares[:, None]
    start, end = rest[:3, 3], state[:3, 3]
    lift, via = start + _UP * _LIFT_M, end + away
    rest_part = (1 - share) ** 3 * start + 3 * share * (1 - share) ** 2 * lift
    places = rest_part + 3 * share**2 * (1 - share) * via + share**3 * end
    turns = [between(rest[:3, :3], state[:3, :3], float(ease(np.array(1.35 * value)))) for value in shares]
    return places, np.stack(turns)


def _into(pose: Floats, points: Floats) -> Floats:
    """World points [...,3] in the frame of a pose [4,4]."""
    result: Floats = (points - pose[:3, 3]) @ pose[:3, :3]
    return result


def _fingers(script: Script, rest: Floats) -> Floats:
    """[T,15,3] of the acting hand."""
    timeline = script.timeline
    ready_at = timeline.reach + 0.6 * (timeline.touch - timeline.reach)
    ready = timeline.share(timeline.reach, ready_at) - timeline.share(timeline.released + 10, timeline.home)
    closed = timeline.closed[:, None, None]
    hold = script.hold
    shaped = hold.open_fingers + closed * (hold.closed_fingers - hold.open_fingers)
    result: Floats = rest + ready[:, None, None] * (shaped - rest)
    return result


def _sway(script: Script) -> tuple[Floats, Floats]:
    """Pelvis [T,3] and twist of the chest [T]: small slow movements, the acting shoulder forward."""
    timeline = script.timeline
    seconds = timeline.frames / 30.0
    waves = np.sin(np.outer(seconds, [1.3, 1.7, 0.9, 1.1]) + script.phases[:4])
    seated = script.posture is Posture.SEATED
    height = SEATED_PELVIS_M if seated else STANDING_PELVIS_M
    pelvis = np.array([script.pelvis_x, height, 0.0]) + waves[:, :3] * (
        [0.004, 0.001, 0.004] if seated else [0.01, 0.002, 0.008]
    )
    side = -1.0 if script.right else 1.0
    twist = 0.02 * waves[:, 3] - side * 0.22 * timeline.at_thing
    if script.walk is None:
        return pelvis, twist
    return script.walk.carried(pelvis), twist + script.walk.twist


def _needed_lean(body: BodyModel, script: Script, wrist: Floats, pelvis: Floats, twist: Floats) -> float:
    """Least lean with which the acting hand reaches all that it holds."""
    arm = Arm.of(body, right=script.right)
    held = np.flatnonzero(script.timeline.holding)[::4]
    count = len(_LEANS)
    middle = script.timeline.grasped
    pose, translation = pose_torso(
        body, script.posture, np.tile(pelvis[middle], (count, 1)), _LEANS, np.full(count, twist[middle])
    )
    shoulders = joints_of(body, pose, translation)[:, arm.shoulder, :3, 3]
    distances = np.linalg.norm(wrist[held][None] - shoulders[:, None], axis=2).max(axis=1)
    near = np.flatnonzero(distances <= arm.length * _STRETCH)
    return float(_LEANS[near[0]] if len(near) else _LEANS[np.argmin(distances)])


def _lean(script: Script, goal: float) -> Floats:
    timeline = script.timeline
    early = timeline.reach - 5
    near = timeline.share(early, timeline.touch) - 0.7 * timeline.share(timeline.released, timeline.home + 8)
    wave = 0.012 * np.sin(timeline.frames / 30.0 * 1.5 + script.phases[4])
    result: Floats = script.base_lean + max(goal - script.base_lean, 0.0) * near + wave
    return result if script.walk is None else result + script.walk.lean


def _gaze(script: Script, wrist: Floats) -> Floats:
    """Points [T,3] that the head faces: it follows thing and hand, with some sway, a little behind them."""
    timeline = script.timeline
    focus = 0.75 * script.focus + 0.25 * wrist
    weight = (
        0.45 + 0.45 * timeline.share(0, timeline.touch) - 0.35 * timeline.share(timeline.released, timeline.num_frames)
    )
    gaze = script.rest_gaze + weight[:, None] * (focus - script.rest_gaze)
    waves = np.sin(np.outer(timeline.frames / 30.0, [1.9, 1.3, 1.6]) + script.phases[5:8])
    if script.walk is not None:
        gaze = script.walk.gaze(gaze)
    return smoothed(gaze + waves * [0.03, 0.015, 0.03], 5.0)
