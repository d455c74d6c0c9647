"""A scene of one's own: Gaussians (PLY) or meshes (GLB, glTF, OBJ), drawn along a camera path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.body import load_body
from render.camera import CameraPath
from render.framing import Frames
from render.glb import MESH_SUFFIXES
from render.mesh_renderer import MeshRenderer
from render.rotations import Floats
from render.scene import Actor, FloatArray, Scene
from sources.trumans_scene import Dress, load_scene

GAUSSIAN_SUFFIX = ".ply"
_AWAY_M = 1000.0
_UNSEEN_ALPHA = 0.5
"""A pixel that Gaussians cover less shows a part of the scene that nobody saw."""


@dataclass(frozen=True, eq=False)
class DrawnScene:
    """A static video.

    Attributes:
        frames: [T,H,W,3] uint8.
        unseen: [T,H,W] pixels where the scene holds nothing.
        depth: [T,H,W] metres along z; of Gaussians the expected depth; 0 where there is nothing.
    """

    frames: Frames
    unseen: npt.NDArray[np.bool_]
    depth: FloatArray

    @property
    def unseen_share(self) -> Floats:
        """[T] share of each picture where the scene holds nothing."""
        result: Floats = self.unseen.mean(axis=(1, 2), dtype=np.float64)
        return result


class StaticScene(Protocol):
    """Anything that stands still and can be drawn."""

    def draw(self, renderer: MeshRenderer, cameras: CameraPath) -> DrawnScene:
        """Draw it along a path whose intrinsics are for the renderer's image size."""


@dataclass(frozen=True, eq=False)
class MeshScene:
    """Meshes, lit by a sun and a sky."""

    scene: Scene

    def draw(self, renderer: MeshRenderer, cameras: CameraPath) -> DrawnScene:
        """Draw it; where there is neither wall nor ceiling one sees the sky."""
        views = renderer.render_views(self.scene, [], _nobody(len(cameras)), cameras)
        return DrawnScene(views.interaction, np.asarray(views.depth == 0), views.depth.astype(np.float32))


class SplatScene:
    """Gaussians as common trainers store them.

    Args:
        path: PLY.

    Raises:
        DwmError: the file is missing, or no PLY of Gaussians.
    """

    def __init__(self, path: Path) -> None:
        from render.gaussian_ply import read_ply

        self._scene = read_ply(path)

    def draw(self, renderer: MeshRenderer, cameras: CameraPath) -> DrawnScene:
        """Draw them, black where there is none; at the renderer's scale, reduced by area."""
        from render.gaussian_scene import render_path

        scale = renderer.scale
        width, height = renderer.width * scale, renderer.height * scale
        drawn = render_path(self._scene, cameras.scaled(scale), width, height)
        frames = np.stack([_reduced(frame, renderer.width, renderer.height) for frame in drawn.frames])
        covered = np.stack([_reduced(alpha, renderer.width, renderer.height) for alpha in drawn.alphas])
        depth = drawn.depth[:, scale // 2 :: scale, scale // 2 :: scale]  # a mean of depths is no depth at an edge
        return DrawnScene(frames.astype(np.uint8), np.asarray(covered < _UNSEEN_ALPHA), np.ascontiguousarray(depth))


def open_scene(path: Path) -> StaticScene:
    """Open a scene by the suffix of its file.

    Raises:
        DwmError: the file is missing, broken, or of another kind.
    """
    suffix = path.suffix.lower()
    if suffix == GAUSSIAN_SUFFIX:
        return SplatScene(path)
    if suffix in MESH_SUFFIXES:
        return MeshScene(load_scene((path,)))
    raise DwmError(f"{path}: is no scene ({GAUSSIAN_SUFFIX} of Gaussians, or {', '.join(MESH_SUFFIXES)}); convert it")


def _reduced(image: npt.NDArray[np.generic], width: int, height: int) -> npt.NDArray[np.generic]:
    if image.shape[1] == width:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))  # type: ignore[arg-type]


def _nobody(frames: int) -> Actor:
    """The renderer's actor, far away."""
    body = load_body()
    dress = Dress.of(body)
    vertices = np.tile(body.template.astype(np.float32) + np.float32(_AWAY_M), (frames, 1, 1))
    return Actor(vertices, body.faces, dress.colours, body.hands, dress.hidden_faces)
