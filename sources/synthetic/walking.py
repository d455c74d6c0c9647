"""Walking to a place: steps along a route, legs whose planted feet do not slide, a pelvis and arms that go with them.

Everything is in the frame of the person's place: metres, y up, the person ends at rest facing +z.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from render.body import BodyModel, Joint
from render.rotations import Floats, axis_angle_from_matrix, matrix_from_axis_angle
from sources.synthetic.leg import Leg
from sources.synthetic.posture import joints_of
from sources.synthetic.routes import Route
from sources.synthetic.timing import ease, smoothed

WALK_FRAMES = 54
"""Source frames by which an action begins later where a walk comes first: the stride of the small profile, so that
its first clip shows the walk and its second the action."""

ARRIVAL = 58
"""Frame from which a walker stands still."""

_STEPS = 4
_FIRST_LIFT, _STEP_FRAMES, _SWING_FRAMES = 4.0, 13.5, 11.0
"""Frames (1/30 s) at which the first foot leaves the floor, from step to step, and of a foot in the air."""
_STEP_HEIGHT_M = 0.035
_LIFT_EARLY_FRAMES = 2.0
"""A foot rises this much before it goes forward, and comes down as much after: it never drags."""
_HEEL_UP, _TOES_UP = 0.42, -0.16
"""Pitch of a foot that is about to leave the floor, and of one that meets it, radians."""
_HEEL_RISE_FRAMES, _ROLL_DOWN_FRAMES = 5.0, 3.5
_WEIGHT_SHIFT_M = 0.018
_PELVIS_TURN, _CHEST_TURN = -0.14, 0.30
"""Turns a metre of the left foot's lead: the pelvis' left side goes with its foot, the chest's right side."""
_ARM_SWING, _ARM_RADIUS_M = 0.24, 0.55
_FORWARD_LEAN = 0.03
_LOOK_AHEAD_M, _LOOK_HEIGHT_M = 1.8, 1.0


@dataclass(frozen=True)
class FootTrack:
    """A foot over T frames.

    Attributes:
        places: [T,2] (x, z) below the ankle, as if the foot stood flat.
        headings: [T] where it points, radians to the left.
        pitch: [T] turn about its toes (heel up, positive) or its heel (toes up, negative), radians.
        height: [T] of its lowest point above the floor, metres.
    """

    places: Floats
    headings: Floats
    pitch: Floats
    height: Floats


@dataclass(frozen=True)
class Walk:
    """A walk that ends at the place, over T frames.

    Attributes:
        pelvis: [T,2] (x, z) of the pelvis; the last is where it stays.
        headings: [T] where the body faces, radians to the left.
        lead: [T] how far the left foot is ahead of the right one, metres.
        feet: the left and the right foot.
    """

    pelvis: Floats
    headings: Floats
    lead: Floats
    feet: tuple[FootTrack, FootTrack]

    @property
    def twist(self) -> Floats:
        """[T] turn of the chest against the pelvis, radians to the left."""
        return _CHEST_TURN * self.lead

    @property
    def lean(self) -> Floats:
        """[T] forward lean while walking, radians."""
        speed = np.linalg.norm(np.gradient(self.pelvis, axis=0), axis=1) * 30.0
        return _FORWARD_LEAN * smoothed(speed[:, None], 4.0)[:, 0]

    @property
    def turns(self) -> Floats:
        """Rotations [T,3,3] of the body's facing."""
        return matrix_from_axis_angle(np.multiply.outer(self.headings, [0.0, 1.0, 0.0]))

    def carried(self, points: Floats) -> Floats:
        """Points [T,3] of someone who stands at the place, moved along with the walker over the floor."""
        home, now = _on_floor(self.pelvis[-1]), _on_floor(self.pelvis)
        result: Floats = np.einsum("tab,tb->ta", self.turns, points - home) + now
        return result

    def swung(self, side: float, places: Floats, rotations: Floats) -> tuple[Floats, Floats]:
        """A hanging wrist's places [T,3] and rotations [T,3,3] while it swings against the legs and is carried along.

        Args:
            side: +1 for the left hand, -1 for the right.
            places: of the wrist of someone who stands still.
            rotations: of that wrist.
        """
        angle = -side * _ARM_SWING * self.lead / _ARM_RADIUS_M
        offset = _ARM_RADIUS_M * np.stack([np.zeros_like(angle), 1 - np.cos(angle), np.sin(angle)], axis=1)
        swing = matrix_from_axis_angle(np.multiply.outer(-angle, [1.0, 0.0, 0.0]))
        return self.carried(places + offset), self.turns @ swing @ rotations

    def turned(self, outward: Floats, *, side: float) -> Floats:
        """Directions [T,3] of a left arm's elbow at the place, for the arm at ``side`` of the walker's facing."""
        mirror = np.array([side, 1.0, 1.0])
        result: Floats = np.einsum("tab,tb->ta", self.turns, outward * mirror) * mirror
        return result

    def gaze(self, at_place: Floats) -> Floats:
        """Points [T,3] that the walker looks at: the way ahead, then what it will look at when it stands [T,3]."""
        frames = np.arange(len(at_place), dtype=np.float64)
        ahead = self.turns @ np.array([0.0, 0.0, _LOOK_AHEAD_M]) + _on_floor(self.pelvis)
        ahead[:, 1] += _LOOK_HEIGHT_M
        share = ease((frames - 0.3 * ARRIVAL) / (0.75 * ARRIVAL))[:, None]
        result: Floats = ahead + share * (at_place - ahead)
        return result


@dataclass(frozen=True)
class _Step:
    """One step: the foot (0 left, 1 right), the frame at which it lifts, metres of the route before and after."""

    foot: int
    lift: float
    start: float
    end: float

    def share(self, frames: Floats, *, early: float = 0.0) -> Floats:
        """[T] share of the time in the air, from ``early`` frames before to as many after it."""
        result: Floats = np.clip((frames - self.lift + early) / (_SWING_FRAMES + 2 * early), 0.0, 1.0)
        return result


def plan_walk(body: BodyModel, route: Route, num_frames: int, *, left_first: bool) -> Walk:
    """Steps along a route that ends at the place, and standing still there for the rest of ``num_frames``.

    Args:
        body: whose hips set the feet apart.
        route: the pelvis' way.
        num_frames: T, more than `ARRIVAL`.
        left_first: the foot that steps first.
    """
    frames = np.arange(num_frames, dtype=np.float64)
    steps = _steps_along(route.length, left_first=left_first)
    ways = [_foot_way(steps, foot, frames) for foot in (0, 1)]
    left, right = (_foot_track(Leg.of(body, right=foot == 1), route, steps, foot, frames) for foot in (0, 1))
    floor, headings = route.at(_pelvis_way(steps, frames))
    to_left = np.stack([np.cos(headings), -np.sin(headings)], axis=1)
    weight = sum((1.0 if step.foot else -1.0) * np.sin(np.pi * step.share(frames, early=2.0)) ** 2 for step in steps)
    pelvis = floor + _WEIGHT_SHIFT_M * np.multiply(weight, to_left.T).T
    return Walk(pelvis, headings, smoothed((ways[0] - ways[1])[:, None], 1.5)[:, 0], (left, right))


def walk_legs(body: BodyModel, pose: Floats, translation: Floats, walk: Walk) -> None:
    """Turn the body where it walks, lower the pelvis as far as the legs need, and put the feet where they belong.

    Writes root, hips, knees and ankles into ``pose`` [T,55,3] and the height into ``translation`` [T,3].
    """
    turn = walk.turns @ matrix_from_axis_angle(np.multiply.outer(_PELVIS_TURN * walk.lead, [0.0, 1.0, 0.0]))
    pose[:, Joint.PELVIS] = axis_angle_from_matrix(turn @ matrix_from_axis_angle(pose[:, Joint.PELVIS]))
    legs = [Leg.of(body, right=right) for right in (False, True)]
    states = [
        leg.ankle(foot.places, foot.headings, foot.pitch, foot.height)
        for leg, foot in zip(legs, walk.feet, strict=True)
    ]
    world = joints_of(body, pose, translation)
    rooms = [leg.highest_hip(world[:, leg.hip, :3, 3], ankle) for leg, (ankle, _) in zip(legs, states, strict=True)]
    translation[:, 1] += _softly_below(np.min(rooms, axis=0))
    world = joints_of(body, pose, translation)
    for leg, (ankle, rotation) in zip(legs, states, strict=True):
        leg.place(pose, world, ankle, rotation)


def _steps_along(length: float, *, left_first: bool) -> list[_Step]:
    """Even steps over a route of some metres; the last foot closes up to the other."""
    stride = length / (_STEPS - 1)
    reached = [0.0, 0.0, *(min(stride * (number + 1), length) for number in range(_STEPS))]
    return [
        _Step(
            foot=(number + (0 if left_first else 1)) % 2,
            lift=_FIRST_LIFT + _STEP_FRAMES * number,
            start=reached[number],
            end=reached[number + 2],
        )
        for number in range(_STEPS)
    ]


def _foot_way(steps: list[_Step], foot: int, frames: Floats) -> Floats:
    """Metres of the route [T] at which a foot is."""
    way = np.zeros(len(frames))
    for step in steps:
        if step.foot == foot:
            way += (step.end - step.start) * (1 - np.cos(np.pi * step.share(frames))) / 2
    return way


def _pelvis_way(steps: list[_Step], frames: Floats) -> Floats:
    """Metres of the route [T] at which the pelvis is: amid the feet whenever both are on the floor."""
    from scipy.interpolate import PchipInterpolator

    pairs = list(pairwise(steps))
    times = [1.0, *((first.lift + _SWING_FRAMES + second.lift) / 2 for first, second in pairs), ARRIVAL - 1.0]
    ways = [0.0, *((first.end + second.start) / 2 for first, second in pairs), steps[-1].end]
    way = PchipInterpolator(times, ways)(np.clip(frames, times[0], times[-1]))
    result: Floats = np.clip(smoothed(way[:, None], 1.5)[:, 0], 0.0, steps[-1].end)
    return result


def _foot_track(leg: Leg, route: Route, steps: list[_Step], foot: int, frames: Floats) -> FootTrack:
    """A foot beside the route, where it stands when the pelvis is at the same metre of it."""
    floor, headings = route.at(_foot_way(steps, foot, frames))
    x, z = leg.stance
    cosine, sine = np.cos(headings), np.sin(headings)
    offset = np.stack([cosine * x + sine * z, -sine * x + cosine * z], axis=1)
    pitch, height = np.zeros(len(frames)), np.zeros(len(frames))
    longest = max(step.end - step.start for step in steps)
    for step in steps:
        if step.foot == foot:
            share = step.share(frames, early=_LIFT_EARLY_FRAMES)
            height += _STEP_HEIGHT_M * 16 * (share * (1 - share)) ** 2
            pitch += _roll(frames, step.lift, strength=(step.end - step.start) / longest)
    return FootTrack(floor + offset, headings, pitch, height)


def _roll(frames: Floats, lift: float, strength: float) -> Floats:
    """Pitch [T] around one step: the heel rises before the foot lifts, the toes come up before it lands."""
    land = lift + _SWING_FRAMES
    heel = ease((frames - lift + _HEEL_RISE_FRAMES) / _HEEL_RISE_FRAMES) - ease((frames - lift) / 7.0)
    toes = ease((frames - land + 5) / 5.0) - ease((frames - land) / _ROLL_DOWN_FRAMES)
    result: Floats = strength * (_HEEL_UP * heel + _TOES_UP * toes)
    return result


def _softly_below(room: Floats) -> Floats:
    """A smooth curve [T] below 0 and below ``room`` [T]."""
    from scipy.ndimage import minimum_filter1d

    lowest = minimum_filter1d(np.minimum(room, 0.0), size=7, mode="nearest")
    return np.minimum(smoothed(lowest[:, None], 2.0)[:, 0], np.minimum(room, 0.0))


def _on_floor(places: Floats) -> Floats:
    """Points [...,3] on the floor from (x, z) [...,2]."""
    return np.stack([places[..., 0], np.zeros(places.shape[:-1]), places[..., 1]], axis=-1)
