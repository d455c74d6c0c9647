"""When things happen in a recording: smooth (minimum-jerk) shares of reach, grasp, move, release and return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from render.rotations import Floats, axis_angle_from_matrix, matrix_from_axis_angle


@dataclass(frozen=True)
class Timeline:
    """Source frames (30 a second) at which the phases of an action begin.

    Attributes:
        reach: the hand leaves its rest.
        touch: it is at the thing with open fingers.
        grasped: the fingers are closed and the thing begins to move.
        moved: the thing stands still again.
        released: the fingers are open again and the hand leaves.
        home: the hand is back at its rest.
        num_frames: length of the recording.
    """

    reach: int
    touch: int
    grasped: int
    moved: int
    released: int
    home: int
    num_frames: int

    @property
    def frames(self) -> Floats:
        """[T] frame numbers."""
        return np.arange(self.num_frames, dtype=np.float64)

    def share(self, start: float, end: float) -> Floats:
        """[T] share of a smooth move from frame ``start`` to frame ``end``."""
        return ease((self.frames - start) / max(end - start, 1.0))

    @property
    def at_thing(self) -> Floats:
        """[T] 0 while the hand rests, 1 while it is at the thing."""
        return self.share(self.reach, self.touch) - self.share(self.released, self.home)

    @property
    def closed(self) -> Floats:
        """[T] 0 with open fingers, 1 while they hold."""
        return self.share(self.touch, self.grasped) - self.share(self.moved, self.released)

    @property
    def travel(self) -> Floats:
        """[T] share of the thing's way."""
        return self.share(self.grasped, self.moved)

    @property
    def holding(self) -> npt.NDArray[np.bool_]:
        """[T] True while the hand is rigid to the thing."""
        return (self.frames >= self.touch) & (self.frames <= self.released)


def ease(share: Floats) -> Floats:
    """0 before 0, 1 after 1, minimum jerk between."""
    clipped = np.clip(share, 0.0, 1.0)
    result: Floats = clipped**3 * (clipped * (6.0 * clipped - 15.0) + 10.0)
    return result


def between(first: Floats, second: Floats, share: float) -> Floats:
    """Rotation [3,3] a share of the way from one to another."""
    result: Floats = first @ matrix_from_axis_angle(axis_angle_from_matrix(first.T @ second) * share)
    return result


def smoothed(path: Floats, frames: float) -> Floats:
    """A path [T,n] after a Gaussian filter of ``frames`` standard deviation; its ends are held."""
    reach = int(np.ceil(3 * frames))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / frames) ** 2)
    padded = np.pad(path, ((reach, reach), (0, 0)), mode="edge")
    columns = [np.convolve(column, kernel / kernel.sum(), mode="valid") for column in padded.T]
    return np.stack(columns, axis=1)
