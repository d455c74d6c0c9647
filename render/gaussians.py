"""Rendering 3D Gaussians (Kerbl et al. 2023; paper section 3.3, "Real-World Captures") on CUDA or CPU, one function.

`rasterize` takes and returns what `gsplat.rendering.rasterization` (1.5.3) does with ``packed=False``. Tensors on a
CUDA device go to gsplat itself. On the CPU the projection and the spherical harmonics are gsplat's own torch code, and
the compositing is `render.gaussian_compositor`. Both give gradients for everything but the cameras' intrinsics, and the
``means2d`` and ``radii`` that gsplat's densification strategies watch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from manifests.errors import DwmError, UsageError
from render.gaussian_compositor import Canvas, Compositor
from render.gaussian_cuda import require_cuda_kernels
from render.gaussian_tiles import MAX_EXTENT, TILE

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
"""Colours, accumulated depth, expected depth, or colours and then a depth (along z, metres)."""

RasterizeMode = Literal["classic", "antialiased"]
"""Whether opacities are lowered by what the blur ``eps2d`` widens a Gaussian (Mip-Splatting)."""


def rasterize(  # noqa: PLR0917  # gsplat's order
    means: torch.Tensor,
    quats: torch.Tensor,
    scales: torch.Tensor,
    opacities: torch.Tensor,
    colors: torch.Tensor,
    viewmats: torch.Tensor,
    Ks: torch.Tensor,  # noqa: N803  # gsplat's name
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: torch.Tensor | None = None,
    render_mode: RenderMode = "RGB",
    absgrad: bool = False,
    rasterize_mode: RasterizeMode = "classic",
    threads: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Render N Gaussians in C pinhole cameras; every tensor is float32 and on one device.

    Args:
        means: [N,3] centres, world, metres.
        quats: [N,4] rotations (w, x, y, z), of any length but 0.
        scales: [N,3] standard deviations along the axes, metres.
        opacities: [N], 0-1.
        colors: [N,D] or [C,N,D] values of any D channels; with ``sh_degree`` coefficients of spherical harmonics
            [N,K,3] or [C,N,K,3].
        viewmats: [C,4,4] camera from world, OpenCV's axes.
        Ks: [C,3,3] intrinsics, pixels, pixel centres at +0.5; skew is not used.
        width: of the images, pixels.
        height: of the images, pixels.
        near_plane: least depth, metres.
        far_plane: greatest depth, metres.
        radius_clip: Gaussians of at most this radius are left out, pixels.
        eps2d: added to the projected variances, pixels^2.
        sh_degree: highest degree of the coefficients to use.
        backgrounds: [C,D] what shows where no Gaussian covers; black when None.
        render_mode: what to draw.
        absgrad: also sum the absolute values of each pixel's gradient of the projected means, into
            ``meta["means2d"].absgrad``, by the backward pass.
        rasterize_mode: how to treat the blur.
        threads: on the CPU: see `render.compiled.in_parts`.

    Returns:
        Colours [C,H,W,X] (D, 1 or D + 1 channels, by the mode), alphas [C,H,W,1], and a dictionary as gsplat's
        strategies take it: ``means2d`` [C,N,2] (in the graph; keep its gradient with ``retain_grad``), ``radii``
        [C,N,2] (int32 pixels, 0 where a Gaussian is not drawn), ``depths``, ``conics``, ``opacities``, ``width``,
        ``height``, ``n_cameras`` and others.

    Raises:
        UsageError: tensors of other shapes or types, or an unknown mode.
        DwmError: the tensors are on a CUDA device and gsplat's kernels do not load.
    """
    tensors = {
        "means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors,
        "viewmats": viewmats, "Ks": Ks,
    }  # fmt: skip
    _check_tensors(tensors, sh_degree)
    if render_mode not in get_args(RenderMode) or rasterize_mode not in get_args(RasterizeMode):
        raise UsageError(
            f"rasterize: modes '{render_mode}' and '{rasterize_mode}' must be of {', '.join(get_args(RenderMode))} "
            f"and of {', '.join(get_args(RasterizeMode))}"
        )
    if means.is_cuda:
        require_cuda_kernels()
        from gsplat.rendering import rasterization

        result: tuple[torch.Tensor, torch.Tensor, dict[str, Any]] = rasterization(
            means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane=near_plane,
            far_plane=far_plane, radius_clip=radius_clip, eps2d=eps2d, sh_degree=sh_degree, packed=False,
            tile_size=TILE, backgrounds=backgrounds, render_mode=render_mode, absgrad=absgrad,
            rasterize_mode=rasterize_mode,
        )  # fmt: skip
        return result
    lens = _Lens(
        width=width, height=height, near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip, eps2d=eps2d,
        is_antialiased=rasterize_mode == "antialiased",
    )  # fmt: skip
    projected = _project(means, quats, scales, opacities, list(zip(viewmats, Ks, strict=True)), lens=lens)
    meta: dict[str, Any] = {
        "batch_ids": None, "camera_ids": None, "gaussian_ids": None, **projected,
        "tile_width": math.ceil(width / TILE), "tile_height": math.ceil(height / TILE), "tile_size": TILE,
        "width": width, "height": height, "n_batches": 1, "n_cameras": len(viewmats),
    }  # fmt: skip
    values = [] if render_mode in {"D", "ED"} else [_colours(means, colors, viewmats, sh_degree)]
    values += [] if render_mode == "RGB" else [meta["depths"][..., None]]
    channels = torch.cat(values, dim=-1)
    images, alphas = _composite_cameras(meta, channels, absgrad=absgrad, threads=threads)
    if backgrounds is not None:
        images = images + (1 - alphas) * _background(backgrounds, channels.shape[-1], render_mode)
    if render_mode in {"ED", "RGB+ED"}:
        images = torch.cat([images[..., :-1], images[..., -1:] / alphas.clamp(min=1e-10)], dim=-1)
    return images, alphas, meta


@dataclass(frozen=True, kw_only=True)
class _Lens:
    """What a projection needs besides Gaussians and cameras; see `rasterize`."""

    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    eps2d: float
    is_antialiased: bool


def _check_tensors(tensors: dict[str, torch.Tensor], sh_degree: int | None) -> None:
    """Refuse what gsplat would stumble over."""
    means, colors = tensors["means"], tensors["colors"]
    count, cameras = len(means), len(tensors["viewmats"])
    own = 2 if sh_degree is None else 3
    tail = tuple(colors.shape[-own:])
    shapes = {
        "means": (count, 3),
        "quats": (count, 4),
        "scales": (count, 3),
        "opacities": (count,),
        "colors": tail if colors.ndim == own else (cameras, *tail),
        "viewmats": (cameras, 4, 4),
        "Ks": (cameras, 3, 3),
    }
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32 or tensor.device != means.device:
            raise UsageError(
                f"rasterize: {name} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}, "
                f"must be float32 {shape} on {means.device}"
            )
    if tail[0] != count or (sh_degree is not None and (tail[2] != 3 or tail[1] < (sh_degree + 1) ** 2)):
        wanted = "[N,D]" if sh_degree is None else f"[N,{(sh_degree + 1) ** 2} or more,3]"
        raise UsageError(f"rasterize: colors {tuple(colors.shape)} must be {wanted} for N = {count} Gaussians")


def _project(
    means: torch.Tensor,
    quats: torch.Tensor,
    scales: torch.Tensor,
    opacities: torch.Tensor,
    cameras: list[tuple[torch.Tensor, torch.Tensor]],
    *,
    lens: _Lens,
) -> dict[str, torch.Tensor]:
    """Project on the CPU with gsplat's torch code, for each pose [4,4] and intrinsics [3,3]."""
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    covariances, _ = _quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    projected = []
    for viewmat, matrix in cameras:
        in_front = means.detach() @ viewmat[2, :3] + viewmat[2, 3] > lens.near_plane
        # What is behind goes where its projection is finite: 0 times an infinite derivative would be NaN.
        on_axis = torch.linalg.inv(viewmat.detach())[:3] @ viewmat.new_tensor([0.0, 0.0, lens.near_plane + 1.0, 1.0])
        radii, means2d, depths, conics, compensations = _fully_fused_projection(
            torch.where(in_front[:, None], means, on_axis),
            covariances,
            viewmat[None],
            matrix[None],
            lens.width,
            lens.height,
            eps2d=lens.eps2d,
            near_plane=lens.near_plane,
            far_plane=lens.far_plane,
            calc_compensations=lens.is_antialiased,
        )
        seen_opacities = opacities if compensations is None else opacities * compensations[0]
        is_candidate = in_front & (radii[0] > 0).all(dim=-1)
        radii = _radii(means2d[0], conics[0], seen_opacities, is_candidate, lens=lens)
        projected.append((radii, means2d[0], depths[0], conics[0], seen_opacities))
    names = ("radii", "means2d", "depths", "conics", "opacities")
    return {name: torch.stack(each) for name, each in zip(names, zip(*projected, strict=True), strict=True)}


@torch.no_grad()
def _radii(
    means2d: torch.Tensor, conics: torch.Tensor, opacities: torch.Tensor, is_candidate: torch.Tensor, *, lens: _Lens
) -> torch.Tensor:
    """Half sizes [N,2] of what is drawn, as gsplat's kernel has them: the opacity counts; 0 for what is not drawn."""
    a, b, c = conics.double().unbind(-1)
    deviations = torch.stack([c, a], dim=-1).div((a * c - b * b)[:, None]).sqrt()
    extents = (2 * (255 * opacities.double()).clamp(min=1.0).log()).sqrt().clamp(max=MAX_EXTENT)
    radii = (extents[:, None] * deviations).ceil()
    size = radii.new_tensor([lens.width, lens.height])
    is_inside = ((means2d + radii > 0) & (means2d - radii < size)).all(dim=-1)
    is_drawn = is_candidate & is_inside & (opacities >= 1 / 255) & (radii > lens.radius_clip).any(dim=-1)
    return torch.where(is_drawn[:, None] & radii.isfinite(), radii, 0.0).int()


def _colours(means: torch.Tensor, colors: torch.Tensor, viewmats: torch.Tensor, sh_degree: int | None) -> torch.Tensor:
    """Colours of each Gaussian in each camera [C,N,D]."""
    cameras = len(viewmats)
    if sh_degree is None:
        return colors.expand(cameras, -1, -1)
    from gsplat.cuda._torch_impl import _spherical_harmonics

    directions = means - torch.linalg.inv(viewmats)[:, None, :3, 3]
    coefficients = colors if colors.ndim == 4 else colors.expand(cameras, -1, -1, -1)
    return torch.clamp_min(_spherical_harmonics(sh_degree, directions, coefficients) + 0.5, 0.0)


def _composite_cameras(
    meta: dict[str, Any], values: torch.Tensor, *, absgrad: bool, threads: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [C,H,W,X] and alphas [C,H,W,1]."""
    means2d: torch.Tensor = meta["means2d"]
    canvases = [Canvas(meta["width"], meta["height"], threads) for _ in means2d]
    drawn = [
        Compositor.apply(  # type: ignore[no-untyped-call]
            means2d[camera],
            meta["conics"][camera],
            meta["opacities"][camera],
            values[camera],
            meta["depths"][camera],
            (meta["radii"][camera] > 0).all(dim=-1),
            canvas,
        )
        for camera, canvas in enumerate(canvases)
    ]
    if absgrad and means2d.requires_grad:

        def keep(_: torch.Tensor) -> None:
            none = torch.zeros_like(means2d[0])
            found = [none if each.absolute_gradient is None else each.absolute_gradient for each in canvases]
            means2d.absgrad = torch.stack(found)  # type: ignore[attr-defined]

        means2d.register_hook(keep)  # type: ignore[no-untyped-call]
    return torch.stack([image for image, _ in drawn]), torch.stack([alpha for _, alpha in drawn])[..., None]


def _background(backgrounds: torch.Tensor, channels: int, render_mode: RenderMode) -> torch.Tensor:
    """Background [C,1,1,X]; depths have none."""
    if render_mode in {"D", "ED"}:
        return torch.zeros_like(backgrounds[:, None, None, :1])
    missing = channels - backgrounds.shape[1]
    if missing != (0 if render_mode == "RGB" else 1):
        raise DwmError(f"rasterize: backgrounds {tuple(backgrounds.shape)} must have the channels of the colours")
    return torch.nn.functional.pad(backgrounds, (0, missing))[:, None, None]
