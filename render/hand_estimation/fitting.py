"""Inverse kinematics: a hand that bends within its limits, fitted to the landmarks of one track, all frames at once.

Damped least squares (Levenberg-Marquardt) in each frame, with a pull towards the frames before and after. The image
places the hand; the network's weak depths choose between poses that look alike. One frame alone often ends in a pose
that explains the landmarks badly: each also tries the poses that its neighbours found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from render.hand_estimation.hand_model import HandModel, HandPose, PosedHand
from render.rotations import Floats, axis_angle_from_matrix, matrix_from_axis_angle

_POINT_SIGMA = 0.04
"""Error of landmarks, in units of the palm's length in the image."""
_DEPTH_SIGMA = 0.25
"""Error of the network's depths, in palm lengths."""
_USUAL_SIGMA = 0.8
"""Spread of hinge angles about those of a relaxed hand, radians."""
_OUTSIDE_WEIGHT = 0.15
"""Weight of landmarks outside the picture, which the network guesses."""
_TURN_A_FRAME, _BEND_A_FRAME, _DEPTH_A_FRAME = 0.35, 0.35, 0.06
"""Usual change between neighbouring frames: radians, radians, share of the depth."""
_LINKED_FRAMES = 2
"""Sightings at most so many frames apart pull at each other."""
_FIRST_STEPS, _TIME_STEPS = 14, 12
_NEIGHBOURS = (1, -1, 2, -2)
"""Sightings before and after whose poses are tried in a frame."""
_FAR_LANDMARK = 8.0
"""Landmarks that lie farther off than so many usual errors count less (Cauchy)."""
_NEAREST = 0.05
"""Hands stay at least so far in front of the camera, metres."""


@dataclass(frozen=True)
class Observations:
    """Landmarks of one hand in N frames.

    Attributes:
        frame: [N] rising.
        pixels: [N,21,2] against the principal point.
        world: [N,21,3] the network's own three-dimensional hand, metres, axes of the camera.
        weight: [N,21].
    """

    frame: npt.NDArray[np.int64]
    pixels: Floats
    world: Floats
    weight: Floats

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True)
class Fit:
    """A fitted track.

    Attributes:
        hands: N poses.
        cost: [N] mean weighted squared landmark error, in units of the expected error.
        energy: [N] what was minimised in each frame: landmarks, depths, usual angles, and the pull over time if any.
    """

    hands: HandPose
    cost: Floats
    energy: Floats


def landmark_weights(pixels: Floats, picture_box: tuple[int, int, int, int]) -> Floats:
    """Weights [N,21] of landmarks [N,21,2] (pixels): little outside the picture."""
    left, top, right, bottom = picture_box
    inside = ((pixels >= (left, top)) & (pixels < (right, bottom))).all(axis=-1)
    return np.where(inside, 1.0, _OUTSIDE_WEIGHT)


def fit_track(model: HandModel, seen: Observations, focal_px: float) -> Fit:
    """Fit a hand to one track: from the network's depths and from their mirror image, whichever explains more.

    Args:
        model: the hand of the track's side.
        seen: its landmarks.
        focal_px: focal length of the frames, pixels.
    """
    worlds = (seen.world, seen.world * (1.0, 1.0, -1.0))
    problems = [_Problem(model, replace(seen, world=world), focal_px) for world in worlds]
    starts = [problem.solve(problem.start(), _FIRST_STEPS) for problem in problems]
    starts = _with_neighbours(problems, starts)
    choice = _cheapest_path(starts, seen.frame)
    chosen = _pick([start.hands for start in starts], choice)
    world = np.where(choice[:, None, None] == 1, worlds[1], worlds[0])
    return _Problem(model, replace(seen, world=world), focal_px).solve(chosen, _TIME_STEPS, over_time=True)


def _with_neighbours(problems: list[_Problem], fits: list[Fit]) -> list[Fit]:
    """Fits of each problem after every frame also started from the poses of the frames near it in all of the fits."""
    fits = list(fits)
    for offset in (each for each in _NEIGHBOURS if abs(each) < len(fits[0].hands)):
        near = np.clip(np.arange(len(fits[0].hands)) + offset, 0, len(fits[0].hands) - 1)
        for poses in [fit.hands.select(near) for fit in fits]:
            for index, problem in enumerate(problems):
                other = problem.solve(problem.placed(poses), _FIRST_STEPS)
                fits[index] = _lower(fits[index], other)
    return fits


def _lower(first: Fit, second: Fit) -> Fit:
    """In each frame the fit of less energy."""
    better = second.energy < first.energy
    return Fit(
        _pick([first.hands, second.hands], better.astype(np.int64)),
        np.where(better, second.cost, first.cost),
        np.where(better, second.energy, first.energy),
    )


def _pick(candidates: list[HandPose], choice: npt.NDArray[np.int64]) -> HandPose:
    rows = np.arange(len(choice))
    return HandPose(
        *(
            np.stack([getattr(c, name) for c in candidates])[choice, rows]
            for name in ("orientation", "translation", "angles")
        )
    )


def _cheapest_path(starts: list[Fit], frame: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which start [N] each frame takes, so that both the costs and the turns between frames are small (Viterbi)."""
    costs = np.stack([start.cost for start in starts], axis=1)
    total = costs[0]
    back = np.zeros(costs.shape, np.int64)
    for index in range(1, len(costs)):
        gap = float(frame[index] - frame[index - 1])
        turns = np.array(
            [[_turn(a.hands.orientation[index - 1], b.hands.orientation[index]) for b in starts] for a in starts]
        )
        through = total[:, None] + np.minimum(turns / (_TURN_A_FRAME * gap), 6.0) ** 2 / 6
        back[index] = through.argmin(axis=0)
        total = through.min(axis=0) + costs[index]
    choice = np.zeros(len(costs), np.int64)
    choice[-1] = int(total.argmin())
    for index in range(len(costs) - 1, 0, -1):
        choice[index - 1] = back[index, choice[index]]
    return choice


def _turn(first: Floats, second: Floats) -> float:
    cosine = (float(np.trace(first.T @ second)) - 1) / 2
    return float(np.arccos(np.clip(cosine, -1.0, 1.0)))


class _Problem:
    """Residuals and derivatives of N frames of a track."""

    def __init__(self, model: HandModel, seen: Observations, focal_px: float) -> None:
        self._model, self._seen, self._focal = model, seen, focal_px
        palm = np.linalg.norm(seen.pixels[:, [5, 9, 13, 17]].mean(axis=1) - seen.pixels[:, 0], axis=-1)
        spread = np.linalg.norm(seen.pixels - seen.pixels.mean(axis=1, keepdims=True), axis=-1).mean(axis=1)
        self._size = np.maximum(np.maximum(palm, spread * 1.2), 4.0)
        bones = np.linalg.norm(seen.world[:, [5, 9, 17]] - seen.world[:, :1], axis=-1).mean(axis=1)
        points = model.rest_points + model.landmark_offsets
        rest = np.linalg.norm(points[[5, 9, 17]] - points[0], axis=-1).mean()
        self._world = (seen.world - seen.world[:, :1]) * (rest / np.maximum(bones, 1e-6))[:, None, None]

    def start(self) -> HandPose:
        """The rest pose turned like the network's hand, at the distance at which it is as large as in the picture."""
        model, count = self._model, len(self._seen)
        angles = np.tile(model.usual, (count, 1))
        flat = model.pose(HandPose(np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 3)), angles)).landmarks
        rigid = [0, 1, 5, 9, 13, 17]
        correlation = np.einsum("nka,nkb->nab", self._world[:, rigid], flat[:, rigid])
        left, _, right = np.linalg.svd(correlation)
        sign = np.ones((count, 3))
        sign[:, 2] = np.linalg.det(left @ right)
        orientation = (left * sign[:, None]) @ right
        turned = np.einsum("nab,nkb->nka", orientation, flat)
        pixels = self._seen.pixels
        centre, middle = pixels.mean(axis=1, keepdims=True), turned.mean(axis=1, keepdims=True)
        in_picture = np.linalg.norm(pixels - centre, axis=-1).mean(axis=1)
        across = np.linalg.norm((turned - middle)[..., :2], axis=-1).mean(axis=1)
        depth = np.maximum(self._focal * across / np.maximum(in_picture, 1e-3), 2 * _NEAREST)
        place = np.concatenate([centre[:, 0] * depth[:, None] / self._focal, depth[:, None]], axis=1)
        return HandPose(orientation, place - middle[:, 0], angles)

    def placed(self, hands: HandPose) -> HandPose:
        """Poses moved to where they are as large as in the picture and lie on the middle of the landmarks."""
        pixels = self._seen.pixels
        posed = self._model.pose(hands).landmarks
        shown = self._focal * posed[..., :2] / np.maximum(posed[..., 2:], _NEAREST)
        wanted, found = (
            np.linalg.norm(p - p.mean(axis=1, keepdims=True), axis=-1).mean(axis=1) for p in (pixels, shown)
        )
        depth = np.maximum(hands.translation[:, 2] * found / np.maximum(wanted, 1e-3), 2 * _NEAREST)
        moved = hands.translation * (depth / hands.translation[:, 2])[:, None]
        posed = posed + (moved - hands.translation)[:, None]
        shown = self._focal * posed[..., :2] / np.maximum(posed[..., 2:], _NEAREST)
        moved[:, :2] += (pixels - shown).mean(axis=1) * depth[:, None] / self._focal
        return HandPose(hands.orientation, moved, hands.angles)

    def solve(self, hands: HandPose, steps: int, *, over_time: bool = False) -> Fit:
        """Damped least squares from a start; each frame keeps its own damping and never gets worse."""
        damping = np.full(len(hands), 1e-2)
        goal = self._goal(hands) if over_time else None
        residual, derivative = self._linearised(hands, goal)
        cost = (residual**2).sum(axis=1)
        for _ in range(steps):
            normal = np.einsum("nrp,nrq->npq", derivative, derivative, optimize=True)
            slope = np.einsum("nrp,nr->np", derivative, residual)
            diagonal = np.einsum("npp->np", normal)
            step = np.linalg.solve(normal + _diagonal(damping[:, None] * diagonal + 1e-9), -slope[..., None])[..., 0]
            tried = self._moved(hands, step)
            new_residual, new_derivative = self._linearised(tried, goal)
            new_cost = (new_residual**2).sum(axis=1)
            better = new_cost < cost
            hands = _pick([hands, tried], better.astype(np.int64))
            residual[better], derivative[better] = new_residual[better], new_derivative[better]
            cost = np.where(better, new_cost, cost)
            damping = np.clip(np.where(better, damping / 4, damping * 5), 1e-6, 1e6)
            if over_time:
                goal = self._goal(hands)
                residual, derivative = self._linearised(hands, goal)
                cost = (residual**2).sum(axis=1)
        return Fit(hands, self._landmark_cost(hands), cost)

    def _moved(self, hands: HandPose, step: Floats) -> HandPose:
        orientation = matrix_from_axis_angle(step[:, :3]) @ hands.orientation
        translation = hands.translation + step[:, 3:6] * hands.translation[:, 2:]
        translation[:, 2] = np.maximum(translation[:, 2], _NEAREST)
        angles = np.clip(hands.angles + step[:, 6:], self._model.lower, self._model.upper)
        return HandPose(orientation, translation, angles)

    def _landmark_cost(self, hands: HandPose) -> Floats:
        offset = self._pixel_offsets(self._model.pose(hands))
        cost: Floats = (self._seen.weight * (offset**2).sum(axis=-1)).mean(axis=1)
        return cost

    def _pixel_offsets(self, posed: PosedHand) -> Floats:
        depth = np.maximum(posed.landmarks[..., 2:], _NEAREST / 2)
        pixels = self._focal * posed.landmarks[..., :2] / depth
        result: Floats = (pixels - self._seen.pixels) / (self._size * _POINT_SIGMA)[:, None, None]
        return result

    def _linearised(self, hands: HandPose, goal: HandPose | None) -> tuple[Floats, Floats]:
        """Residuals [N,R] and their derivatives [N,R,6+H]: turn, shift in units of the depth, hinges."""
        posed = self._model.pose(hands)
        count, hinges = len(hands), self._model.num_hinges
        moved = self._point_derivatives(posed, hands)
        offset = self._pixel_offsets(posed)
        depth = np.maximum(posed.landmarks[..., 2], _NEAREST / 2)[..., None, None]
        scale = (self._focal / (self._size * _POINT_SIGMA))[:, None, None, None] / depth
        slope = posed.landmarks[..., :2, None] / depth
        of_pixels = scale * (moved[..., :2, :] - slope * moved[..., 2:, :])
        # Far landmarks count less (Cauchy), those outside the picture too.
        trust = np.sqrt(self._seen.weight / (1 + (offset**2).sum(axis=-1) / _FAR_LANDMARK**2))[..., None]
        palm = self._model.palm_length * _DEPTH_SIGMA
        against = posed.landmarks[..., 2] - posed.landmarks[:, :1, 2]
        of_depth = (moved[..., 2, :] - moved[:, :1, 2, :]) / palm
        parts = [(offset * trust).reshape(count, -1), (against - self._world[..., 2]) / palm]
        slopes = [(of_pixels * trust[..., None]).reshape(count, -1, 6 + hinges), of_depth]
        parts.append((hands.angles - self._model.usual) / _USUAL_SIGMA)
        slopes.append(np.tile(np.eye(6 + hinges)[6:] / _USUAL_SIGMA, (count, 1, 1)))
        if goal is not None:
            residual, derivative = self._over_time(hands, goal)
            parts.append(residual)
            slopes.append(derivative)
        return np.concatenate(parts, axis=1), np.concatenate(slopes, axis=1)

    def _point_derivatives(self, posed: PosedHand, hands: HandPose) -> Floats:
        """Derivatives [N,21,3,6+H] of the landmarks."""
        count, hinges = len(hands), self._model.num_hinges
        result = np.zeros((count, 21, 3, 6 + hinges))
        arm = posed.landmarks - hands.translation[:, None]
        for axis in range(3):
            result[..., axis] = np.cross(np.eye(3)[axis], arm)
            result[:, :, axis, 3 + axis] = hands.translation[:, None, 2]
        for hinge in range(hinges):
            moves = self._model.moves[hinge]
            lever = posed.landmarks[:, moves] - posed.origins[:, hinge, None]
            of_hinge = result[..., 6 + hinge]
            of_hinge[:, moves] = np.cross(posed.axes[:, hinge, None], lever)
        return result

    def _goal(self, hands: HandPose) -> HandPose:
        """What the neighbouring frames say each frame should be; a frame without neighbours says it itself."""
        frame = self._seen.frame
        angles, log_depth = hands.angles.copy(), np.log(hands.translation[:, 2])
        orientation = hands.orientation.copy()
        depths = log_depth.copy()
        linked = [False, *(np.diff(frame) <= _LINKED_FRAMES), False]  # whether each frame goes on from the one before
        for index in range(len(hands)):
            sides = [near_by for near_by in (index - 1, index + 1) if linked[max(index, near_by)]]
            if sides:
                angles[index] = hands.angles[sides].mean(axis=0)
                depths[index] = log_depth[sides].mean()
                orientation[index] = _mean_rotation(hands.orientation[sides])
        translation = hands.translation.copy()
        translation[:, 2] = np.exp(depths)
        return HandPose(orientation, translation, angles)

    def _over_time(self, hands: HandPose, goal: HandPose) -> tuple[Floats, Floats]:
        count, hinges = len(hands), self._model.num_hinges
        turn = axis_angle_from_matrix(hands.orientation @ np.swapaxes(goal.orientation, 1, 2)) / _TURN_A_FRAME
        depth = np.log(hands.translation[:, 2:] / goal.translation[:, 2:]) / _DEPTH_A_FRAME
        bend = (hands.angles - goal.angles) / _BEND_A_FRAME
        slope = np.zeros((4 + hinges, 6 + hinges))
        slope[:3, :3] = np.eye(3) / _TURN_A_FRAME
        slope[3, 5] = 1 / _DEPTH_A_FRAME
        slope[4:, 6:] = np.eye(hinges) / _BEND_A_FRAME
        return np.concatenate([turn, depth, bend], axis=1), np.tile(slope, (count, 1, 1))


def _diagonal(values: Floats) -> Floats:
    result: Floats = values[:, :, None] * np.eye(values.shape[1])
    return result


def _mean_rotation(rotations: Floats) -> Floats:
    left, _, right = np.linalg.svd(rotations.mean(axis=0))
    result: Floats = (left * (1, 1, np.linalg.det(left @ right))) @ right
    return result
