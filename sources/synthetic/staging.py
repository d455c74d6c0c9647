"""What every staged action needs: the household, the body, chance, and grips that are shared between actions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from render.body import BodyModel
from render.rotations import Floats, matrix_from_axis_angle
from sources.synthetic.arm import Arm
from sources.synthetic.grasp import HandFitter, Hold
from sources.synthetic.household import Household
from sources.synthetic.props import Prop
from sources.synthetic.timing import Timeline

NUM_FRAMES = 150
"""Source frames of an action with some rest after it: 5 seconds."""


@dataclass(frozen=True, kw_only=True)
class Deed:
    """What one hand does to one thing, in the frame of the person's place.

    Attributes:
        thing: what is moved or touched.
        poses: [T,4,4] of the thing.
        carrier: [T,4,4] pose of the thing as the hand holds it: equal to ``poses``, except that a hinged thing may
            turn within the hand.
        right: the hand that acts.
        timeline: when.
        hold: the hand fitted to the thing, in the carrier's frame.
        leave: [3] direction in the carrier's frame in which the hand leaves.
        words: "push the red box to the left".
        others: [T,4,4] poses of other things that must stand elsewhere than usual, by name.
    """

    thing: Prop
    poses: Floats
    carrier: Floats
    right: bool
    timeline: Timeline
    hold: Hold
    leave: Floats
    words: str
    others: dict[str, Floats] = field(default_factory=dict)


class Stage:
    """A household with a body in it, and the chance of one recording.

    Args:
        household: the room.
        body: who acts.
        random: of one recording.
        first_frame: from which the person acts; the recording is longer by as much.
        variation: chance of another motion in the same scene: what stands where, which hand acts and what is said of
            it still come from ``random``.
    """

    def __init__(
        self,
        household: Household,
        body: BodyModel,
        random: np.random.Generator,
        first_frame: int = 0,
        variation: np.random.Generator | None = None,
    ) -> None:
        self.household, self.body, self.random, self.first_frame = household, body, random, first_frame
        self.variation = variation
        top = household.table
        self.table_height = top.centre[1] + top.size[1] / 2
        self.table_back = top.centre[2] + top.size[2] / 2

    def fitter(self, *, right: bool) -> HandFitter:
        """Fits the left or right hand."""
        return HandFitter(self.body, Arm.of(self.body, right=right))

    def timeline(self, grip: int = 8, carry: int | None = None) -> Timeline:
        """Times with some chance; ``grip`` frames to close the fingers, ``carry`` frames to move the thing."""
        reach = self.first_frame + int(self.random.integers(5, 11)) + self._delay()
        touch = reach + int(self.random.integers(24, 29))
        moved = touch + grip + (carry or int(self.random.integers(34, 40)))
        released = moved + max(grip - 1, 2)
        home = released + int(self.random.integers(24, 30))
        return Timeline(reach, touch, touch + grip, moved, released, home, self.first_frame + NUM_FRAMES)

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return bool(self.random.random() < share)

    def uniform(self, low: float, high: float) -> float:
        """A number between two others."""
        return float(self.random.uniform(low, high))

    def motion(self, low: float, high: float) -> tuple[float, float]:
        """A number between two others that the motion depends on: as planned, and in this variation of the motion."""
        planned = self.uniform(low, high)
        if self.variation is None:
            return planned, planned
        return planned, float(self.variation.uniform(low - (high - low), high))

    def _delay(self) -> int:
        """Frames by which a variation begins later: up to a third of a clip of the small profile."""
        return 0 if self.variation is None else int(self.variation.integers(8, 29))


def hand_side(right: bool) -> float:
    """-1 for the right hand, which is at -x, +1 for the left."""
    return -1.0 if right else 1.0


def turn_about_vertical(yaw: npt.ArrayLike) -> Floats:
    """Rotations [...,3,3] of angles [...] to the left."""
    return matrix_from_axis_angle(np.multiply.outer(np.asarray(yaw), np.array([0.0, 1.0, 0.0])))


def poses_from(rotations: Floats, places: npt.ArrayLike) -> Floats:
    """Poses [T,4,4] from rotations [3,3] or [T,3,3] and places [T,3]."""
    points = np.asarray(places)
    poses = np.tile(np.eye(4), (len(points), 1, 1))
    poses[:, :3, :3] = rotations
    poses[:, :3, 3] = points
    return poses


def shifted(pose: Floats, offset: Floats) -> Floats:
    """A pose [4,4] moved by ``offset`` [3]."""
    result = pose.copy()
    result[:3, 3] += offset
    return result
