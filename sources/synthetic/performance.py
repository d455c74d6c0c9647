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
from sources.synthetic.solids import Box
from sources.synthetic.timing import Timeline, between, ease, smoothed

_UP = np.array([0.0, 1.0, 0.0])
_ELBOW_HANGING = (0.25, -0.2, -0.9)
_PREGRASP_M = 0.12
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
        hold: the hand fitted to the thing.
        focus: [T,3] what the person watches.
        leave: [3] direction in the thing's frame in which the hand leaves.
        table: the table's top for a seated person.
        rest_gaze: [3] where the person looks before and after.
        base_lean: forward lean of the resting person, radians.
        phases: [8] phases of the sway of head and torso, radians.
        pelvis_x: where the pelvis is, to the left.
    """

    posture: Posture
    right: bool
    timeline: Timeline
    carrier: Floats
    hold: Hold
    focus: Floats
    leave: Floats
    table: Box | None
    rest_gaze: Floats
    base_lean: float
    phases: Floats
    pelvis_x: float = 0.0


def perform(body: BodyModel, script: Script) -> BodyMotion:
    """Motion of the body over the script's frames, in the frame of its place."""
    timeline = script.timeline
    fitters = {right: HandFitter(body, Arm.of(body, right=right)) for right in (False, True)}
    rests = {right: _rest_pose(fitter, script) for right, fitter in fitters.items()}
    wrist, turn = _wrist_path(script, rests[script.right][0])
    pelvis, twist = _sway(script)
    goal = _needed_lean(body, script, wrist, pelvis, twist)
    lean = _lean(script, goal)
    pose, translation = pose_torso(body, script.posture, pelvis, lean, twist)
    aim_head(body, pose, translation, _gaze(script, wrist))

    fingers = _fingers(script, rests[script.right][1])
    near = timeline.at_thing
    hanging = script.posture is Posture.STANDING
    for right, fitter in fitters.items():
        arm = fitter.arm
        rest, rest_fingers = rests[right]
        rows = slice(arm.first_finger, arm.first_finger + FINGER_JOINTS)
        pose[:, rows] = fingers if right == script.right else rest_fingers
        for frame in range(timeline.num_frames):
            acts = right == script.right
            share = float(near[frame]) if acts or not hanging else 0.0
            outward = np.add(np.multiply(ELBOW_OUT, share), np.multiply(_ELBOW_HANGING, 1 - share)) if hanging else None
            place = (wrist[frame], turn[frame]) if acts else (rest[:3, 3] + _drift(script, frame), rest[:3, :3])
            arm.place_wrist(pose[frame], translation[frame], *place, outward=ELBOW_OUT if outward is None else outward)
    return BodyMotion(pose, translation, betas=np.zeros(0), expression=np.zeros(0), flat_hand_mean=True)


def _drift(script: Script, frame: int) -> Floats:
    """A hanging arm moves a little; a hand on the table does not."""
    if script.posture is Posture.SEATED:
        return np.zeros(3)
    time = frame / 30.0
    return np.array([0.0, 0.0, 0.012 * np.sin(2.1 * time + script.phases[0])])


def _rest_pose(fitter: HandFitter, script: Script) -> tuple[Floats, Floats]:
    """Wrist pose [4,4] and fingers [15,3] of a hand that lies on the table or hangs beside the body."""
    arm = fitter.arm
    if script.table is None:
        pose = np.eye(4)
        pose[:3, :3] = arm.orientation(Grip((0.0, -1.0, 0.22), (-1.0, 0.0, 0.1), 0, 0, 0))
        pose[:3, 3] = (arm.side * 0.27 + script.pelvis_x, 0.86, 0.06)
        return pose, _RELAXED.pose(arm.side)
    front = script.table.centre[2] - script.table.size[2] / 2
    top = script.table.centre[1] + script.table.size[1] / 2
    rotation = arm.orientation(Grip((-0.35, 0.02, 1.0), (-0.05, -1.0, 0.0), 0, 0, 0))
    style = GripStyle(_FLAT, _FLAT, centre=(0.0, 0.03, 0.0))
    target = np.array([arm.side * 0.27, top, front + 0.0])
    hold = fitter.fit(style, target, [script.table], rotation=rotation, press=-_UP, close=False)
    return hold.thing_from_wrist, hold.closed_fingers


def _wrist_path(script: Script, rest: Floats) -> tuple[Floats, Floats]:
    """Places [T,3] and rotations [T,3,3] of the acting wrist: rest, reach, hold, return."""
    timeline = script.timeline
    contact = script.carrier @ script.hold.thing_from_wrist
    places, turns = contact[:, :3, 3].copy(), contact[:, :3, :3].copy()
    arrive = timeline.share(timeline.reach, timeline.touch)
    depart = timeline.share(timeline.released, timeline.home)
    first, last = script.carrier[timeline.touch], script.carrier[timeline.released]
    for frame in range(timeline.num_frames):
        if frame < timeline.touch:
            share, state = float(arrive[frame]), contact[timeline.touch]
            via = state[:3, 3] - first[:3, :3] @ script.hold.approach * _PREGRASP_M + _UP * 0.03
        elif frame > timeline.released:
            share, state = 1.0 - float(depart[frame]), contact[timeline.released]
            via = state[:3, 3] + last[:3, :3] @ script.leave * _PREGRASP_M + _UP * 0.03
        else:
            continue
        places[frame] = (1 - share) ** 2 * rest[:3, 3] + 2 * share * (1 - share) * via + share**2 * state[:3, 3]
        turns[frame] = between(rest[:3, :3], state[:3, :3], float(ease(np.array(1.35 * share))))
    return places, turns


def _fingers(script: Script, rest: Floats) -> Floats:
    """[T,15,3] of the acting hand."""
    timeline = script.timeline
    ready = timeline.share(timeline.reach, timeline.touch - 3) - timeline.share(timeline.released + 3, timeline.home)
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
    return pelvis, 0.02 * waves[:, 3] - side * 0.22 * timeline.at_thing


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
    return result


def _gaze(script: Script, wrist: Floats) -> Floats:
    """Points [T,3] that the head faces: it follows thing and hand, with some sway, a little behind them."""
    timeline = script.timeline
    focus = 0.75 * script.focus + 0.25 * wrist
    weight = (
        0.45 + 0.45 * timeline.share(0, timeline.touch) - 0.35 * timeline.share(timeline.released, timeline.num_frames)
    )
    gaze = script.rest_gaze + weight[:, None] * (focus - script.rest_gaze)
    waves = np.sin(np.outer(timeline.frames / 30.0, [1.9, 1.3, 1.6]) + script.phases[5:8])
    return smoothed(gaze + waves * [0.03, 0.015, 0.03], 5.0)
