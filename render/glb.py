"""Mesh files (GLB, OBJ) as scene objects: node transforms, base colours and textures, nothing else of the material.

World and files are y-up metres, as glTF has them. A texture that several meshes share is one array, so that it is
uploaded once. Normal maps, metalness and emission are left out: the renderer's shader is diffuse.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from trimesh.visual import ColorVisuals

from manifests.errors import DwmError
from render.rotations import Floats
from render.scene import FloatArray, Image, SceneObject, Surface, vertex_normals

MESH_SUFFIXES = (".glb", ".gltf", ".obj")

_OPAQUE_ALPHA = 200
"""A material whose least alpha is at least this (of 255) is drawn opaque: exporters mark solid furniture as blended."""
_GLASS_ALPHA = 96
"""A blended material whose mean alpha is below this is glass: it is left out, one sees through it."""
_SRGB_CURVE = 2.0
"""The shader's stand-in for the sRGB curve; linear base colours are kept, sRGB ones are raised to it."""

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Look:
    """What is kept of a material: linear base colour, texture [h,w,3], or [h,w,4] with holes."""

    colour: tuple[float, float, float]
    texture: Image | None
    is_glass: bool = False


def load_objects(path: Path) -> tuple[SceneObject, ...]:
    """Every mesh of a file, one object a node, at its node's transform (world from node, mirrored nodes included).

    Raises:
        DwmError: the file is missing, is no mesh, holds no triangles, or has positions that are not finite.
    """
    scene = _load(path)
    looks: dict[int, _Look] = {}
    textures: dict[int, Image] = {}
    objects = []
    for node in sorted(scene.graph.nodes_geometry):
        transform, geometry_name = scene.graph[node]
        mesh = scene.geometry[geometry_name]
        if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
            continue
        surface = _surface(path, str(node), mesh, looks, textures)
        if surface is not None:
            objects.append(SceneObject(str(node), (surface,), np.asarray(transform, dtype=np.float64)))
    if not objects:
        raise DwmError(f"{path}: holds no triangles that can be drawn; export the meshes again")
    return tuple(objects)


def load_rigid_object(path: Path, name: str) -> SceneObject:
    """A file's meshes as one object, its surfaces in the file's own frame (node transforms applied to the vertices).

    Raises:
        DwmError: as ``load_objects``.
    """
    surfaces = tuple(_moved(surface, item.pose) for item in load_objects(path) for surface in item.surfaces)
    return SceneObject(name, surfaces, np.eye(4))


def _load(path: Path) -> trimesh.Scene:
    if not path.is_file():
        raise DwmError(f"{path}: no such mesh; check the raw folder")
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise DwmError(f"{path}: not one of {', '.join(MESH_SUFFIXES)}; export the mesh as GLB")
    try:
        return trimesh.load_scene(path, process=False)
    except Exception as error:  # a broken file fails in many ways: KeyError, struct.error, ValueError, IndexError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DwmError(f"{path}: cannot be read as a mesh ({reason}); export it again") from error


def _surface(
    path: Path, node: str, mesh: trimesh.Trimesh, looks: dict[int, _Look], textures: dict[int, Image]
) -> Surface | None:
    vertices = np.asarray(mesh.vertices, dtype=np.float32)
    faces = np.asarray(mesh.faces, dtype=np.int64)
    if not np.isfinite(vertices).all():
        raise DwmError(f"{path}: node '{node}' has positions that are not finite; export it again")
    material = getattr(mesh.visual, "material", None)
    if id(material) not in looks:
        looks[id(material)] = _look(material, textures)
    look = looks[id(material)]
    if look.is_glass:
        _LOGGER.info("%s: node '%s' is glass and is left out", path, node)
        return None
    uv = getattr(mesh.visual, "uv", None)
    has_uv = uv is not None and len(uv) == len(vertices)
    return Surface(
        vertices=vertices,
        faces=faces,
        normals=_normals(mesh, vertices, faces),
        uv=np.asarray(uv, dtype=np.float32) if has_uv else np.zeros((len(vertices), 2), np.float32),
        colours=_vertex_colours(mesh) * np.asarray(look.colour, dtype=np.float32),
        texture=look.texture if has_uv else None,
    )


def _normals(mesh: trimesh.Trimesh, vertices: FloatArray, faces: np.ndarray[Any, np.dtype[np.int64]]) -> FloatArray:
    """The file's normals where it has whole ones, else area-weighted ones."""
    stored = mesh._cache.cache.get("vertex_normals")
    if stored is None or len(stored) != len(vertices):
        return vertex_normals(vertices, faces)
    normals = np.asarray(stored, dtype=np.float32)
    lengths = np.linalg.norm(normals, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0.5)
    return normals if usable.all() else np.where(usable[:, None], normals, vertex_normals(vertices, faces))


def _vertex_colours(mesh: trimesh.Trimesh) -> FloatArray:
    """Linear colours [V,3] of the vertices; white without any."""
    if isinstance(mesh.visual, ColorVisuals) and mesh.visual.kind == "vertex":
        colours = np.asarray(mesh.visual.vertex_colors, dtype=np.float32)[:, :3] / 255
        return np.asarray(colours**_SRGB_CURVE, dtype=np.float32)
    return np.ones((len(mesh.vertices), 3), np.float32)


def _look(material: Any, textures: dict[int, Image]) -> _Look:
    """Base colour and texture of a trimesh material (PBR of glTF, or Phong of OBJ)."""
    if material is None:
        return _Look((1.0, 1.0, 1.0), None)
    is_pbr = hasattr(material, "baseColorTexture")
    picture = material.baseColorTexture if is_pbr else getattr(material, "image", None)
    factor = material.baseColorFactor if is_pbr else getattr(material, "diffuse", None)
    # trimesh gives factors as 0-255; used as they are, a whole 1 would mean 1/255 and draw black.
    colour = np.ones(4) if factor is None else np.append(np.asarray(factor, np.float64).reshape(-1) / 255, 1.0)[:4]
    if not is_pbr:  # OBJ colours are sRGB, and exporters write any diffuse colour beside a texture
        colour[:3] = 1.0 if picture is not None else colour[:3] ** _SRGB_CURVE
    opaque = is_pbr and material.alphaMode == "OPAQUE"
    alpha = 1.0 if opaque else float(colour[3])
    red, green, blue = (float(value) for value in colour[:3])
    if picture is None:
        return _Look((red, green, blue), None, is_glass=255 * alpha < _GLASS_ALPHA)
    texture = _texture(picture, alpha, textures, keep_holes=not opaque)
    is_glass = texture.shape[-1] == 4 and float(texture[..., 3].mean()) * alpha < _GLASS_ALPHA
    return _Look((red, green, blue), texture, is_glass)


def _texture(picture: Any, alpha: float, textures: dict[int, Image], *, keep_holes: bool) -> Image:
    """Pixels of a picture, [h,w,3], or [h,w,4] where it has holes; one array a picture."""
    key = id(picture)
    if key not in textures:
        pixels = np.asarray(picture.convert("RGBA"))
        solid = not keep_holes or pixels[..., 3].min() * alpha >= _OPAQUE_ALPHA
        textures[key] = np.ascontiguousarray(pixels[..., :3] if solid else pixels)
    return textures[key]


def _moved(surface: Surface, pose: Floats) -> Surface:
    rotation = pose[:3, :3]
    normals = surface.normals @ np.linalg.inv(rotation)
    lengths = np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return replace(
        surface,
        vertices=(surface.vertices @ rotation.T + pose[:3, 3]).astype(np.float32),
        normals=(normals / lengths).astype(np.float32),
    )
