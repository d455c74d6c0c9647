"""Ways over the free floor of a room: curves that keep clear of what stands on it and end where the person acts.

Everything is in the frame of the person's place: metres, y up, the person ends facing +z with the left at +x.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from manifests.errors import DwmError
from render.rotations import Floats
from render.scene import Surface
from sources.synthetic.household import Household

FURNITURE_CLEARANCE_M = 0.40
"""From the pelvis' way to anything that stands on the floor."""
_MOVABLE_CLEARANCE_M = 0.28
"""To a drawer or door that stands open: it ends in front of the person, who is about to close it."""

_FLAT_M, _OVERHEAD_M = 0.05, 2.0
"""What ends below (floor, rug) or begins above (ceiling) is in nobody's way."""
_SHORTEST_M, _LONGEST_M = 1.1, 1.65
_SHARPEST_TURN = 0.95
"""Most turn within a third of the way, radians: about one step."""
_TRIES = 300
"""Of 600 ways in 150 rooms none took more than 24."""
_POINTS = 61


@dataclass(frozen=True)
class Footprint:
    """What a thing takes of the floor: a rectangle from ``low`` to ``high`` [2] (x, z)."""

    low: Floats
    high: Floats

    def distance(self, points: Floats) -> Floats:
        """Distances [...] of points [...,2] (x, z); 0 inside."""
        outside = np.maximum(np.maximum(self.low - points, points - self.high), 0.0)
        result: Floats = np.linalg.norm(outside, axis=-1)
        return result


@dataclass(frozen=True)
class Route:
    """A way over the floor.

    Attributes:
        points: [n,2] (x, z), evenly spaced.
        headings: [n] where it goes, radians from +z to the left (+x).
        length: metres.
    """

    points: Floats
    headings: Floats
    length: float

    def at(self, way: Floats) -> tuple[Floats, Floats]:
        """Places [...,2] and headings [...] after ``way`` [...] metres."""
        marks = np.linspace(0.0, self.length, len(self.points))
        x, z, heading = (
            np.interp(way, marks, column) for column in (self.points[:, 0], self.points[:, 1], self.headings)
        )
        return np.stack([x, z], axis=-1), heading


def furniture_footprints(household: Household, place: Floats) -> list[Footprint]:
    """Footprints of walls and furniture in the frame of a place [4,4]."""
    into = np.linalg.inv(place)
    prints = (footprint_of(item.surfaces, into @ item.pose) for item in household.background)
    return [each for each in prints if each is not None]


def footprint_of(surfaces: Iterable[Surface], pose: Floats) -> Footprint | None:
    """Footprint of a thing at a pose [4,4]; None for what lies flat on the floor or hangs overhead."""
    vertices = np.concatenate([surface.vertices for surface in surfaces]).astype(np.float64)
    points = vertices @ pose[:3, :3].T + pose[:3, 3]
    low, high = points.min(axis=0), points.max(axis=0)
    if high[1] < _FLAT_M or low[1] > _OVERHEAD_M:
        return None
    return Footprint(low[[0, 2]], high[[0, 2]])


def find_route(
    furniture: Sequence[Footprint], movable: Sequence[Footprint], end_x: float, random: np.random.Generator
) -> Route:
    """A way from somewhere behind the place to (end_x, 0), clear of everything, that ends facing +z.

    Args:
        furniture: to keep `FURNITURE_CLEARANCE_M` from.
        movable: open drawers and doors, to keep a little less from.
        end_x: where the pelvis is when the person acts.
        random: of the recording.

    Raises:
        DwmError: there is no free floor behind the place.
    """
    for _ in range(_TRIES):
        route = _random_route(random, end_x)
        if _is_walkable(route) and is_clear(route.points, furniture, movable):
            return route
    raise DwmError(
        f"no way of {_SHORTEST_M} m to the furniture keeps {FURNITURE_CLEARANCE_M} m from everything; "
        "leave more floor free behind the places of `make_household`"
    )


def is_clear(points: Floats, furniture: Sequence[Footprint], movable: Sequence[Footprint]) -> bool:
    """Whether points [n,2] keep the distances that a route must keep."""
    return all(
        float(each.distance(points).min()) >= clearance
        for each, clearance in (
            *((each, FURNITURE_CLEARANCE_M) for each in furniture),
            *((each, _MOVABLE_CLEARANCE_M) for each in movable),
        )
    )


def _random_route(random: np.random.Generator, end_x: float) -> Route:
    distance = float(random.uniform(_SHORTEST_M - 0.05, _LONGEST_M - 0.05))
    angle = float(random.uniform(-1.4, 1.4))  # from straight behind
    start = np.array([end_x, 0.0]) + distance * np.array([np.sin(angle), -np.cos(angle)])
    first = -angle + float(random.uniform(-0.5, 0.5))
    return _curve(start, first, end_x)


def _curve(start: Floats, heading: float, end_x: float) -> Route:
    """A cubic curve from ``start`` [2] in the direction ``heading`` to (end_x, 0) in the direction +z."""
    end = np.array([end_x, 0.0])
    handle = 0.4 * float(np.linalg.norm(end - start))
    corners = np.stack([start, start + handle * np.array([np.sin(heading), np.cos(heading)]), end - [0.0, handle], end])
    share = np.linspace(0.0, 1.0, 8 * _POINTS)[:, None]
    shape = np.hstack([(1 - share) ** 3, 3 * share * (1 - share) ** 2, 3 * share**2 * (1 - share), share**3])
    dense = shape @ corners
    marks = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    even = np.linspace(0.0, marks[-1], _POINTS)
    points = np.stack([np.interp(even, marks, column) for column in dense.T], axis=1)
    steps = np.diff(points, axis=0)
    middle = np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))
    headings = np.concatenate([[heading], (middle[1:] + middle[:-1]) / 2, [0.0]])
    return Route(points, headings, float(marks[-1]))


def _is_walkable(route: Route) -> bool:
    third = len(route.points) // 3
    turns = np.abs(route.headings[third:] - route.headings[:-third])
    return _SHORTEST_M <= route.length <= _LONGEST_M and float(turns.max()) <= _SHARPEST_TURN
