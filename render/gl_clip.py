"""The meshes of scenes and actors in the OpenGL context: uploaded once, moved and skinned in place frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyrender

from manifests.schema import MaskId
from render.gl_draw import DrawItem, make_texture
from render.hand_part import HandPart
from render.scene import Actor, FloatArray, NormalCalculator, SceneObject, Surface, plain_surface


class UploadedObjects:
    """Objects in the context, each uploaded when it is first asked for; surfaces share textures."""

    def __init__(self) -> None:
        self._textures: dict[int, pyrender.Texture] = {}
        self._items: dict[tuple[int, bool], list[DrawItem]] = {}
        self._kept: list[tuple[Surface, ...]] = []
        """Keeps the surfaces alive, because they are known by their identity."""

    def items(self, scene_object: SceneObject, instance: int, *, moves: bool) -> list[DrawItem]:
        """The object's surfaces with the instance number and, when it moves, the mark of moved objects."""
        key = (id(scene_object.surfaces), moves)
        if key not in self._items:
            category = MaskId.MOVED_OBJECT if moves else MaskId.BACKGROUND
            self._items[key] = [
                DrawItem(surface, self._texture(surface), category=category) for surface in scene_object.surfaces
            ]
            self._kept.append(scene_object.surfaces)
        for item in self._items[key]:
            item.instance = instance
        return self._items[key]

    def delete(self) -> None:
        """Free the meshes and textures."""
        for items in self._items.values():
            for item in items:
                item.delete()
        for texture in self._textures.values():
            texture.delete()
        self._items, self._textures, self._kept = {}, {}, []

    def _texture(self, surface: Surface) -> pyrender.Texture:
        key = id(surface.texture)
        if key not in self._textures:
            self._textures[key] = make_texture(surface.texture)
        return self._textures[key]


@dataclass(frozen=True)
class _ActorPart:
    """A part of the actor's mesh, and how its values [v,3] come from the body's [V,3]."""

    item: DrawItem
    gather: Callable[[FloatArray], FloatArray]


class UploadedActor:
    """The body and its hands in the context. The hidden head is not seen, but it casts its shadow.

    Attributes:
        items: surfaces to draw, the body before the left and the right hand.
    """

    def __init__(self, actor: Actor) -> None:
        self._model = actor
        self._texture = make_texture(None)
        self._normals = NormalCalculator(actor.faces, actor.vertices.shape[1])
        self._parts = [self._body(actor), *(self._hand(actor, hand) for hand in actor.hands)]
        self.items = [part.item for part in self._parts]

    def _body(self, actor: Actor) -> _ActorPart:
        """The body without its hands, up to their rims; the hidden head apart."""
        left, right = actor.hands

        def gather(values: FloatArray) -> FloatArray:
            return np.concatenate([values, left.rim(values), right.rim(values)])

        in_hand = left.body_face_mask | right.body_face_mask
        after_left = np.where(right.arm_faces < len(actor.colours), 0, len(left.rim_edges))
        pieces = np.concatenate([left.arm_faces, right.arm_faces + after_left])
        owners = np.concatenate([left.arm_face_owners, right.arm_face_owners])
        shown = actor.faces[~(actor.hidden_faces | in_hand)]
        faces = np.concatenate([shown, pieces[~actor.hidden_faces[owners]]])
        surface = plain_surface(gather(actor.vertices[0]), faces, gather(actor.colours))
        head = actor.faces[actor.hidden_faces & ~in_hand]
        return _ActorPart(DrawItem(surface, self._texture, category=MaskId.ACTOR, hidden_faces=head), gather)

    def _hand(self, actor: Actor, hand: HandPart) -> _ActorPart:
        surface = plain_surface(hand.vertices(actor.vertices[0]), hand.faces, hand.vertices(actor.colours))
        return _ActorPart(DrawItem(surface, self._texture, category=MaskId.HANDS), hand.vertices)

    def is_for(self, actor: Actor) -> bool:
        """Whether another clip's actor has the same meshes and colours, so that only its vertices differ."""
        mine = self._model
        return (
            actor.faces is mine.faces
            and actor.colours is mine.colours
            and actor.hands is mine.hands
            and actor.hidden_faces is mine.hidden_faces
        )

    def number(self, first_instance: int) -> None:
        """Give body, left and right hand their instance numbers."""
        for offset, item in enumerate(self.items):
            item.instance = first_instance + offset

    def pose(self, vertices: FloatArray) -> None:
        """Give the meshes the body's vertices [V,3] of a frame."""
        normals = self._normals(vertices)
        for part in self._parts:
            part.item.update_vertices(part.gather(vertices), part.gather(normals))

    def delete(self) -> None:
        """Free the meshes."""
        for item in self.items:
            item.delete()
        self._texture.delete()
