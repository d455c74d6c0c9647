"""What the mesh renderer draws into: the framebuffers of a frame's two images, and shadow maps.

Import it only after a context is open (`render.gl_context`). Images are drawn upside down for OpenGL, so that the
rows come back from the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import OpenGL.GL as gl  # noqa: N811 - the lower-case name reads better in a file full of it

from manifests.errors import DwmError
from render.rotations import Floats
from render.scene import FloatArray, Image

STATIC, LIVE, MARKS, INSTANCES = range(4)
"""Outputs of the shaders and attachments of the framebuffers."""

_FORMATS = {STATIC: gl.GL_RGBA8, LIVE: gl.GL_RGBA8, MARKS: gl.GL_RGBA8, INSTANCES: gl.GL_R16UI}
_LIVE_OUTPUTS = (LIVE, MARKS, INSTANCES)
_BLACK = np.zeros(4, dtype=np.float32)
_FAR = np.ones(1, dtype=np.float32)


@dataclass(frozen=True)
class FrameViews:
    """What was drawn of one frame, at the size of the framebuffer, top row first.

    Attributes:
        static: [h,w,4] uint8; alpha > 0 where a moved object shows at its rest pose.
        live: [h,w,4] uint8.
        marks: [h,w,4] uint8, share of the pixel that is hand, actor, moved object, and scene with changed light.
        instances: [h,w] uint16, 0 = nothing.
        window_depth: [h,w] float32, the live image's depth buffer, 1 = nothing.
    """

    static: Image
    live: Image
    marks: Image
    instances: npt.NDArray[np.uint16]
    window_depth: FloatArray


class FrameTargets:
    """Static and live image of a frame, with marks, instances and a depth buffer for each image.

    Framebuffers share the attachments: one draws what stands still for both images, one adds to the static image, one
    to the live image.

    Args:
        width: pixels.
        height: pixels.
        samples: samples a pixel, 0 for no multisampling.

    Raises:
        DwmError: the driver has no such multisampling.
    """

    def __init__(self, width: int, height: int, samples: int = 0) -> None:
        most = int(gl.glGetIntegerv(gl.GL_MAX_SAMPLES))
        if samples > most:
            raise DwmError(f"OpenGL: {samples} samples a pixel were asked for, the driver has {most}; use 0")
        self.width, self.height, self.samples = width, height, samples
        self._lights_differ = True
        self._drawn = _Attachments(width, height, samples)
        self._read = _Attachments(width, height, 0) if samples else self._drawn

    def begin(self, background: Sequence[float], *, lights_differ: bool) -> None:
        """Clear everything and draw what both images show.

        Args:
            background: colour (0-1).
            lights_differ: whether shaders give each image its own colour; else the static one is copied by ``split``.
        """
        colour = np.array([*background, 0.0], dtype=np.float32)
        self._begin(self._drawn.live, _LIVE_OUTPUTS if lights_differ else (MARKS, INSTANCES), colour)
        self._begin(self._drawn.both if lights_differ else self._drawn.alike, (STATIC,), colour)
        self._lights_differ = lights_differ

    def begin_live(self, background: Sequence[float]) -> None:
        """Clear the live image and draw only into it."""
        self._begin(self._drawn.live, _LIVE_OUTPUTS, np.array([*background, 0.0], dtype=np.float32))

    def _begin(self, framebuffer: int, cleared: Sequence[int], colour: FloatArray) -> None:
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, framebuffer)
        gl.glViewport(0, 0, self.width, self.height)
        set_plain_state(multisample=self.samples > 0)
        for output in cleared:
            if output == INSTANCES:
                gl.glClearBufferuiv(gl.GL_COLOR, output, np.zeros(4, dtype=np.uint32))
            else:
                gl.glClearBufferfv(gl.GL_COLOR, output, _BLACK if output == MARKS else colour)
        gl.glClearBufferfv(gl.GL_DEPTH, 0, _FAR)

    def split(self) -> None:
        """Give the live image what was drawn for both: from now on they go different ways."""
        self._drawn.copy_depth(self._drawn.both, self._drawn.live)
        if not self._lights_differ:
            self._drawn.copy_static_colour()

    def use_static(self) -> None:
        """Draw into the static image only."""
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, self._drawn.static)

    def use_live(self) -> None:
        """Draw into the live image only."""
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, self._drawn.live)

    def read(self) -> FrameViews:
        """Read back what was drawn."""
        return FrameViews(
            static=self._read_colour(STATIC),
            live=self._read_colour(LIVE),
            marks=self._read_colour(MARKS),
            instances=self._read_instances(),
            window_depth=self._read_depth(),
        )

    def read_live(self) -> tuple[Image, npt.NDArray[np.uint16]]:
        """Read back colour [h,w,4] and instances [h,w] of the live image."""
        return self._read_colour(LIVE), self._read_instances()

    def _source(self, output: int) -> None:
        """Make an attachment, its samples resolved, the source of reads."""
        if self.samples:
            self._read.resolve(self._drawn, output)
        gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, self._read.both)
        gl.glReadBuffer(gl.GL_COLOR_ATTACHMENT0 + output)
        gl.glPixelStorei(gl.GL_PACK_ALIGNMENT, 1)

    def _read_colour(self, output: int) -> Image:
        self._source(output)
        pixels = np.empty((self.height, self.width, 4), dtype=np.uint8)
        gl.glReadPixels(0, 0, self.width, self.height, gl.GL_RGBA, gl.GL_UNSIGNED_BYTE, pixels)
        return pixels

    def _read_instances(self) -> npt.NDArray[np.uint16]:
        self._source(INSTANCES)
        pixels = np.empty((self.height, self.width), dtype=np.uint16)
        gl.glReadPixels(0, 0, self.width, self.height, gl.GL_RED_INTEGER, gl.GL_UNSIGNED_SHORT, pixels)
        return pixels

    def _read_depth(self) -> FloatArray:
        if self.samples:
            self._drawn.copy_depth(self._drawn.live, self._read.live)
        gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, self._read.live)
        gl.glPixelStorei(gl.GL_PACK_ALIGNMENT, 1)
        pixels = np.empty((self.height, self.width), dtype=np.float32)
        gl.glReadPixels(0, 0, self.width, self.height, gl.GL_DEPTH_COMPONENT, gl.GL_FLOAT, pixels)
        return pixels


class _Attachments:
    """Buffers of the four outputs and of two depths, in framebuffers that share them."""

    def __init__(self, width: int, height: int, samples: int) -> None:
        self._whole = (0, 0, width, height)
        self._samples = samples
        colours = {output: self._buffer(form) for output, form in _FORMATS.items()}
        static_depth, live_depth = (self._buffer(gl.GL_DEPTH_COMPONENT32F) for _ in range(2))
        self.both = self._framebuffer(colours, tuple(_FORMATS), static_depth)
        self.alike = self._framebuffer(colours, (STATIC, INSTANCES), static_depth)
        self.static = self._framebuffer(colours, (STATIC,), static_depth)
        self.live = self._framebuffer(colours, _LIVE_OUTPUTS, live_depth)

    def _buffer(self, form: int) -> int:
        name = int(gl.glGenRenderbuffers(1))
        gl.glBindRenderbuffer(gl.GL_RENDERBUFFER, name)
        width, height = self._whole[2:]
        if self._samples:
            gl.glRenderbufferStorageMultisample(gl.GL_RENDERBUFFER, self._samples, form, width, height)
        else:
            gl.glRenderbufferStorage(gl.GL_RENDERBUFFER, form, width, height)
        return name

    def _framebuffer(self, colours: dict[int, int], outputs: Sequence[int], depth: int) -> int:
        name = int(gl.glGenFramebuffers(1))
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, name)
        for output in outputs:
            attachment = gl.GL_COLOR_ATTACHMENT0 + output
            gl.glFramebufferRenderbuffer(gl.GL_FRAMEBUFFER, attachment, gl.GL_RENDERBUFFER, colours[output])
        gl.glFramebufferRenderbuffer(gl.GL_FRAMEBUFFER, gl.GL_DEPTH_ATTACHMENT, gl.GL_RENDERBUFFER, depth)
        gl.glDrawBuffers(len(_FORMATS), self._named(outputs))
        return name

    def copy_depth(self, source: int, target: int) -> None:
        """Copy the depth of one framebuffer to another, perhaps of fewer samples."""
        gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, source)
        gl.glBindFramebuffer(gl.GL_DRAW_FRAMEBUFFER, target)
        gl.glBlitFramebuffer(*self._whole, *self._whole, gl.GL_DEPTH_BUFFER_BIT, gl.GL_NEAREST)

    def copy_static_colour(self) -> None:
        """Copy the static image into the live one."""
        gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, self.static)
        gl.glReadBuffer(gl.GL_COLOR_ATTACHMENT0 + STATIC)
        gl.glBindFramebuffer(gl.GL_DRAW_FRAMEBUFFER, self.live)
        gl.glDrawBuffers(len(_FORMATS), self._named((LIVE,)))
        gl.glBlitFramebuffer(*self._whole, *self._whole, gl.GL_COLOR_BUFFER_BIT, gl.GL_NEAREST)
        gl.glDrawBuffers(len(_FORMATS), self._named(_LIVE_OUTPUTS))

    def _named(self, outputs: Sequence[int]) -> list[int]:
        """The attachments of some outputs, at their places."""
        return [gl.GL_COLOR_ATTACHMENT0 + each if each in outputs else gl.GL_NONE for each in _FORMATS]

    def resolve(self, source: _Attachments, output: int) -> None:
        """Average the samples of one output of ``source`` (of instances: take one sample)."""
        gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, source.both)
        gl.glReadBuffer(gl.GL_COLOR_ATTACHMENT0 + output)
        gl.glBindFramebuffer(gl.GL_DRAW_FRAMEBUFFER, self.both)
        gl.glDrawBuffers(len(_FORMATS), self._named((output,)))
        gl.glBlitFramebuffer(*self._whole, *self._whole, gl.GL_COLOR_BUFFER_BIT, gl.GL_NEAREST)


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

    def begin(self) -> None:
        """Make it the target, empty."""
        self._use()
        gl.glClearBufferfv(gl.GL_DEPTH, 0, _FAR)

    def begin_with(self, start: ShadowMap, area: Floats) -> None:
        """Make it the target, with the map ``start`` copied over ``area`` (low x y, high x y, of 0-1)."""
        low_x, low_y = (max(0, int(np.floor(value * self.size))) for value in area[:2])
        high_x, high_y = (min(self.size, int(np.ceil(value * self.size))) for value in area[2:])
        if low_x < high_x and low_y < high_y:
            box = (low_x, low_y, high_x, high_y)
            gl.glBindFramebuffer(gl.GL_READ_FRAMEBUFFER, start._id)
            gl.glBindFramebuffer(gl.GL_DRAW_FRAMEBUFFER, self._id)
            gl.glBlitFramebuffer(*box, *box, gl.GL_DEPTH_BUFFER_BIT, gl.GL_NEAREST)
        self._use()

    def _use(self) -> None:
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, self._id)
        gl.glViewport(0, 0, self.size, self.size)
        set_plain_state(multisample=False)

    def bind(self, unit: int) -> None:
        """Bind the map to a texture unit."""
        gl.glActiveTexture(gl.GL_TEXTURE0 + unit)
        gl.glBindTexture(gl.GL_TEXTURE_2D, self._texture)


def set_plain_state(*, multisample: bool) -> None:
    """Depth test on, blending and culling off: every surface has two sides."""
    gl.glEnable(gl.GL_DEPTH_TEST)
    gl.glDepthMask(gl.GL_TRUE)
    gl.glDepthFunc(gl.GL_LESS)
    for feature in (gl.GL_BLEND, gl.GL_CULL_FACE):
        gl.glDisable(feature)
    (gl.glEnable if multisample else gl.glDisable)(gl.GL_MULTISAMPLE)
