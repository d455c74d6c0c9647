"""Simple solids with signed distances: what hands must touch and must not pierce. Metres, axes of the object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from render.rotations import Floats


@dataclass(frozen=True)
class Box:
    """A box along the axes: ``centre`` [3] and ``size`` [3]."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]

    def distance(self, points: npt.ArrayLike) -> Floats:
        """Signed distances [...] of points [...,3], negative inside."""
        outside = np.abs(np.asarray(points) - self.centre) - np.asarray(self.size) / 2
        inner = np.minimum(outside.max(axis=-1), 0.0)
        result: Floats = np.linalg.norm(outside.clip(0.0), axis=-1) + inner
        return result


@dataclass(frozen=True)
class Cylinder:
    """A closed cylinder around ``centre`` along ``axis`` (0 = x, 1 = y, 2 = z)."""

    centre: tuple[float, float, float]
    radius: float
    length: float
    axis: int = 1

    def distance(self, points: npt.ArrayLike) -> Floats:
        """Signed distances [...] of points [...,3], negative inside."""
        offset = np.asarray(points) - self.centre
        across = [axis for axis in range(3) if axis != self.axis]
        radial = np.linalg.norm(offset[..., across], axis=-1) - self.radius
        along = np.abs(offset[..., self.axis]) - self.length / 2
        outside = np.stack([radial, along], axis=-1)
        inner = np.minimum(outside.max(axis=-1), 0.0)
        result: Floats = np.linalg.norm(outside.clip(0.0), axis=-1) + inner
        return result


Solid = Box | Cylinder


def distance_to(solids: Sequence[Solid], points: npt.ArrayLike) -> Floats:
    """Signed distances [...] of points [...,3] to the nearest of some solids."""
    result: Floats = np.min([solid.distance(points) for solid in solids], axis=0)
    return result
