"""The meshes of one clip in the OpenGL context: uploaded once, moved and skinned in place frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyrender

from manifests.schema import MaskId
from render.body import HandPart
from render.gl_draw import DrawItem, delete_items, make_item, make_texture, update_vertices
from render.rotations import Floats
from render.scene import Actor, FloatArray, ObjectTrack, Scene, Surface, plain_surface, vertex_normals


@dataclass(frozen=True)
class _ActorPart:
    """A part of the actor's mesh: the body without hands (``hand`` None) or one closed hand."""

    surface: Surface
    category: int
    hand: HandPart | None

    def gather(self, values: FloatArray) -> FloatArray:
        """The part's values [v,3] from the body's [V,3]."""
        return values if self.hand is None else self.hand.vertices(values)


class UploadedClip:
    """The meshes of a clip and what each instance number means.

    Attributes:
        fixed: items that never move.
        movable: items of the tracked objects.
        actor: items of the body and its hands.
        categories: `MaskId` of each instance number; 0 is nothing.
    """

    def __init__(self, scene: Scene, tracks: Sequence[ObjectTrack], actor: Actor) -> None:
        self._textures: dict[int, pyrender.Texture] = {}
        self._tracks = tracks
        self._actor = actor
        self.categories = [MaskId.BACKGROUND]
        self.fixed = [
            self._upload(surface, item.pose, MaskId.BACKGROUND) for item in scene.objects for surface in item.surfaces
        ]
        self._track_items = [
            [self._upload(surface, track.poses[0], MaskId.MOVED_OBJECT) for surface in track.scene_object.surfaces]
            for track in tracks
        ]
        self.movable = [item for items in self._track_items for item in items]
        self._parts = _actor_parts(actor)
        self.actor = [self._upload(part.surface, np.eye(4), part.category) for part in self._parts]

    def place_objects(self, frame: int) -> None:
        """Move the tracked objects to their poses of a frame."""
        for track, items in zip(self._tracks, self._track_items, strict=True):
            for item in items:
                item.pose = track.poses[frame]

    def place_actor(self, frame: int) -> None:
        """Give the actor's meshes their vertices of a frame."""
        body = self._actor.vertices[frame]
        normals = vertex_normals(body, self._actor.faces)
        for item, part in zip(self.actor, self._parts, strict=True):
            update_vertices(item, part.gather(body), part.gather(normals))

    def delete(self) -> None:
        """Free the meshes and textures."""
        delete_items([*self.fixed, *self.movable, *self.actor])

    def _upload(self, surface: Surface, pose: Floats, category: int) -> DrawItem:
        key = id(surface.texture)
        if key not in self._textures:
            self._textures[key] = make_texture(surface.texture)
        self.categories.append(category)
        return make_item(surface, self._textures[key], pose, len(self.categories) - 1)


def _actor_parts(actor: Actor) -> list[_ActorPart]:
    body_faces = ~(actor.hidden_faces | actor.hands[0].body_face_mask | actor.hands[1].body_face_mask)
    first = actor.vertices[0]
    parts = [_ActorPart(plain_surface(first, actor.faces[body_faces], actor.colours), MaskId.ACTOR, None)]
    for hand in actor.hands:
        surface = plain_surface(hand.vertices(first), hand.faces, hand.vertices(actor.colours))
        parts.append(_ActorPart(surface, MaskId.HANDS, hand))
    return parts
