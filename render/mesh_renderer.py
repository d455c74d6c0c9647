"""The mesh renderer: one pass over a clip gives its aligned triplet with depth and masks (paper section 3.3).

The interaction and the static frame of a camera come from the same uploaded meshes and the same lights, so that they
are equal wherever nothing moves and no light changes; the masks say where that is not so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from manifests.schema import MaskId
from render.camera import Camera, CameraPath, intrinsics_from_fov, invert_pose, look_at, opengl_projection
from render.gl_context import current_description, open_context
from render.hands import LEFT_COLOUR, RIGHT_COLOUR, HandMotion
from render.rotations import Floats, normalised
from render.scene import Actor, FloatArray, Image, Lighting, ObjectTrack, Scene, plain_surface, vertex_normals

if TYPE_CHECKING:
    from render.gl_clip import UploadedClip
    from render.gl_draw import Canvas, DrawItem, Program, ShadowMap, View

_Number = TypeVar("_Number", bound=np.generic)

NEAR_M, FAR_M = 0.05, 20.0
"""Clip planes of the camera: nearer than its own head, farther than any room."""

_SHADOW_UNIT = 1
_SPOT_NEAR_M, _SPOT_FAR_M = 0.2, 8.0


@dataclass(frozen=True)
class ClipImages:
    """A rendered clip of T frames, height H, width W.

    Attributes:
        interaction: [T,H,W,3] uint8, scene, moved objects and actor.
        static: [T,H,W,3] uint8, the same cameras without actor, objects where they were in the clip's first frame.
        hands: [T,H,W,3] uint8, only the hand meshes.
        ids: [T,H,W] uint8, `MaskId` of the interaction video.
        depth: [T,H,W] float32 metres along z of the interaction video, 0 = nothing.
        hand_pixels: [N] share of the image (0-1) that each entry of the hand motion covers in the hand video.
    """

    interaction: Image
    static: Image
    hands: Image
    ids: Image
    depth: FloatArray
    hand_pixels: Floats


class MeshRenderer:
    """Draws clips of one image size; meshes of the scene are uploaded once a clip. Use it as a context manager.

    Args:
        width: width of the images, pixels.
        height: height of the images, pixels.
        scale: images are drawn this much larger and reduced by area, which smooths edges.
        shadow_size: side of the shadow maps, pixels.

    Raises:
        DwmError: there is no usable OpenGL.
    """

    def __init__(self, width: int, height: int, *, scale: int = 1, shadow_size: int = 1024) -> None:
        self.width, self.height, self.scale = width, height, scale
        self._context = open_context(width * scale, height * scale)
        from render import gl_clip, gl_draw  # they import OpenGL, whose platform is chosen by now

        self._draw = gl_draw
        self._upload_clip = gl_clip.UploadedClip
        self.description = current_description()
        self._surface_program = gl_draw.Program("surface.vert", "surface.frag")
        self._shadow_program = gl_draw.Program("surface.vert", "shadow.frag")
        self._hands_program = gl_draw.Program("surface.vert", "hands.frag")
        self._canvas: Canvas = gl_draw.Canvas(width * scale, height * scale)
        # Light through: what never moves; with moved objects where the static video shows them; as it is now.
        self._fixed_shadow, self._static_shadow, self._live_shadow = (gl_draw.ShadowMap(shadow_size) for _ in range(3))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the context."""
        self._context.delete()

    def render_clip(
        self,
        scene: Scene,
        tracks: Sequence[ObjectTrack],
        actor: Actor,
        hand_motion: HandMotion,
        cameras: CameraPath,
    ) -> ClipImages:
        """Render the triplet, masks and depth of a clip; moved objects rest at their first pose in the static video.

        Args:
            scene: what stands still, and the lights.
            tracks: the objects that move, T poses each.
            actor: the body over T frames.
            hand_motion: the hands to draw in the hand video.
            cameras: T poses, intrinsics for the image size of this renderer.
        """
        hands, hand_pixels = self.render_hands(hand_motion, cameras.intrinsics, len(cameras))
        uploaded = self._upload_clip(scene, tracks, actor)
        try:
            frames = self._render_frames(uploaded, scene, cameras)
        finally:
            uploaded.delete()
        static, interaction, ids, depth = (np.stack(images) for images in zip(*frames, strict=True))
        return ClipImages(interaction, static, hands, ids, depth, hand_pixels)

    def render_hands(self, motion: HandMotion, intrinsics: Floats, num_frames: int) -> tuple[Image, Floats]:
        """Draw the hand video [T,H,W,3] uint8 and the share of the image that each entry covers [N].

        Args:
            motion: hands in the camera's frame, from any estimator.
            intrinsics: [3,3] for the image size of this renderer.
            num_frames: T.
        """
        frames = np.zeros((num_frames, self.height, self.width, 3), np.uint8)
        shares = np.zeros(len(motion))
        items = {side: self._hand_item(motion, side) for side in (False, True)}
        program = self._hands_program
        camera = Camera(intrinsics, np.eye(4))
        for frame in range(num_frames):
            entries = np.flatnonzero(motion.frame == frame)
            if not len(entries):
                continue
            self._canvas.begin((0.0, 0.0, 0.0))
            program.use()
            program.matrix("clip_from_world", self._clip_from_world(camera))
            for entry in entries:
                side = bool(motion.is_right[entry])
                faces = motion.faces(side)
                vertices = motion.vertices[entry, : int(faces.max()) + 1]
                self._draw.update_vertices(items[side], vertices, vertex_normals(vertices, faces))
                self._draw.draw_items(program, [replace(items[side], instance=int(entry) + 1)])
            view = self._canvas.read()
            frames[frame] = self._reduced(view.colour)
            for entry in entries:
                shares[entry] = np.mean(view.instances == entry + 1)
        self._draw.delete_items(list(items.values()))
        return frames, shares

    def _hand_item(self, motion: HandMotion, is_right: bool) -> DrawItem:
        faces = motion.faces(is_right)
        colour = RIGHT_COLOUR if is_right else LEFT_COLOUR
        surface = plain_surface(np.zeros((int(faces.max()) + 1, 3), np.float32), faces, colour)
        return self._draw.make_item(surface, self._draw.make_texture(None), np.eye(4), 0)

    def _render_frames(
        self, clip: UploadedClip, scene: Scene, cameras: CameraPath
    ) -> list[tuple[Image, Image, Image, FloatArray]]:
        light = _SpotView(scene.lighting)
        self._draw_shadows(light, self._fixed_shadow, clip.fixed, start=None)
        clip.place_objects(0)
        self._draw_shadows(light, self._static_shadow, clip.movable, start=self._fixed_shadow)
        results = []
        for frame in range(len(cameras)):
            camera = cameras[frame]
            clip.place_objects(0)
            static = self._view(scene, light, camera, [*clip.fixed, *clip.movable], self._static_shadow)
            clip.place_objects(frame)
            clip.place_actor(frame)
            moving = [*clip.movable, *clip.actor]
            self._draw_shadows(light, self._live_shadow, moving, start=self._fixed_shadow)
            live = self._view(scene, light, camera, [*clip.fixed, *moving], self._live_shadow)
            ids = reduce_ids(mask_ids(static, live, clip.categories), self.scale)
            depth = reduce_depth(live.depth, self.scale)
            results.append((self._reduced(static.colour), self._reduced(live.colour), ids, depth))
        return results

    def _draw_shadows(
        self, light: _SpotView, target: ShadowMap, items: Sequence[DrawItem], start: ShadowMap | None
    ) -> None:
        target.begin(start)
        self._shadow_program.use()
        self._shadow_program.matrix("clip_from_world", light.clip_from_world)
        self._draw.draw_items(self._shadow_program, items, shaded=False)

    def _view(
        self, scene: Scene, light: _SpotView, camera: Camera, items: Sequence[DrawItem], shadows: ShadowMap
    ) -> View:
        program = self._surface_program
        self._canvas.begin(scene.background)
        program.use()
        program.matrix("clip_from_world", self._clip_from_world(camera))
        program.vector("camera_position", camera.world_from_camera[:3, 3])
        program.vector("camera_forward", camera.world_from_camera[:3, 2])
        _set_lights(program, scene.lighting, light)
        program.sampler("surface_texture", 0)
        program.sampler("shadow_map", _SHADOW_UNIT)
        shadows.bind(_SHADOW_UNIT)
        self._draw.draw_items(program, items)
        return self._canvas.read()

    def _clip_from_world(self, camera: Camera) -> Floats:
        projection = opengl_projection(camera.intrinsics, self.width, self.height, NEAR_M, FAR_M)
        result: Floats = projection @ invert_pose(camera.opengl_pose)
        return result

    def _reduced(self, image: Image) -> Image:
        if self.scale == 1:
            return image
        return np.asarray(cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA), np.uint8)


class _SpotView:
    """The spot light as a camera."""

    def __init__(self, lighting: Lighting) -> None:
        spot = lighting.spot
        up = (0.0, 0.0, 1.0) if abs(normalised(np.subtract(spot.target, spot.position))[1]) > 0.95 else (0.0, 1.0, 0.0)
        camera = Camera(intrinsics_from_fov(2, 2, spot.cone_degrees), look_at(spot.position, spot.target, up))
        self.direction = camera.world_from_camera[:3, 2]
        projection = opengl_projection(camera.intrinsics, 2, 2, _SPOT_NEAR_M, _SPOT_FAR_M)
        self.clip_from_world = projection @ invert_pose(camera.opengl_pose)


def _set_lights(program: Program, lighting: Lighting, light: _SpotView) -> None:
    cone = np.radians(lighting.spot.cone_degrees) / 2
    program.vector("sky_light", lighting.sky)
    program.vector("ground_light", lighting.ground)
    program.vector("spot_position", lighting.spot.position)
    program.vector("spot_direction", light.direction)
    program.vector("spot_light", lighting.spot.power)
    program.vector("spot_cosines", (np.cos(cone * 0.98), np.cos(cone * 0.6)))
    program.vector("fill_position", lighting.fill_position)
    program.vector("fill_light", lighting.fill_power)
    program.matrix("shadow_clip_from_world", light.clip_from_world)


def mask_ids(static: View, live: View, categories: Sequence[int]) -> Image:
    """`MaskId` [h,w] of a frame from its two passes; ``categories`` holds the `MaskId` of each instance number."""
    table = np.asarray(categories, np.uint8)
    now, before = table[live.instances], table[static.instances]
    ids = np.where(static.light_bits != live.light_bits, MaskId.SHADOW, MaskId.BACKGROUND).astype(np.uint8)
    ids[before == MaskId.MOVED_OBJECT] = MaskId.MOVED_OBJECT
    shown = now != MaskId.BACKGROUND
    ids[shown] = now[shown]
    return ids


def reduce_ids(ids: Image, scale: int) -> Image:
    """Reduce mask ids by a whole factor: background only where every part is, else the id with most parts."""
    parts = _blocks(ids, scale)
    counts = np.stack([(parts == value).sum(axis=-1) for value in range(1, MaskId.SHADOW + 1)])
    # The first of equal counts wins: hands before the actor before moved objects before shadows.
    return np.where(counts.any(axis=0), counts.argmax(axis=0) + 1, MaskId.BACKGROUND).astype(np.uint8)


def reduce_depth(depth: FloatArray, scale: int) -> FloatArray:
    """Reduce depth by a whole factor to a value that a surface really has: the lower median of each block."""
    parts = np.sort(_blocks(depth, scale), axis=-1)
    return np.ascontiguousarray(parts[..., (scale * scale - 1) // 2])


def _blocks(image: npt.NDArray[_Number], scale: int) -> npt.NDArray[_Number]:
    """[h*scale, w*scale] as [h, w, scale*scale]."""
    height, width = image.shape[0] // scale, image.shape[1] // scale
    return image.reshape(height, scale, width, scale).swapaxes(1, 2).reshape(height, width, scale * scale)
