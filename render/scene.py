"""What a mesh renderer draws: textured surfaces, objects, lights, an actor. Metres, y up, colours linear 0-1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from render.hand_part import HandPart
from render.rotations import Floats, normalised

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Surface:
    """A triangle mesh of one material.

    Attributes:
        vertices: [V,3] metres in the object's frame.
        faces: [F,3].
        normals: [V,3] unit length.
        uv: [V,2] texture coordinates (the texture repeats).
        colours: [V,3] linear colour, multiplied with the texture.
        texture: [h,w,3] uint8 sRGB, [h,w,4] where texels of alpha below 128 are holes, or None for plain colour.
        gloss: strength of the highlight, 0 = matt.
    """

    vertices: FloatArray
    faces: IntArray
    normals: FloatArray
    uv: FloatArray
    colours: FloatArray
    texture: Image | None = None
    gloss: float = 0.0


@dataclass(frozen=True)
class SceneObject:
    """A rigid object: its surfaces and its world-from-object pose [4,4]; ceilings and the like cast no shadow."""

    name: str
    surfaces: tuple[Surface, ...]
    pose: Floats
    casts_shadow: bool = True


@dataclass(frozen=True)
class ObjectTrack:
    """An object that moves over a clip (the object's own pose is not used).

    Attributes:
        scene_object: its surfaces.
        poses: [T,4,4] world from object.
        static_pose: [4,4] where the static video shows it; None for the clip's first pose.
        is_still: whether to draw it with the scene, at its rest pose, as nothing that moves.
    """

    scene_object: SceneObject
    poses: Floats
    static_pose: Floats | None = None
    is_still: bool = False

    @property
    def rest_pose(self) -> Floats:
        """World-from-object pose [4,4] in the static video."""
        return self.poses[0] if self.static_pose is None else self.static_pose

    def departures(self) -> Floats:
        """How far [T] the farthest corner of the object's box is from its rest place, metres."""
        vertices = np.concatenate([surface.vertices for surface in self.scene_object.surfaces])
        ends = np.stack([vertices.min(axis=0), vertices.max(axis=0)]).astype(np.float64)
        corners = np.array([[ends[i, 0], ends[j, 1], ends[k, 2], 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        shifts = np.einsum("tab,cb->tca", self.poses - self.rest_pose, corners)[..., :3]
        result: Floats = np.linalg.norm(shifts, axis=-1).max(axis=1)
        return result


@dataclass(frozen=True)
class SpotLight:
    """The main light, which casts shadows; far away with a narrow cone it is the sun.

    Attributes:
        position: metres.
        target: a point on its axis.
        power: radiance at one metre.
        cone_degrees: angle of the cone.
        full_share: share of the cone's half angle with full light; it fades to the rim.
        near_m: least distance that casts or takes shadows.
        far_m: greatest such distance.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    power: Colour
    cone_degrees: float = 100.0
    full_share: float = 0.6
    near_m: float = 0.2
    far_m: float = 8.0


@dataclass(frozen=True)
class Lighting:
    """Lights of a scene: a sky above, light from the ground below, one spot light, one point light without shadows."""

    sky: Colour
    ground: Colour
    spot: SpotLight
    fill_position: tuple[float, float, float]
    fill_power: Colour


@dataclass(frozen=True)
class Scene:
    """Everything that stands still, and the lights."""

    objects: tuple[SceneObject, ...]
    lighting: Lighting
    background: Colour = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Actor:
    """A skinned body over a clip.

    Attributes:
        vertices: [T,V,3] metres in the world.
        faces: [F,3].
        colours: [V,3] linear.
        hands: left and right hand.
        hidden_faces: [F] True where a face is never drawn (the head that carries the camera).
    """

    vertices: FloatArray
    faces: IntArray
    colours: FloatArray
    hands: tuple[HandPart, HandPart]
    hidden_faces: npt.NDArray[np.bool_]


def vertex_normals(vertices: FloatArray, faces: IntArray) -> FloatArray:
    """Area-weighted unit normals [V,3] of a mesh."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = [
        np.bincount(faces.reshape(-1), weights=np.repeat(face_normals[:, axis], 3), minlength=len(vertices))
        for axis in range(3)
    ]
    return normalised(np.stack(sums, axis=1)).astype(np.float32)


class NormalCalculator:
    """Area-weighted unit normals of a mesh that is posed again and again.

    Args:
        faces: [F,3].
        num_vertices: V.
    """

    def __init__(self, faces: IntArray, num_vertices: int) -> None:
        from scipy.sparse import csr_array

        corners = faces.reshape(-1)
        owners = np.repeat(np.arange(len(faces)), 3)
        ones = np.ones(len(corners), np.float32)
        self._faces = faces
        self._vertex_from_face = csr_array((ones, (corners, owners)), shape=(num_vertices, len(faces)))

    def __call__(self, vertices: FloatArray) -> FloatArray:
        """Normals [V,3] of the vertices [V,3]; zero where no face meets."""
        first, second, third = (vertices[self._faces[:, corner]] for corner in range(3))
        a, b = second - first, third - first
        face_normals = np.empty_like(a)
        for axis in range(3):
            after, last = (axis + 1) % 3, (axis + 2) % 3
            face_normals[:, axis] = a[:, after] * b[:, last] - a[:, last] * b[:, after]
        sums = np.asarray(self._vertex_from_face @ face_normals)
        lengths = np.sqrt(np.einsum("va,va->v", sums, sums))
        return np.asarray(sums / np.maximum(lengths, np.float32(1e-20))[:, None], np.float32)


@dataclass(frozen=True)
class Material:
    """How a simple shape looks: linear colour, texture that repeats every ``texture_metres``, strength of highlight."""

    colour: Colour
    texture: Image | None = None
    texture_metres: float = 1.0
    gloss: float = 0.0


def box_surface(size: Sequence[float], material: Material) -> Surface:
    """A box of ``size`` (x, y, z in metres) around the origin."""
    half = np.asarray(size, dtype=np.float64) / 2
    vertices: list[Floats] = []
    normals: list[Floats] = []
    uv: list[Floats] = []
    faces: list[list[int]] = []
    for axis, (across, along) in enumerate(((2, 1), (0, 2), (0, 1))):
        for sign in (1.0, -1.0):
            corners = np.zeros((4, 3))
            corners[:, axis] = sign * half[axis]
            corners[:, across] = np.array([-1, 1, 1, -1]) * half[across]
            corners[:, along] = np.array([-1, -1, 1, 1]) * half[along]
            start = 4 * len(vertices)
            vertices.append(corners)
            normals.append(np.tile(np.eye(3)[axis] * sign, (4, 1)))
            uv.append(corners[:, [across, along]])
            faces += [[start, start + 1, start + 2], [start, start + 2, start + 3]]
    return _shape(np.concatenate(vertices), faces, np.concatenate(normals), np.concatenate(uv), material)


def cylinder_surface(radius: float, height: float, material: Material, *, top_share: float = 1.0) -> Surface:
    """An upright closed cylinder around the origin (metres); its top has ``top_share`` of the radius."""
    segments = 24
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    ring = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], axis=1)
    up = np.array([0.0, height / 2, 0.0])
    top, bottom = ring * radius * top_share + up, ring * radius - up
    vertices = np.concatenate([top, bottom, top, bottom, up[None], -up[None]])
    upward = np.tile([0.0, 1.0, 0.0], (segments + 2, 1))
    normals = np.concatenate([ring, ring, upward[1:], -upward[1:], upward[:1], -upward[:1]])
    around = np.outer(angle * radius, [1.0, 0.0])
    uv = np.concatenate([around, around + np.array([0.0, height]), vertices[2 * (segments + 1) :, [0, 2]]])
    count = segments + 1
    faces = []
    for i in range(segments):
        faces += [[i, count + i, i + 1], [i + 1, count + i, count + i + 1]]
        faces += [[4 * count, 2 * count + i, 2 * count + i + 1], [4 * count + 1, 3 * count + i, 3 * count + i + 1]]
    return _shape(vertices, faces, normals, uv, material)


def plain_surface(vertices: FloatArray, faces: IntArray, colours: npt.ArrayLike) -> Surface:
    """A surface without texture; ``colours`` is one colour [3] or one a vertex [V,3]."""
    count = len(vertices)
    return Surface(
        vertices=vertices,
        faces=faces,
        normals=vertex_normals(vertices, faces),
        uv=np.zeros((count, 2), np.float32),
        colours=np.broadcast_to(np.asarray(colours, np.float32), (count, 3)),
    )


def translated(surface: Surface, offset: Sequence[float]) -> Surface:
    """The same surface moved by ``offset`` [3] metres within its object."""
    moved = surface.vertices + np.asarray(offset, dtype=np.float64)
    return replace(surface, vertices=moved.astype(np.float32))


def _shape(vertices: Floats, faces: list[list[int]], normals: Floats, uv_metres: Floats, material: Material) -> Surface:
    return Surface(
        vertices=vertices.astype(np.float32),
        faces=np.asarray(faces, dtype=np.int64),
        normals=normals.astype(np.float32),
        uv=(uv_metres / material.texture_metres).astype(np.float32),
        colours=np.tile(np.asarray(material.colour, dtype=np.float32), (len(vertices), 1)),
        texture=material.texture,
        gloss=material.gloss,
    )
