"""Write objects as binary glTF (GLB): plain arrays, PNG textures shared between meshes, the same bytes every time."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.atomic import write_bytes
from render.contact_sheet import encode_png
from render.scene import SceneObject, Surface

_MAGIC, _VERSION, _JSON_CHUNK, _BINARY_CHUNK = b"glTF", 2, 0x4E4F534A, 0x004E4942
_FLOAT, _UINT = 5126, 5125
_ARRAY_BUFFER, _INDEX_BUFFER = 34962, 34963


def write_glb(path: Path, objects: Sequence[SceneObject]) -> None:
    """Write objects as one scene, one node each with its world-from-object pose, one primitive a surface.

    Colours go into the materials (linear base colour times sRGB texture), so that a surface must have one colour.

    Raises:
        DwmError: the file cannot be written.
    """
    document = _Document()
    for item in objects:
        document.add_object(item)
    write_bytes(path, document.encoded())


class _Document:
    """A glTF document that grows by objects."""

    def __init__(self) -> None:
        self._binary = bytearray()
        self._views: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []
        self._meshes: list[dict[str, Any]] = []
        self._nodes: list[dict[str, Any]] = []
        self._materials: list[dict[str, Any]] = []
        self._material_numbers: dict[tuple[int, tuple[float, ...], float], int] = {}
        self._images: list[dict[str, Any]] = []
        self._image_numbers: dict[int, int] = {}

    def add_object(self, item: SceneObject) -> None:
        """Add a node with its mesh."""
        self._meshes.append({"name": item.name, "primitives": [self._primitive(surface) for surface in item.surfaces]})
        matrix = [float(value) for value in item.pose.T.reshape(-1)]
        self._nodes.append({"name": item.name, "mesh": len(self._meshes) - 1, "matrix": matrix})

    def encoded(self) -> bytes:
        """The file's bytes."""
        document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "dwm-pipeline"},
            "scene": 0,
            "scenes": [{"nodes": list(range(len(self._nodes)))}],
            "nodes": self._nodes,
            "meshes": self._meshes,
            "materials": self._materials,
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": len(self._binary)}],
        }
        if self._images:
            document["images"] = self._images
            document["textures"] = [{"source": number, "sampler": 0} for number in range(len(self._images))]
            document["samplers"] = [{"wrapS": 10497, "wrapT": 10497}]
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), _JSON_CHUNK) + text
        chunks += struct.pack("<II", len(self._binary), _BINARY_CHUNK) + bytes(self._binary)
        return _MAGIC + struct.pack("<II", _VERSION, 12 + len(chunks)) + chunks

    def _primitive(self, surface: Surface) -> dict[str, Any]:
        attributes = {
            "POSITION": self._accessor(surface.vertices.astype("<f4"), "VEC3", bounds=True),
            "NORMAL": self._accessor(surface.normals.astype("<f4"), "VEC3"),
        }
        if surface.texture is not None:
            flipped = surface.uv * [1.0, -1.0] + [0.0, 1.0]  # glTF counts v from the top of the image
            attributes["TEXCOORD_0"] = self._accessor(flipped.astype("<f4"), "VEC2")
        indices = self._accessor(surface.faces.reshape(-1).astype("<u4"), "SCALAR", target=_INDEX_BUFFER)
        return {"attributes": attributes, "indices": indices, "material": self._material(surface)}

    def _material(self, surface: Surface) -> int:
        colour = tuple(round(float(np.clip(value, 0.0, 1.0)), 6) for value in surface.colours[0])
        key = (0 if surface.texture is None else id(surface.texture), colour, surface.gloss)
        if key not in self._material_numbers:
            look: dict[str, Any] = {
                "baseColorFactor": [*colour, 1.0],
                "metallicFactor": 0.0,
                "roughnessFactor": round(1.0 - surface.gloss, 6),
            }
            if surface.texture is not None:
                look["baseColorTexture"] = {"index": self._image(surface.texture)}
            self._material_numbers[key] = len(self._materials)
            self._materials.append({"pbrMetallicRoughness": look, "alphaMode": "OPAQUE"})
        return self._material_numbers[key]

    def _image(self, pixels: npt.NDArray[np.uint8]) -> int:
        if id(pixels) not in self._image_numbers:
            self._image_numbers[id(pixels)] = len(self._images)
            self._images.append({"bufferView": self._view(encode_png(pixels)), "mimeType": "image/png"})
        return self._image_numbers[id(pixels)]

    def _accessor(
        self, values: npt.NDArray[Any], kind: str, *, bounds: bool = False, target: int = _ARRAY_BUFFER
    ) -> int:
        accessor: dict[str, Any] = {
            "bufferView": self._view(values.tobytes(), target),
            "componentType": _UINT if values.dtype.kind == "u" else _FLOAT,
            "count": len(values),
            "type": kind,
        }
        if bounds:
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        self._accessors.append(accessor)
        return len(self._accessors) - 1

    def _view(self, data: bytes, target: int | None = None) -> int:
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        self._views.append(view if target is None else view | {"target": target})
        self._binary += data + b"\0" * (-len(data) % 4)
        return len(self._views) - 1
