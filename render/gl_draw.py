"""The OpenGL side of the mesh renderer: programs, and draws of pyrender primitives.

Import it only after a context is open (`render.gl_context`). Not pyrender's own draw loop: its physically based
shader costs most of a frame on software OpenGL, and one pass here gives both images, marks, instances and depth.
pyrender offers no public way to upload or bind a primitive, so its underscored methods are used here and only here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import OpenGL.GL as gl  # noqa: N811 - the lower-case name reads better in a file full of it
import pyrender
from OpenGL.GL import shaders as gl_shaders

from manifests.schema import MaskId
from render.rotations import Floats
from render.scene import FloatArray, Image, Surface

SHADER_FOLDER = Path(__file__).parent / "assets" / "shaders"
_VERSION = "#version 330 core\n"
_MATRIX_ATTRIBUTES = range(4, 8)
_MARKS = {
    MaskId.BACKGROUND: np.zeros(4, np.float32),
    MaskId.HANDS: np.array([1, 0, 0, 0], np.float32),
    MaskId.ACTOR: np.array([0, 1, 0, 0], np.float32),
    MaskId.MOVED_OBJECT: np.array([0, 0, 1, 0], np.float32),
}


class DrawItem:
    """A surface in the context: primitive, texture, place, and what its pixels mean.

    Attributes:
        texture: shared by the surfaces that have it.
        has_holes: whether the texture's alpha cuts.
        gloss: strength of the highlight.
        instance: number of its object; 0 is nothing.
        corners: [8,4] corners of its bounding box in the object's frame, homogeneous.
        shown_indices: vertices of the faces that a view draws, which come first; shadows take them all.
    """

    def __init__(
        self,
        surface: Surface,
        texture: pyrender.Texture,
        *,
        instance: int = 0,
        category: int = MaskId.BACKGROUND,
        hidden_faces: npt.NDArray[np.int64] | None = None,
    ) -> None:
        faces = surface.faces if hidden_faces is None else np.concatenate([surface.faces, hidden_faces])
        colours = _opaque(surface.colours)
        self._primitive = pyrender.Primitive(
            positions=surface.vertices,
            normals=surface.normals,
            texcoord_0=surface.uv,
            color_0=colours,
            indices=faces,
        )
        self._primitive._add_to_context()
        gl.glBindVertexArray(self._primitive._vaid)
        for attribute in _MATRIX_ATTRIBUTES:  # pyrender's instance matrices, which no shader here reads
            gl.glDisableVertexAttribArray(attribute)
        gl.glBindVertexArray(0)
        self._interleaved: FloatArray | None = None
        self._surface = surface
        for copied in ("_positions", "_normals", "_texcoord_0", "_color_0", "_indices"):
            setattr(self._primitive, copied, None)  # the context has them: no second copy in memory
        self.texture = texture
        self.has_holes = surface.texture is not None and surface.texture.shape[-1] == 4
        self.gloss = np.array([surface.gloss], np.float32)
        self.instance = instance
        self.mark = _MARKS[category]
        self.shown_indices = surface.faces.size
        self._all_indices = faces.size
        self.corners = box_corners(surface.vertices.min(axis=0), surface.vertices.max(axis=0))
        self.place(np.eye(4))

    def place(self, pose: Floats) -> None:
        """Move it to a world-from-object pose [4,4]."""
        self.pose = np.ascontiguousarray(pose, dtype=np.float32)
        self.normal_matrix = np.ascontiguousarray(np.linalg.inv(pose[:3, :3]).T, dtype=np.float32)
        self.world_corners: Floats = self.corners @ pose.T

    def update_vertices(self, vertices: FloatArray, normals: FloatArray) -> None:
        """Give it new positions and normals [V,3], in place."""
        primitive = self._primitive
        if self._interleaved is None:
            self._interleaved = _interleaved(self._surface)
        data = self._interleaved
        data[:, :3], data[:, 3:6] = vertices, normals
        self.corners = self.world_corners = box_corners(vertices.min(axis=0), vertices.max(axis=0))
        gl.glBindBuffer(gl.GL_ARRAY_BUFFER, primitive._buffers[0])
        gl.glBufferSubData(gl.GL_ARRAY_BUFFER, 0, data.nbytes, data)
        gl.glBindBuffer(gl.GL_ARRAY_BUFFER, 0)

    def draw(self, *, whole: bool) -> None:
        """Draw its faces, the hidden ones only when ``whole``, with what is bound."""
        gl.glBindVertexArray(self._primitive._vaid)
        count = self._all_indices if whole else self.shown_indices
        gl.glDrawElements(gl.GL_TRIANGLES, count, gl.GL_UNSIGNED_INT, ctypes.c_void_p(0))

    def delete(self) -> None:
        """Free its buffers; the texture is its owner's."""
        self._primitive.delete()


class Program:
    """A compiled pair of shaders, perhaps with some features defined; uniforms are set by name."""

    def __init__(self, vertex: str, fragment: str, features: Sequence[str] = ()) -> None:
        self._empty_array = gl.glGenVertexArrays(1)
        gl.glBindVertexArray(self._empty_array)
        head = _VERSION + "".join(f"#define {feature}\n" for feature in features)
        stages = ((vertex, gl.GL_VERTEX_SHADER), (fragment, gl.GL_FRAGMENT_SHADER))
        compiled = [gl_shaders.compileShader(head + (SHADER_FOLDER / name).read_text(), kind) for name, kind in stages]
        self._id = gl_shaders.compileProgram(*compiled, validate=False)
        self._locations: dict[str, int] = {}

    def use(self) -> None:
        """Make it the current program."""
        gl.glUseProgram(self._id)

    def location(self, name: str) -> int:
        """Location of a uniform; -1 where the shader does not use it."""
        if name not in self._locations:
            self._locations[name] = gl.glGetUniformLocation(self._id, name)
        return self._locations[name]

    def matrix(self, name: str, value: npt.ArrayLike) -> None:
        """Set a 3x3 or 4x4 matrix."""
        array = np.ascontiguousarray(value, dtype=np.float32)
        setter = gl.glUniformMatrix4fv if array.shape == (4, 4) else gl.glUniformMatrix3fv
        setter(self.location(name), 1, gl.GL_TRUE, array)

    def vector(self, name: str, value: npt.ArrayLike) -> None:
        """Set a number or a vector of 2 to 4 numbers."""
        array = np.ascontiguousarray(value, dtype=np.float32).reshape(-1)
        setter = {1: gl.glUniform1fv, 2: gl.glUniform2fv, 3: gl.glUniform3fv, 4: gl.glUniform4fv}[len(array)]
        setter(self.location(name), 1, array)

    def sampler(self, name: str, unit: int) -> None:
        """Bind a texture unit."""
        gl.glUniform1i(self.location(name), unit)

    def draw_shadows(self, items: Sequence[DrawItem]) -> None:
        """Draw items, hidden faces too, into the current target: only where they are counts."""
        place = self.location("world_from_object")
        for item in items:
            gl.glUniformMatrix4fv(place, 1, gl.GL_TRUE, item.pose)
            item.draw(whole=True)
        gl.glBindVertexArray(0)

    def draw(self, items: Sequence[DrawItem]) -> None:
        """Draw items into the current target with their looks."""
        place, turn, number, gloss, mark = (
            self.location(name)
            for name in ("world_from_object", "world_normal_from_object", "instance_id", "gloss", "mark")
        )
        gl.glActiveTexture(gl.GL_TEXTURE0)
        bound = None
        for item in items:
            gl.glUniformMatrix4fv(place, 1, gl.GL_TRUE, item.pose)
            gl.glUniformMatrix3fv(turn, 1, gl.GL_TRUE, item.normal_matrix)
            gl.glUniform1ui(number, item.instance)
            gl.glUniform1fv(gloss, 1, item.gloss)
            gl.glUniform4fv(mark, 1, item.mark)
            if item.texture is not bound:
                bound = item.texture
                bound._bind()
            item.draw(whole=False)
        gl.glBindVertexArray(0)


def make_texture(image: Image | None) -> pyrender.Texture:
    """Upload a texture [h,w,3] or [h,w,4] with mipmaps; ``None`` gives plain white."""
    source = np.full((1, 1, 3), 255, np.uint8) if image is None else image
    gl.glPixelStorei(gl.GL_UNPACK_ALIGNMENT, 1)  # else rows of three bytes a texel would be read askew
    texture = pyrender.Texture(source=source, source_channels="RGB" if source.shape[-1] == 3 else "RGBA")
    texture._add_to_context()
    return texture


def _opaque(colours: FloatArray) -> FloatArray:
    return np.concatenate([colours, np.ones((len(colours), 1), np.float32)], axis=1)


def _interleaved(surface: Surface) -> FloatArray:
    """Position, normal, texture coordinates and colour of each vertex [V,12], as the context has them."""
    return np.hstack([surface.vertices, surface.normals, surface.uv, _opaque(surface.colours)]).astype(np.float32)


def box_corners(low: npt.ArrayLike, high: npt.ArrayLike) -> Floats:
    """Homogeneous corners [8,4] of the box from ``low`` [3] to ``high`` [3]."""
    ends = np.stack([np.asarray(low, np.float64), np.asarray(high, np.float64)])
    choice = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    return np.concatenate([ends[choice, np.arange(3)], np.ones((8, 1))], axis=1)


def visible_nearest_first(items: Sequence[DrawItem], clip_from_world: Floats, eye: Floats) -> list[DrawItem]:
    """Items whose bounding box reaches into the view, those with the nearest far side first: walls come late.

    Args:
        items: what could be drawn.
        clip_from_world: [4,4].
        eye: [3] position of the camera.
    """
    if not items:
        return []
    corners = np.stack([item.world_corners for item in items])
    clip = corners @ clip_from_world.T
    limit = clip[..., 3:]
    beyond = np.concatenate([clip[..., :3] < -limit, clip[..., :3] > limit], axis=-1)
    outside = np.any(np.all(beyond, axis=1), axis=-1).tolist()
    farthest = np.linalg.norm(corners[..., :3] - eye, axis=-1).max(axis=1)
    return [items[index] for index in np.argsort(farthest, kind="stable") if not outside[index]]
