"""The mesh renderer: one pass over a clip gives its aligned triplet with depth and masks (paper section 3.3).

What stands still is shaded once a frame for both the interaction and the static image; where a moving thing's shadow
falls, its light is taken twice. What moves is then drawn into one of the images. So the images are equal, bit by bit,
wherever nothing moves and no light changes, and the masks say where that is not so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import cv2
import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.camera import Camera, CameraPath, invert_pose, opengl_projection
from render.frame_maps import FAR_M, NEAR_M, camera_depth, mask_ids, reduce_depth, reduce_ids
from render.gl_context import current_description, open_context
from render.hands import LEFT_COLOUR, RIGHT_COLOUR, HandMotion
from render.rotations import Floats
from render.scene import Actor, Colour, Image, ObjectTrack, Scene, plain_surface, vertex_normals

if TYPE_CHECKING:
    from render.gl_clip import UploadedActor
    from render.gl_draw import DrawItem, Program
    from render.gl_lights import LitView
    from render.gl_targets import FrameTargets, FrameViews

Instances = npt.NDArray[np.uint8 | np.uint16]
HalfFloats = npt.NDArray[np.float16]

_TEXTURE_UNIT = 0
_UPSIDE_DOWN = np.diag([1.0, -1.0, 1.0, 1.0])
"""OpenGL's first row is the lowest, an image's the highest."""


@dataclass(frozen=True, kw_only=True)
class ClipViews:
    """What the scene looks like over a clip of T frames, height H, width W.

    Attributes:
        interaction: [T,H,W,3] uint8, scene, moved objects and actor.
        static: [T,H,W,3] uint8, the same cameras without actor, objects at their rest poses.
        ids: [T,H,W] uint8, `MaskId` of the interaction video.
        depth: [T,H,W] float16 metres along z of the interaction video, 0 = nothing.
        instances: [T,H,W] uint8 or uint16, the interaction video's ``instance_names[value - 1]``, 0 = nothing.
        instance_names: names of the scene's objects, of the tracks, then ``actor``, ``left hand``, ``right hand``.
    """

    interaction: Image
    static: Image
    ids: Image
    depth: HalfFloats
    instances: Instances
    instance_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ClipImages(ClipViews):
    """A whole rendered clip: its views and its hand video.

    Attributes:
        hands: [T,H,W,3] uint8, only the hand meshes.
        hand_pixels: [N] share of the image (0-1) that each entry of the hand motion covers in the hand video.
    """

    hands: Image
    hand_pixels: Floats


class MeshRenderer:
    """Draws clips of one image size. Meshes stay uploaded until another scene comes. Use it as a context manager.

    Args:
        width: width of the images, pixels.
        height: height of the images, pixels.
        scale: images are drawn this much larger and reduced by area, which smooths edges.
        samples: samples a pixel (MSAA), 0 or 4, which smooths the edges of meshes at less cost.
        shadows: whether the main light casts shadows.
        actor_shadows: whether the actor casts one too.
        shadow_size: side of the shadow maps, pixels.

    Raises:
        DwmError: there is no usable OpenGL, or it has no such multisampling.
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        scale: int = 1,
        samples: Literal[0, 4] = 0,
        shadows: bool = True,
        actor_shadows: bool = True,
        shadow_size: int = 1024,
    ) -> None:
        self.width, self.height, self.scale = width, height, scale
        self._actor_shadows = actor_shadows
        self._context = open_context(width * scale, height * scale)
        from render import (  # they import OpenGL, whose platform is chosen by now
            gl_clip,
            gl_draw,
            gl_lights,
            gl_targets,
        )

        self.description = current_description()
        self._draw, self._clip, self._lights = gl_draw, gl_clip, gl_lights
        self._targets: FrameTargets = gl_targets.FrameTargets(width * scale, height * scale, samples)
        self._shadow_maps = gl_lights.ShadowMaps(shadow_size) if shadows else None
        self._surface_programs: dict[tuple[str, ...], Program] = {}
        self._hands_program: Program = gl_draw.Program("surface.vert", "hands.frag")
        self._objects = gl_clip.UploadedObjects()
        self._scene: Scene | None = None
        self._actor: UploadedActor | None = None

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
        """Render the triplet, masks and depth of a clip: `render_hands` and `render_views` together.

        Args:
            scene: what stands still, and the lights.
            tracks: the objects that may move, T poses each.
            actor: the body over T frames.
            hand_motion: the hands to draw in the hand video.
            cameras: T poses, intrinsics for the image size of this renderer.

        Raises:
            DwmError: a track or the actor has another number of frames than the cameras.
        """
        hands, hand_pixels = self.render_hands(hand_motion, cameras.intrinsics, len(cameras))
        views = self.render_views(scene, tracks, actor, cameras)
        return ClipImages(**vars(views), hands=hands, hand_pixels=hand_pixels)

    def render_views(self, scene: Scene, tracks: Sequence[ObjectTrack], actor: Actor, cameras: CameraPath) -> ClipViews:
        """Render the interaction and the static video with masks and depth.

        The scene, the tracks' objects and the actor's arrays are known by their identity: passing the same ones with
        the next clip saves uploading them again.

        Args:
            scene: what stands still, and the lights.
            tracks: the objects that may move, T poses each; those that are still are drawn with the scene.
            actor: the body over T frames.
            cameras: T poses, intrinsics for the image size of this renderer.

        Raises:
            DwmError: a track or the actor has another number of frames than the cameras.
        """
        lengths = {item.scene_object.name: len(item.poses) for item in tracks} | {"actor": len(actor.vertices)}
        for name, frames in lengths.items():
            if frames != len(cameras):
                raise DwmError(f"{name}: has {frames} frames, the cameras have {len(cameras)}; cut them alike")
        clip = self._prepared(scene, tracks, actor)
        return self._render_frames(clip, scene, actor, cameras)

    def render_hands(self, motion: HandMotion, intrinsics: Floats, num_frames: int) -> tuple[Image, Floats]:
        """Draw the hand video [T,H,W,3] uint8 and the share of the image that each entry covers [N].

        Args:
            motion: hands in the camera's frame, from any estimator.
            intrinsics: [3,3] for the image size of this renderer.
            num_frames: T.
        """
        frames = np.zeros((num_frames, self.height, self.width, 3), np.uint8)
        shares = np.zeros(len(motion))
        sides = {side: self._hand_item(motion, side) for side in (False, True)}
        counts = {side: int(motion.faces(side).max()) + 1 for side in (False, True)}
        program = self._hands_program
        for frame in range(num_frames):
            entries = np.flatnonzero(motion.frame == frame)
            if not len(entries):
                continue
            self._targets.begin_live((0.0, 0.0, 0.0))
            program.use()
            program.matrix("clip_from_world", self._clip_from_world(Camera(intrinsics, np.eye(4))))
            for number, entry in enumerate(entries, start=1):
                side = bool(motion.is_right[entry])
                vertices = motion.vertices[entry, : counts[side]]
                sides[side].update_vertices(vertices, vertex_normals(vertices, motion.faces(side)))
                sides[side].instance = number
                program.draw([sides[side]])
            colour, instances = self._targets.read_live()
            self._reduce(colour, frames[frame])
            for number, entry in enumerate(entries, start=1):
                shares[entry] = np.count_nonzero(instances == number) / instances.size
        for item in sides.values():
            item.delete()
            item.texture.delete()
        return frames, shares

    def _hand_item(self, motion: HandMotion, is_right: bool) -> DrawItem:
        faces = motion.faces(is_right)
        colour = RIGHT_COLOUR if is_right else LEFT_COLOUR
        surface = plain_surface(np.zeros((int(faces.max()) + 1, 3), np.float32), faces, colour)
        return self._draw.DrawItem(surface, self._draw.make_texture(None))

    def _prepared(self, scene: Scene, tracks: Sequence[ObjectTrack], actor: Actor) -> _PreparedClip:
        """Upload what is not there yet; put everything at its rest pose."""
        if scene is not self._scene:
            self._objects.delete()
            self._scene = scene
        if self._actor is not None and not self._actor.is_for(actor):
            self._actor.delete()
            self._actor = None
        if self._actor is None:
            self._actor = self._clip.UploadedActor(actor)
        fixed: list[DrawItem] = []
        casters: list[DrawItem] = []
        movable: list[tuple[ObjectTrack, list[DrawItem]]] = []
        standing = [ObjectTrack(each, each.pose[None], is_still=True) for each in scene.objects]
        for number, track in enumerate([*standing, *tracks], start=1):
            items = self._objects.items(track.scene_object, number, moves=not track.is_still)
            for item in items:
                item.place(track.rest_pose)
            if track.is_still:
                fixed += items
                casters += items if track.scene_object.casts_shadow else []
            else:
                movable.append((track, items))
        self._actor.number(len(scene.objects) + len(tracks) + 1)
        names = [each.name for each in scene.objects] + [track.scene_object.name for track in tracks]
        return _PreparedClip(fixed, casters, movable, self._actor, (*names, "actor", "left hand", "right hand"))

    def _render_frames(self, clip: _PreparedClip, scene: Scene, actor: Actor, cameras: CameraPath) -> ClipViews:
        light = self._lights.SpotView(scene.lighting)
        shape = (len(cameras), self.height, self.width)
        interaction, static = (np.empty((*shape, 3), np.uint8) for _ in range(2))
        ids, depth = np.empty(shape, np.uint8), np.empty(shape, np.float16)
        instances = np.empty(shape, np.uint8) if len(clip.names) < 256 else np.empty(shape, np.uint16)
        if self._shadow_maps is not None:
            self._shadow_maps.start_clip(light, clip.casters, clip.movable_items)
        for frame in range(len(cameras)):
            clip.actor.pose(actor.vertices[frame])
            view = self._lights.LitView(
                scene.lighting, light, self._clip_from_world(cameras[frame]), cameras[frame].world_from_camera[:3, 3]
            )
            views = self._frame(clip, view, scene.background, frame)
            self._reduce(views.static, static[frame])
            self._reduce(views.live, interaction[frame])
            ids[frame] = reduce_ids(mask_ids(views.marks, views.static[..., 3]), self.scale)
            depth[frame] = reduce_depth(camera_depth(views.window_depth), self.scale)
            instances[frame] = views.instances[:: self.scale, :: self.scale]
        return ClipViews(
            interaction=interaction,
            static=static,
            ids=ids,
            depth=depth,
            instances=instances,
            instance_names=clip.names,
        )

    def _frame(self, clip: _PreparedClip, view: LitView, background: Colour, frame: int) -> FrameViews:
        moving = [*clip.movable_items, *clip.actor.items]
        if self._shadow_maps is not None:
            clip.place_movable(frame)
            self._shadow_maps.draw_live(view.light, moving if self._actor_shadows else clip.movable_items)
        maps = self._shadow_maps
        self._targets.begin(background, lights_differ=maps is not None and maps.differ)
        self._draw_items(view, clip.fixed, both=True)
        self._targets.split()
        self._targets.use_live()
        clip.place_movable(frame)
        self._draw_items(view, moving)
        if clip.movable:
            self._targets.use_static()
            clip.place_movable(None)
            self._draw_items(view, clip.movable_items, at_rest=True)
        return self._targets.read()

    def _draw_items(
        self, view: LitView, items: Sequence[DrawItem], *, both: bool = False, at_rest: bool = False
    ) -> None:
        """Draw what can be seen of some items, into both images at once or into the one that is bound."""
        visible = self._draw.visible_nearest_first(items, view.clip_from_world, view.eye)
        maps = self._shadow_maps
        features: tuple[str, ...] = ()
        if maps is not None:
            features = ("SHADOWS", "TWO_LIGHTS") if both and maps.differ else ("SHADOWS",)
        for has_holes in (False, True):
            chosen = [item for item in visible if item.has_holes == has_holes]
            if not chosen:
                continue
            program = self._surface_program((*features, "HOLES") if has_holes else features)
            program.use()
            view.set_uniforms(program)
            if maps is not None:
                maps.bind(program, static=both or at_rest)
            program.sampler("surface_texture", _TEXTURE_UNIT)
            program.draw(chosen)

    def _surface_program(self, features: tuple[str, ...]) -> Program:
        if features not in self._surface_programs:
            self._surface_programs[features] = self._draw.Program("surface.vert", "surface.frag", features)
        return self._surface_programs[features]

    def _clip_from_world(self, camera: Camera) -> Floats:
        projection = opengl_projection(camera.intrinsics, self.width, self.height, NEAR_M, FAR_M)
        result: Floats = _UPSIDE_DOWN @ projection @ invert_pose(camera.opengl_pose)
        return result

    def _reduce(self, pixels: Image, target: Image) -> None:
        """Put the colours of [h,w,4] into ``target`` [H,W,3], reduced by area."""
        if self.scale == 1:
            cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB, dst=target)
        else:
            colour = np.ascontiguousarray(pixels[..., :3])
            cv2.resize(colour, (self.width, self.height), dst=target, interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class _PreparedClip:
    """What a clip draws.

    Attributes:
        fixed: surfaces that never move.
        casters: those of them that cast shadows.
        movable: tracks that move, with their surfaces.
        actor: the body.
        names: name of each instance number from 1.
    """

    fixed: list[DrawItem]
    casters: list[DrawItem]
    movable: list[tuple[ObjectTrack, list[DrawItem]]]
    actor: UploadedActor
    names: tuple[str, ...]

    @property
    def movable_items(self) -> list[DrawItem]:
        return [item for _, items in self.movable for item in items]

    def place_movable(self, frame: int | None) -> None:
        """Move the movable objects to a frame's poses, or to their rest poses."""
        for track, items in self.movable:
            pose = track.rest_pose if frame is None else track.poses[frame]
            for item in items:
                item.place(pose)
