"""Light and camera of a frame as the shaders take them: uniforms, and shadow maps that follow what moves.

Import it only after a context is open (`render.gl_context`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from render.camera import Camera, intrinsics_from_fov, invert_pose, look_at, opengl_projection
from render.gl_draw import DrawItem, Program
from render.gl_targets import ShadowMap
from render.rotations import Floats, normalised
from render.scene import Lighting

_SHADOW_UNIT, _LIVE_SHADOW_UNIT = 1, 2
_WHOLE_MAP = np.array([0.0, 0.0, 1.0, 1.0])
_SHADOW_BLUR_TEXELS = 3


class ShadowMaps:
    """Light through: what stands still; with moved objects at their rest poses; as it is now."""

    def __init__(self, size: int) -> None:
        self._program = Program("shadow.vert", "shadow.frag")
        self._fixed, self._static, self._live = (ShadowMap(size) for _ in range(3))
        self._margin = _SHADOW_BLUR_TEXELS / size
        self._rest_area = self._live_area = self._changed = _WHOLE_MAP

    @property
    def differ(self) -> bool:
        """Whether the live map differs from the static one anywhere."""
        return bool((self._changed[:2] < self._changed[2:]).all())

    def start_clip(self, light: SpotView, still: Sequence[DrawItem], movable: Sequence[DrawItem]) -> None:
        """Draw what does not change over a clip; the movable items are at their rest poses."""
        self._fixed.begin()
        self._draw(light, still)
        self._static.begin_with(self._fixed, _WHOLE_MAP)
        self._draw(light, movable)
        self._rest_area = light.area_in_map(movable, self._margin)
        self._live.begin_with(self._fixed, _WHOLE_MAP)
        self._live_area = light.area_in_map((), self._margin)

    def draw_live(self, light: SpotView, moving: Sequence[DrawItem]) -> None:
        """Draw what moves, as it is now, over what stands still."""
        self._live.begin_with(self._fixed, self._live_area)
        self._draw(light, moving)
        self._live_area = light.area_in_map(moving, self._margin)
        low = np.minimum(self._rest_area[:2], self._live_area[:2])
        high = np.maximum(self._rest_area[2:], self._live_area[2:])
        self._changed = np.concatenate([low, high])

    def bind(self, program: Program, *, static: bool) -> None:
        """Give a program the maps: the static one or the live one first, and where they differ."""
        (self._static if static else self._live).bind(_SHADOW_UNIT)
        self._live.bind(_LIVE_SHADOW_UNIT)
        program.sampler("shadow_map", _SHADOW_UNIT)
        program.sampler("live_shadow_map", _LIVE_SHADOW_UNIT)
        program.vector("changed_area", self._changed)

    def _draw(self, light: SpotView, items: Sequence[DrawItem]) -> None:
        self._program.use()
        self._program.matrix("clip_from_world", light.clip_from_world)
        self._program.draw_shadows(items)


class SpotView:
    """The spot light as a camera."""

    def __init__(self, lighting: Lighting) -> None:
        spot = lighting.spot
        up = (0.0, 0.0, 1.0) if abs(normalised(np.subtract(spot.target, spot.position))[1]) > 0.95 else (0.0, 1.0, 0.0)
        camera = Camera(intrinsics_from_fov(2, 2, spot.cone_degrees), look_at(spot.position, spot.target, up))
        self.direction = camera.world_from_camera[:3, 2]
        projection = opengl_projection(camera.intrinsics, 2, 2, spot.near_m, spot.far_m)
        self.clip_from_world = projection @ invert_pose(camera.opengl_pose)

    def area_in_map(self, items: Sequence[DrawItem], margin: float) -> Floats:
        """Smallest area (low x y, high x y, of 0-1) of the shadow map that holds some items, with a margin."""
        if not items:
            return np.array([1.0, 1.0, 0.0, 0.0])
        corners = np.concatenate([item.world_corners for item in items]) @ self.clip_from_world.T
        if (corners[:, 3] < 1e-6).any():  # beside or behind the light: no box in the map bounds it
            return _WHOLE_MAP
        places = corners[:, :2] / corners[:, 3:] * 0.5 + 0.5
        return np.concatenate([places.min(axis=0) - margin, places.max(axis=0) + margin])


@dataclass(frozen=True)
class LitView:
    """A camera and the lights, as uniforms."""

    lighting: Lighting
    light: SpotView
    clip_from_world: Floats
    eye: Floats

    def set_uniforms(self, program: Program) -> None:
        """Set what all surfaces share."""
        spot = self.lighting.spot
        cone = np.radians(spot.cone_degrees) / 2
        program.matrix("clip_from_world", self.clip_from_world)
        program.matrix("shadow_clip_from_world", self.light.clip_from_world)
        program.vector("camera_position", self.eye)
        program.vector("sky_light", self.lighting.sky)
        program.vector("ground_light", self.lighting.ground)
        program.vector("spot_position", spot.position)
        program.vector("spot_direction", self.light.direction)
        program.vector("spot_light", spot.power)
        program.vector("spot_cosines", (np.cos(cone * 0.98), np.cos(cone * spot.full_share)))
        program.vector("fill_position", self.lighting.fill_position)
        program.vector("fill_light", self.lighting.fill_power)
