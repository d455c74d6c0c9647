"""The OpenGL side of the mesh renderer: programs, framebuffers and draws of pyrender primitives.

Import it only after a context is open (`render.gl_context`). Not pyrender's own draw loop: its physically based
shader costs most of a frame on software OpenGL, and one pass here gives colour, instance, light and depth together.
pyrender offers no public way to upload or bind a primitive, so its underscored methods are used here and only here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import OpenGL.GL as gl  # noqa: N811 - the lower-case name reads better in a file full of it
import pyrender
from OpenGL.GL import shaders as gl_shaders

from render.rotations import Floats
from render.scene import FloatArray, Image, Surface

SHADER_FOLDER = Path(__file__).parent / "assets" / "shaders"
_COLOUR_TARGETS = (gl.GL_COLOR_ATTACHMENT0, gl.GL_COLOR_ATTACHMENT1)


@dataclass
class DrawItem:
    """A primitive in the context with its texture, world pose [4,4] and instance number."""

    primitive: pyrender.Primitive
    texture: pyrender.Texture
    pose: Floats
    instance: int
    gloss: float


@dataclass(frozen=True)
class View:
    """What one pass saw, at the size of the framebuffer, top row first.

    Attributes:
        colour: [h,w,3] uint8.
        instances: [h,w] uint32, 0 = nothing.
        light_bits: [h,w] uint32, bits of the share of the spot light that arrives.
        depth: [h,w] float32 metres along the camera's axis, 0 = nothing.
    """

    colour: Image
    instances: npt.NDArray[np.uint32]
    light_bits: npt.NDArray[np.uint32]
    depth: FloatArray


class Program:
    """A compiled pair of shaders; uniforms are set by name."""

    def __init__(self, vertex: str, fragment: str) -> None:
        self._empty_array = gl.glGenVertexArrays(1)
        gl.glBindVertexArray(self._empty_array)
        stages = ((vertex, gl.GL_VERTEX_SHADER), (fragment, gl.GL_FRAGMENT_SHADER))
        compiled = [gl_shaders.compileShader((SHADER_FOLDER / name).read_text(), kind) for name, kind in stages]
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
        """Set a number or a vector of 2 or 3 numbers."""
        array = np.ascontiguousarray(value, dtype=np.float32).reshape(-1)
        setter = {1: gl.glUniform1fv, 2: gl.glUniform2fv, 3: gl.glUniform3fv}[len(array)]
        setter(self.location(name), 1, array)

    def sampler(self, name: str, unit: int) -> None:
        """Bind a texture unit."""
        gl.glUniform1i(self.location(name), unit)

    def unsigned(self, name: str, value: int) -> None:
        """Set an unsigned number."""
        gl.glUniform1ui(self.location(name), value)


class Canvas:
    """A framebuffer with colour, facts (instance, light, depth) and a depth buffer."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._id = gl.glGenFramebuffers(1)
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, self._id)
        formats = (gl.GL_RGBA8, gl.GL_RGBA32UI, gl.GL_DEPTH_COMPONENT32F)
        for storage, attachment in zip(formats, (*_COLOUR_TARGETS, gl.GL_DEPTH_ATTACHMENT), strict=True):
            buffer = gl.glGenRenderbuffers(1)
            gl.glBindRenderbuffer(gl.GL_RENDERBUFFER, buffer)
            gl.glRenderbufferStorage(gl.GL_RENDERBUFFER, storage, width, height)
            gl.glFramebufferRenderbuffer(gl.GL_FRAMEBUFFER, attachment, gl.GL_RENDERBUFFER, buffer)
        gl.glDrawBuffers(2, _COLOUR_TARGETS)

    def begin(self, background: Sequence[float]) -> None:
        """Make it the target and clear it to a colour (0-1)."""
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, self._id)
        gl.glViewport(0, 0, self.width, self.height)
        _plain_state()
        gl.glClearBufferfv(gl.GL_COLOR, 0, np.array([*background, 1.0], dtype=np.float32))
        gl.glClearBufferuiv(gl.GL_COLOR, 1, np.zeros(4, dtype=np.uint32))
        gl.glClearBufferfv(gl.GL_DEPTH, 0, np.ones(1, dtype=np.float32))

    def read(self) -> View:
        """Read back what was drawn."""
        gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, self._id)
        gl.glPixelStorei(gl.GL_PACK_ALIGNMENT, 1)
        colour = np.empty((self.height, self.width, 4), dtype=np.uint8)
        facts = np.empty((self.height, self.width, 4), dtype=np.uint32)
        gl.glReadBuffer(_COLOUR_TARGETS[0])
        gl.glReadPixels(0, 0, self.width, self.height, gl.GL_RGBA, gl.GL_UNSIGNED_BYTE, colour)
        gl.glReadBuffer(_COLOUR_TARGETS[1])
        gl.glReadPixels(0, 0, self.width, self.height, gl.GL_RGBA_INTEGER, gl.GL_UNSIGNED_INT, facts)
        planes = [np.ascontiguousarray(facts[::-1, :, channel]) for channel in range(3)]
        return View(np.ascontiguousarray(colour[::-1, :, :3]), planes[0], planes[1], planes[2].view(np.float32))


class ShadowMap:
    """Depth of a scene as the spot light sees it, a square texture."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._texture = gl.glGenTextures(1)
        gl.glBindTexture(gl.GL_TEXTURE_2D, self._texture)
        gl.glTexImage2D(
            gl.GL_TEXTURE_2D, 0, gl.GL_DEPTH_COMPONENT32F, size, size, 0, gl.GL_DEPTH_COMPONENT, gl.GL_FLOAT, None
        )
        for name, value in (
            (gl.GL_TEXTURE_MIN_FILTER, gl.GL_LINEAR),
            (gl.GL_TEXTURE_MAG_FILTER, gl.GL_LINEAR),
            (gl.GL_TEXTURE_WRAP_S, gl.GL_CLAMP_TO_EDGE),
            (gl.GL_TEXTURE_WRAP_T, gl.GL_CLAMP_TO_EDGE),
            (gl.GL_TEXTURE_COMPARE_MODE, gl.GL_COMPARE_REF_TO_TEXTURE),
            (gl.GL_TEXTURE_COMPARE_FUNC, gl.GL_LEQUAL),
        ):
            gl.glTexParameteri(gl.GL_TEXTURE_2D, name, value)
        self._id = gl.glGenFramebuffers(1)
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, self._id)
        gl.glFramebufferTexture2D(gl.GL_FRAMEBUFFER, gl.GL_DEPTH_ATTACHMENT, gl.GL_TEXTURE_2D, self._texture, 0)
        gl.glDrawBuffer(gl.GL_NONE)
        gl.glReadBuffer(gl.GL_NONE)

    def begin(self, start: ShadowMap | None = None) -> None:
        """Make it the target, empty or with a copy of the map ``start``."""
        if start is not None:
            gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, start._id)
            gl.glBindFramebuffer(gl.GL_DRAW_FRAMEBUFFER, self._id)
            whole = (0, 0, self.size, self.size)
            gl.glBlitFramebuffer(*whole, *whole, gl.GL_DEPTH_BUFFER_BIT, gl.GL_NEAREST)
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, self._id)
        gl.glViewport(0, 0, self.size, self.size)
        _plain_state()
        if start is None:
            gl.glClearBufferfv(gl.GL_DEPTH, 0, np.ones(1, dtype=np.float32))

    def bind(self, unit: int) -> None:
        """Bind the map to a texture unit."""
        gl.glActiveTexture(gl.GL_TEXTURE0 + unit)
        gl.glBindTexture(gl.GL_TEXTURE_2D, self._texture)


def make_item(surface: Surface, texture: pyrender.Texture, pose: Floats, instance: int) -> DrawItem:
    """Upload a surface to the context."""
    colours = np.concatenate([surface.colours, np.ones((len(surface.colours), 1), np.float32)], axis=1)
    primitive = pyrender.Primitive(
        positions=surface.vertices,
        normals=surface.normals,
        texcoord_0=surface.uv,
        color_0=colours,
        indices=surface.faces,
    )
    primitive._add_to_context()
    return DrawItem(primitive, texture, pose, instance, surface.gloss)


def make_texture(image: Image | None) -> pyrender.Texture:
    """Upload a texture with mipmaps; ``None`` gives plain white."""
    source = np.full((1, 1, 3), 255, np.uint8) if image is None else image
    texture = pyrender.Texture(source=source, source_channels="RGB")
    texture._add_to_context()
    return texture


def update_vertices(item: DrawItem, vertices: FloatArray, normals: FloatArray) -> None:
    """Give an uploaded primitive new positions and normals [V,3], in place."""
    primitive = item.primitive
    data = np.hstack([vertices, normals, primitive.texcoord_0, primitive.color_0]).astype(np.float32)
    gl.glBindBuffer(gl.GL_ARRAY_BUFFER, primitive._buffers[0])
    gl.glBufferSubData(gl.GL_ARRAY_BUFFER, 0, data.nbytes, data)
    gl.glBindBuffer(gl.GL_ARRAY_BUFFER, 0)


def draw_items(program: Program, items: Sequence[DrawItem], *, shaded: bool = True) -> None:
    """Draw items into the current target with the program in use; shadow maps need no shading."""
    for item in items:
        program.matrix("world_from_object", item.pose)
        if shaded:
            program.matrix("world_normal_from_object", np.linalg.inv(item.pose[:3, :3]).T)
            program.unsigned("instance_id", item.instance)
            program.vector("gloss", item.gloss)
            gl.glActiveTexture(gl.GL_TEXTURE0)
            item.texture._bind()
        gl.glBindVertexArray(item.primitive._vaid)
        gl.glDrawElements(gl.GL_TRIANGLES, item.primitive.indices.size, gl.GL_UNSIGNED_INT, ctypes.c_void_p(0))
    gl.glBindVertexArray(0)


def delete_items(items: Sequence[DrawItem]) -> None:
    """Free the buffers and textures of items."""
    for item in items:
        item.primitive.delete()
    for texture in {id(item.texture): item.texture for item in items}.values():
        texture.delete()


def _plain_state() -> None:
    gl.glEnable(gl.GL_DEPTH_TEST)
    gl.glDepthMask(gl.GL_TRUE)
    gl.glDepthFunc(gl.GL_LESS)
    for feature in (gl.GL_BLEND, gl.GL_CULL_FACE, gl.GL_MULTISAMPLE):
        gl.glDisable(feature)
