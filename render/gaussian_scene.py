"""A scene of 3D Gaussians: its parameters, a start from points, its pictures along a camera path."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from manifests.errors import DwmError
from render.camera import CameraPath
from render.gaussians import rasterize
from render.rotations import Floats
from render.scene import FloatArray, Image

SH_DC = 0.28209479177387814
"""The constant spherical harmonic: a colour is 0.5 + SH_DC times its coefficient, where only that one is used."""

INITIAL_NEIGHBOURS = 3
"""Nearest neighbours whose mean distance gives a point's first size."""


@dataclass(frozen=True, eq=False)
class GaussianScene:
    """N Gaussians as they are trained and stored; float32 tensors on one device.

    Attributes:
        means: [N,3] centres, world, metres.
        log_scales: [N,3] logarithms of the standard deviations (metres) along the Gaussian's axes.
        quats: [N,4] world from axes, (w, x, y, z), of any length but 0.
        opacity_logits: [N]; the opacity is their sigmoid.
        sh: [N,K,3] coefficients of spherical harmonics a colour channel, K = 1, 4, 9, 16 or 25.

    Raises:
        DwmError: the shapes or types are others.
    """

    means: torch.Tensor
    log_scales: torch.Tensor
    quats: torch.Tensor
    opacity_logits: torch.Tensor
    sh: torch.Tensor

    def __post_init__(self) -> None:
        count, bands = len(self.means), self.sh.shape[1] if self.sh.ndim == 3 else 0
        shapes = {
            "means": (count, 3),
            "log_scales": (count, 3),
            "quats": (count, 4),
            "opacity_logits": (count,),
            "sh": (count, bands, 3),
        }
        for name, shape in shapes.items():
            tensor: torch.Tensor = getattr(self, name)
            if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                raise DwmError(f"Gaussian scene: {name} is {tensor.dtype} {tuple(tensor.shape)}, not float32 {shape}")
        if bands not in {1, 4, 9, 16, 25}:
            raise DwmError(f"Gaussian scene: {bands} spherical harmonics; there must be 1, 4, 9, 16 or 25")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Highest degree of the spherical harmonics."""
        return math.isqrt(self.sh.shape[1]) - 1

    def to(self, device: str | torch.device) -> GaussianScene:
        """The scene on a device, apart from any graph."""
        moved = {each.name: getattr(self, each.name).detach().to(device) for each in fields(self)}
        return replace(self, **moved)

    def rasterize(
        self, viewmats: torch.Tensor, intrinsics: torch.Tensor, width: int, height: int, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """`render.gaussians.rasterize` of this scene.

        Args:
            viewmats: [C,4,4] camera from world.
            intrinsics: [C,3,3] pixels.
            width: of the images, pixels.
            height: of the images, pixels.
            options: its other arguments; ``sh_degree`` is the scene's own unless given.
        """
        return rasterize(
            self.means,
            self.quats,
            self.log_scales.exp(),
            self.opacity_logits.sigmoid(),
            self.sh,
            viewmats,
            intrinsics,
            width,
            height,
            **{"sh_degree": self.sh_degree, **options},
        )


@dataclass(frozen=True, kw_only=True)
class PathRendering:
    """Pictures of a scene along a camera path.

    Attributes:
        frames: [T,H,W,3] uint8.
        alphas: [T,H,W] how much of each pixel Gaussians cover, 0-1; below 0.5 the scene was hardly seen there.
        depth: [T,H,W] expected depth along z, metres; 0 where nothing is covered.
    """

    frames: Image
    alphas: FloatArray
    depth: FloatArray


def render_path(
    scene: GaussianScene,
    cameras: CameraPath,
    width: int,
    height: int,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    threads: int | None = None,
) -> PathRendering:
    """Render a scene along a path, such as the static video along the interaction's (paper section 3.3).

    Args:
        scene: what to render.
        cameras: T poses and intrinsics for the size of the images.
        width: pixels.
        height: pixels.
        background: what shows where no Gaussian covers, as stored, 0-1.
        threads: see `render.compiled.in_parts`.
    """
    device = scene.means.device
    frames = np.empty((len(cameras), height, width, 3), np.uint8)
    alphas, depth = (np.empty((len(cameras), height, width), np.float32) for _ in range(2))
    intrinsics = torch.as_tensor(cameras.intrinsics, dtype=torch.float32, device=device)[None]
    with torch.no_grad():
        for number in range(len(cameras)):
            viewmat = torch.as_tensor(cameras[number].camera_from_world, dtype=torch.float32, device=device)
            image, alpha, _ = scene.rasterize(
                viewmat[None],
                intrinsics,
                width,
                height,
                render_mode="RGB+ED",
                backgrounds=torch.tensor([background], dtype=torch.float32, device=device),
                threads=threads,
            )
            frames[number] = to_bytes(image[0, ..., :3])
            alphas[number], depth[number] = alpha[0, ..., 0].cpu().numpy(), image[0, ..., 3].cpu().numpy()
    return PathRendering(frames=frames, alphas=alphas, depth=depth)


def to_bytes(image: torch.Tensor) -> Image:
    """Colours 0-1 as uint8, rounded; what lies outside is cut off."""
    result: Image = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return result


def scene_from_points(
    points: npt.ArrayLike, colours: npt.ArrayLike, *, sh_degree: int = 3, opacity: float = 0.1, scale: float = 1.0
) -> GaussianScene:
    """A scene to begin a reconstruction with: a round Gaussian at each point.

    Args:
        points: [P,3] world, metres, at least 2.
        colours: [P,3] as stored in images, 0-1.
        sh_degree: highest degree of the spherical harmonics; all but the constant one begin at 0.
        opacity: of every Gaussian, 0-1.
        scale: standard deviation as a share of the mean distance to the three nearest points. (Ten times the median
            is the most it can be: far strays would cover everything.)

    Raises:
        DwmError: fewer than 2 points, other shapes, or values that are not finite.
    """
    from scipy.spatial import cKDTree

    places, paints = np.asarray(points, np.float64), np.asarray(colours, np.float64)
    if places.ndim != 2 or places.shape[1:] != (3,) or paints.shape != places.shape or len(places) < 2:
        raise DwmError(f"points {places.shape} and colours {paints.shape}: both must be [P,3] with at least 2 points")
    if not (np.isfinite(places).all() and np.isfinite(paints).all()):
        raise DwmError("points: some places or colours are not finite; leave such points out")
    neighbours = min(INITIAL_NEIGHBOURS, len(places) - 1)
    distances = np.asarray(cKDTree(places).query(places, k=neighbours + 1)[0])[:, 1:].mean(axis=1)
    sizes = scale * np.clip(distances, 1e-4, 10 * max(float(np.median(distances)), 1e-4))
    sh = np.zeros((len(places), (sh_degree + 1) ** 2, 3))
    sh[:, 0] = (paints - 0.5) / SH_DC
    return GaussianScene(
        means=_tensor(places),
        log_scales=_tensor(np.repeat(np.log(sizes)[:, None], 3, axis=1)),
        quats=_tensor(np.tile([1.0, 0.0, 0.0, 0.0], (len(places), 1))),
        opacity_logits=_tensor(np.full(len(places), np.log(opacity / (1 - opacity)))),
        sh=_tensor(sh),
    )


def _tensor(values: Floats) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
