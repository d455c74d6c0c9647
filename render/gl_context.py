"""An off-screen OpenGL context through pyrender: EGL, or OSMesa where EGL is not installed."""

from __future__ import annotations

import ctypes.util
import os
from typing import TYPE_CHECKING, Any

from manifests.errors import DwmError

if TYPE_CHECKING:
    import pyrender

PACKAGES_REMEDY = "install the Debian packages libegl1 and libgl1 (or libosmesa6)"
_PLATFORM_VARIABLE = "PYOPENGL_PLATFORM"


def choose_platform() -> str:
    """Name of the OpenGL platform to use, ``egl`` or ``osmesa``; a value set in PYOPENGL_PLATFORM wins.

    Raises:
        DwmError: neither library is installed, or the variable names another platform.
    """
    wanted = os.environ.get(_PLATFORM_VARIABLE, "")
    if wanted in ("egl", "osmesa"):
        return wanted
    if wanted:
        raise DwmError(f"{_PLATFORM_VARIABLE}={wanted}: cannot draw without a screen; set it to egl or osmesa")
    if ctypes.util.find_library("EGL") and ctypes.util.find_library("GL"):
        return "egl"
    if ctypes.util.find_library("OSMesa"):
        return "osmesa"
    raise DwmError(f"OpenGL: no library to draw with was found; {PACKAGES_REMEDY}")


def open_context(width: int, height: int) -> pyrender.OffscreenRenderer:
    """Open an off-screen context and make it current. One context a process; spawn workers, never fork them.

    Raises:
        DwmError: no OpenGL library is installed, or none of its devices can be opened.
    """
    platform = choose_platform()
    os.environ[_PLATFORM_VARIABLE] = platform
    try:
        import pyrender

        return pyrender.OffscreenRenderer(width, height)
    except Exception as error:  # drivers fail in ways of their own: AssertionError, GLError, OSError, AttributeError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DwmError(
            f"OpenGL: the '{platform}' platform could not be opened ({reason}); {PACKAGES_REMEDY}, "
            f"or set {_PLATFORM_VARIABLE}=osmesa"
        ) from error


def current_description() -> str:
    """Vendor, renderer and version of the current context, and whether it draws in software."""
    gl: Any = _gl()
    parts = [gl.glGetString(name).decode() for name in (gl.GL_VENDOR, gl.GL_RENDERER, gl.GL_VERSION)]
    return f"{', '.join(parts)} ({os.environ[_PLATFORM_VARIABLE]})"


def gl_description() -> str:
    """Open a small context and describe it, for `dwm doctor` and the records of a build.

    Raises:
        DwmError: there is no usable OpenGL.
    """
    context = open_context(8, 8)
    try:
        return current_description()
    finally:
        context.delete()


def _gl() -> Any:
    from OpenGL import GL

    return GL
