"""How a hand holds a thing: the wrist's place against the thing, and fingers closed until their skin touches it.

A hold is fitted once in the frame of the held thing. While it lasts the thing is rigid to the wrist, so that the
touch stays exact over all its frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from render.body import FINGER_JOINTS, NUM_JOINTS, BodyModel, BodyMotion
from render.rotations import Floats, frame_from_axes, normalised
from sources.synthetic.arm import Arm
from sources.synthetic.solids import Solid, distance_to

_TOUCH_GAP_M = 0.0008
"""Distance between skin and thing that counts as a touch."""

_CLOSING_STEPS = 29
_WIDEST, _OPENING = -0.4, 0.3
"""How far fingers open beyond the open shape where they must, and from the touch; shares of open to closed."""

_REACH_OF_FIT_M = 0.16
_WRAP_SHARE = 1.2
_THUMB = 4
_FINGERS = range(5)


@dataclass(frozen=True)
class HandShape:
    """Finger pose of a left hand, radians; a right hand is its mirror image.

    Attributes:
        knuckles: flexion of the fingers' first joints.
        middle: flexion of their second joints.
        tips: flexion of their last joints.
        across: turn of the thumb's root under the palm.
        thumb_root: bend of the thumb's root along the palm.
        thumb_bend: bend of the thumb's other joints.
        spread: index and pinky turn apart by this.
        ring_pinky: extra flexion of ring and pinky finger.
    """

    knuckles: float
    middle: float
    tips: float
    across: float = 0.0
    thumb_root: float = 0.0
    thumb_bend: float = 0.1
    spread: float = 0.0
    ring_pinky: float = 0.0

    def pose(self, side: float) -> Floats:
        """Axis-angle [15,3] of the finger joints; ``side`` is +1 for a left hand, -1 for a right one."""
        pose = np.zeros((FINGER_JOINTS, 3))
        for finger in range(4):  # index, middle, pinky, ring
            more = self.ring_pinky if finger >= 2 else 0.0
            first = 3 * finger
            pose[first, 2] = -side * (self.knuckles + more)
            pose[first + 1, 2] = -side * (self.middle + more)
            pose[first + 2, 2] = -side * (self.tips + 0.5 * more)
            pose[first, 1] = -side * self.spread * (1.0, 0.2, -1.2, -0.5)[finger]
        pose[12] = (self.across, side * self.thumb_root, 0.0)
        pose[13:, 1] = side * self.thumb_bend
        return pose


@dataclass(frozen=True)
class GripStyle:
    """A kind of grip: the hand's open and closed shapes.

    Attributes:
        opened: shape before the touch.
        closed: shape that the fingers close towards until they touch.
        centre: [3] what is held, from the wrist: along the fingers, out of the palm, towards the thumb; metres.
            None is the middle between the open thumb's tip and the tips of index and middle finger.
    """

    opened: HandShape
    closed: HandShape
    centre: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Hold:
    """A hand fitted to a thing.

    Attributes:
        thing_from_wrist: [4,4] pose of the wrist in the thing's frame (rotation against the body's rest pose).
        open_fingers: [15,3] axis-angle before and after the touch.
        closed_fingers: [15,3] axis-angle of the touch.
        approach: [3] unit direction in the thing's frame along which the hand comes.
    """

    thing_from_wrist: Floats
    open_fingers: Floats
    closed_fingers: Floats
    approach: Floats


class HandFitter:
    """Fits one hand of a body to solids.

    Args:
        body: the body.
        arm: the arm whose hand is fitted.
    """

    def __init__(self, body: BodyModel, arm: Arm) -> None:
        self.body, self.arm = body, arm
        self.ids = arm.vertex_ids
        weights = body.weights[self.ids]
        joints = [arm.wrist, *range(arm.first_finger, arm.first_finger + FINGER_JOINTS)]
        main = np.argmax(weights[:, joints], axis=1)
        self.finger_of_vertex = np.where(main == 0, -1, (main - 1) // 3)
        """[n] finger (index, middle, pinky, ring, thumb) that moves each vertex of the hand, -1 for the palm."""
        self.is_outer_bone = (main > 0) & ((main - 1) % 3 > 0)
        """[n] whether a vertex belongs to a finger's second or third bone."""
        self.tip_of_finger = [np.flatnonzero(main == 3 * finger + 3) for finger in range(_THUMB + 1)]
        """Positions in ``ids`` of the vertices of each finger's last bone."""

    def points(self, fingers: Floats) -> npt.NDArray[np.float32]:
        """Vertices [K,n,3] of the hand in the wrist's frame for finger poses [K,15,3]."""
        pose = np.zeros((len(fingers), NUM_JOINTS, 3))
        pose[:, self.arm.first_finger : self.arm.first_finger + FINGER_JOINTS] = fingers
        still = BodyMotion(pose, np.zeros((len(fingers), 3)), np.zeros(0), np.zeros(0))
        origin = self.arm.rest_joints[self.arm.wrist].astype(np.float32)
        points: npt.NDArray[np.float32] = self.body.skin(still, self.ids).vertices - origin
        return points

    def pinch_rotation(self, style: GripStyle, across: npt.ArrayLike, approach: npt.ArrayLike) -> Floats:
        """Rotation [3,3] of the wrist whose open thumb and fingers oppose each other along ``across`` [3].

        Args:
            style: kind of grip.
            across: direction from the thumb to the fingers.
            approach: direction in which the fingertips point, as nearly as ``across`` allows.
        """
        thumb, fingers = self._tips(style)
        own = frame_from_axes(fingers - thumb, (thumb + fingers) / 2)
        result: Floats = frame_from_axes(across, approach) @ own.T
        return result

    def _tips(self, style: GripStyle) -> tuple[Floats, Floats]:
        """Tips [3] of the open thumb, and of index and middle finger together, in the wrist's frame."""
        points = self.points(style.opened.pose(self.arm.side)[None])[0]
        return points[self.tip_of_finger[_THUMB]].mean(axis=0), points[np.concatenate(self.tip_of_finger[:2])].mean(
            axis=0
        )

    def wrist_pose(self, rotation: Floats, style: GripStyle, target: Floats) -> Floats:
        """Pose [4,4] of the wrist with this rotation that has the style's centre at ``target`` [3]."""
        if style.centre is None:
            offset = np.mean(self._tips(style), axis=0)
        else:
            along, out, thumb = style.centre
            offset = np.array([self.arm.side * along, -out, thumb])  # rest axes: fingers along x, palm down
        pose = np.eye(4)
        pose[:3, :3] = rotation
        pose[:3, 3] = target - rotation @ offset
        return pose

    def fit(
        self,
        style: GripStyle,
        target: Floats,
        solids: Sequence[Solid],
        *,
        rotation: Floats,
        press: Floats | None = None,
        close: bool = True,
    ) -> Hold:
        """Fit the hand to solids in the thing's frame.

        Args:
            style: kind of grip.
            target: [3] point of the thing that the grip's centre meets.
            solids: the thing.
            rotation: [3,3] of the wrist in the thing's frame.
            press: [3] unit direction along which the whole hand moves until it touches; None keeps it in place.
            close: whether the fingers close until they touch.
        """
        opened, closed = style.opened.pose(self.arm.side), style.closed.pose(self.arm.side)
        pose = self.wrist_pose(rotation, style, target)
        if press is not None:
            pose[:3, 3] += self._press(pose, opened, solids, press)
        if close:
            opened, closed = self._close(pose, opened, closed, solids)
        direction = press if press is not None else rotation @ np.array([self.arm.side, 0.0, 0.0])
        return Hold(pose, opened, closed, normalised(direction))

    def _press(self, pose: Floats, fingers: Floats, solids: Sequence[Solid], direction: Floats) -> Floats:
        """Shift [3] along ``direction`` after which the hand just touches the solids."""
        points = self.points(fingers[None])[0] @ pose[:3, :3].T + pose[:3, 3]
        low, high = -_REACH_OF_FIT_M, _REACH_OF_FIT_M
        for step in np.linspace(low, high, 65):  # the first touch when it comes from outside
            if distance_to(solids, points + direction * step).min() < _TOUCH_GAP_M:
                low, high = step - (2 * _REACH_OF_FIT_M) / 64, step
                break
        for _ in range(12):
            middle = (low + high) / 2
            if distance_to(solids, points + direction * middle).min() < _TOUCH_GAP_M:
                high = middle
            else:
                low = middle
        return direction * low

    def _close(self, pose: Floats, opened: Floats, closed: Floats, solids: Sequence[Solid]) -> tuple[Floats, Floats]:
        """Fingers [15,3] a little before and where the skin of each first touches, between open and closed.

        Where a finger's root touches first, its outer bones go on and wrap around the thing.
        """
        shares = np.linspace(_WIDEST, 1.0, _CLOSING_STEPS)
        distances = self._distances(pose, opened + shares[:, None, None] * (closed - opened), solids)
        ranges = [_touching_range(shares, distances[:, self.finger_of_vertex == finger]) for finger in _FINGERS]
        ends = np.array([end for _, end in ranges])
        fallback = float(np.nanmean(ends)) if np.isfinite(ends).any() else 0.5
        share = np.repeat(np.where(np.isnan(ends), fallback, ends), 3)[:, None]
        starts = np.repeat([start for start, _ in ranges], 3)[:, None]
        before = np.maximum(starts, share - _OPENING)
        held = opened + share * (closed - opened)
        return opened + before * (closed - opened), self._wrap(pose, held, closed - opened, solids)

    def _wrap(self, pose: Floats, held: Floats, way: Floats, solids: Sequence[Solid]) -> Floats:
        """Go on with the outer two bones of each finger until they touch as well."""
        outer = np.tile([[0.0], [1.0], [1.0]], (len(_FINGERS), 1))
        shares = np.linspace(0.0, _WRAP_SHARE, _CLOSING_STEPS)
        distances = self._distances(pose, held + shares[:, None, None] * outer * way, solids)
        ends = []
        for finger in _FINGERS:
            nearest = distances[:, (self.finger_of_vertex == finger) & self.is_outer_bone].min(axis=1)
            touching = np.flatnonzero(nearest < _TOUCH_GAP_M)
            # Pads that touch already, or that never would, stay where they are.
            ends.append(float(shares[max(touching[0] - 1, 0)]) if len(touching) else 0.0)
        result: Floats = held + np.repeat(ends, 3)[:, None] * outer * way
        return result

    def _distances(self, pose: Floats, fingers: Floats, solids: Sequence[Solid]) -> Floats:
        return distance_to(solids, self.points(fingers) @ pose[:3, :3].T + pose[:3, 3])


def _touching_range(shares: Floats, distances: Floats) -> tuple[float, float]:
    """Share from which a finger is free, and share at which it then first touches (NaN: never), from [K,n]."""
    nearest = distances.min(axis=1)
    free = np.flatnonzero(nearest >= _TOUCH_GAP_M)
    if not len(free):
        best = float(shares[int(np.argmax(nearest))])
        return best, best
    touching = np.flatnonzero(nearest[free[0] :] < _TOUCH_GAP_M)
    if not len(touching):
        return float(shares[free[0]]), float("nan")
    last = free[0] + int(touching[0])
    before, after = nearest[last - 1], nearest[last]
    past = (_TOUCH_GAP_M - after) / (before - after)
    return float(shares[free[0]]), float(shares[last] - past * (shares[1] - shares[0]))
