"""A second renderer of 3D Gaussians, pixel by pixel in float64, that shares nothing with the pipeline's."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from render.gaussian_scene import GaussianScene

FOV_MARGIN = 0.3
"""How far outside the image the projection is still linearised at the Gaussian's own place, in half image sizes."""


def brute_force(
    gaussians: Mapping[str, torch.Tensor],
    viewmat: torch.Tensor,
    intrinsics: torch.Tensor,
    size: tuple[int, int],
    *,
    sh_degree: int | None = None,
    eps2d: float = 0.3,
    near: float = 0.01,
    is_antialiased: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colours [H,W,D], alphas [H,W] and accumulated depths [H,W] of one camera, by the definition.

    ``gaussians`` holds means, quats, scales, opacities and colors. Every pixel looks at every Gaussian.
    """
    width, height = size
    means, opacities, colours = (gaussians[name].double() for name in ("means", "opacities", "colors"))
    view, lens = viewmat.double(), intrinsics.double()
    places = means @ view[:3, :3].T + view[:3, 3]
    in_front = places[:, 2] > near
    order = torch.argsort(places[:, 2].detach(), stable=True)
    order = order[in_front[order]]
    places = places[order]
    rotation = rotations(gaussians["quats"].double()[order])
    shape = rotation * gaussians["scales"].double()[order][:, None, :]
    covariance = view[:3, :3] @ shape @ shape.transpose(1, 2) @ view[:3, :3].T
    flat = flattened(places, covariance, lens, width, height)
    blurred = flat + eps2d * torch.eye(2, dtype=torch.float64)
    centres = places[:, :2] / places[:, 2:] * lens[[0, 1], [0, 1]] + lens[:2, 2]
    strength = opacities[order]
    if is_antialiased:
        strength = strength * (torch.linalg.det(flat) / torch.linalg.det(blurred)).clamp(min=0).sqrt()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], dim=-1).reshape(-1, 1, 2).double() + 0.5
    offsets = pixels - centres
    distances = 0.5 * torch.einsum("pni,nij,pnj->pn", offsets, torch.linalg.inv(blurred), offsets)
    alphas = (strength * torch.exp(-distances)).clamp(max=0.999)
    alphas = torch.where(alphas >= 1 / 255, alphas, 0.0)
    after = torch.cumprod(1 - alphas, dim=1)
    # A pixel ends before the Gaussian that would take its transmittance to 1e-4.
    alphas = torch.where((after > 1e-4).cummin(dim=1).values, alphas, 0.0)
    after = torch.cumprod(1 - alphas, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    weights = alphas * before
    if sh_degree is not None:
        eye = -view[:3, :3].T @ view[:3, 3]
        colours = (harmonics(means - eye, colours, sh_degree) + 0.5).clamp(min=0)
    image = (weights @ colours[order]).reshape(height, width, -1)
    depth = (weights @ places[:, 2]).reshape(height, width)
    return image, weights.sum(dim=1).reshape(height, width), depth


def rotations(quats: torch.Tensor) -> torch.Tensor:
    """Rotation matrices [N,3,3] by turning the axes one after the other: q v q*."""
    units = quats / quats.norm(dim=1, keepdim=True)
    scalar, vector = units[:, :1], units[:, 1:]
    turned = []
    for axis in torch.eye(3, dtype=quats.dtype):
        straight = axis.expand_as(vector)
        cross = torch.linalg.cross(vector, straight)
        turned.append(straight + 2 * scalar * cross + 2 * torch.linalg.cross(vector, cross))
    return torch.stack(turned, dim=2)


def flattened(
    places: torch.Tensor, covariance: torch.Tensor, lens: torch.Tensor, width: int, height: int
) -> torch.Tensor:
    """Covariances [N,2,2] on the image by the projection's derivative at (a bounded) place (EWA splatting)."""
    focal = lens[[0, 1], [0, 1]]
    size = torch.tensor([width, height], dtype=torch.float64)
    margin = FOV_MARGIN * 0.5 * size / focal
    slopes = places[:, :2] / places[:, 2:]
    slopes = slopes.clamp(min=-lens[:2, 2] / focal - margin, max=(size - lens[:2, 2]) / focal + margin)
    depth = places[:, 2]
    derivative = torch.zeros(len(places), 2, 3, dtype=torch.float64)
    derivative[:, 0, 0], derivative[:, 1, 1] = focal[0] / depth, focal[1] / depth
    derivative[:, :, 2] = -focal * slopes / depth[:, None]
    return derivative @ covariance @ derivative.transpose(1, 2)


def harmonics(directions: torch.Tensor, coefficients: torch.Tensor, degree: int) -> torch.Tensor:
    """Values [N,3] of real spherical harmonics up to degree 2, with the signs of 3D Gaussian Splatting."""
    x, y, z = (directions / directions.norm(dim=1, keepdim=True)).unbind(1)
    first = math.sqrt(3 / (4 * math.pi))
    second = 0.5 * math.sqrt(15 / math.pi)
    bases = [torch.full_like(x, 0.5 / math.sqrt(math.pi)), -first * y, first * z, -first * x]
    bases += [second * x * y, -second * y * z, 0.25 * math.sqrt(5 / math.pi) * (3 * z * z - 1)]
    bases += [-second * x * z, 0.5 * second * (x * x - y * y)]
    chosen = torch.stack(bases[: (degree + 1) ** 2], dim=1)
    return torch.einsum("nk,nkc->nc", chosen, coefficients[:, : chosen.shape[1]])


def of_scene(scene: GaussianScene) -> dict[str, torch.Tensor]:
    """A scene as `brute_force` takes it."""
    return {
        "means": scene.means,
        "quats": scene.quats,
        "scales": scene.log_scales.exp(),
        "opacities": scene.opacity_logits.sigmoid(),
        "colors": scene.sh,
    }


def random_gaussians(seed: int, count: int, *, bands: int | None = None) -> dict[str, torch.Tensor]:
    """Gaussians of many sizes and shapes: before the camera at the origin, beside it and behind it."""
    random = torch.Generator().manual_seed(seed)
    drawn = {
        "means": torch.randn((count, 3), generator=random) * torch.tensor([1.2, 0.8, 1.0])
        + torch.tensor([0.0, 0.0, 2.0]),
        "quats": torch.randn((count, 4), generator=random),
        "scales": torch.exp(torch.randn((count, 3), generator=random) * 0.7 - 2.0),
        "opacities": torch.rand(count, generator=random) * 0.98 + 0.01,
        "colors": torch.rand((count, 3), generator=random)
        if bands is None
        else torch.randn((count, bands, 3), generator=random) * 0.3,
    }
    return {name: tensor.requires_grad_() for name, tensor in drawn.items()}


def camera(width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A pose [4,4] and intrinsics [3,3] that are nothing special: turned, off centre, with two focal lengths."""
    angle = 0.2
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    pose[:3, 3] = [0.1, -0.2, 0.3]
    lens = np.array([[0.7 * width, 0, 0.48 * width], [0, 0.75 * width, 0.55 * height], [0, 0, 1]], np.float32)
    return torch.from_numpy(pose), torch.from_numpy(lens)
