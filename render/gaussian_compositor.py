"""The CPU compositor of projected Gaussians as a torch function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from render.gaussian_tile_gradients import (
    COLOUR_GRADIENT,
    CONIC,
    MEAN,
    MEAN_ABSOLUTE,
    OPACITY_GRADIENT,
    ImageGradient,
    tile_gradients,
)
from render.gaussian_tiles import Float32s, Projected, bin_gaussians, draw_tiles


@dataclass
class Canvas:
    """What to draw on, and what is left there.

    Attributes:
        width: of the image, pixels.
        height: of the image, pixels.
        threads: see `render.compiled.in_parts`; the results do not depend on it.
        absolute_gradient: set by the backward pass: [N,2] sum of the absolute values of each pixel's part in the
            gradient of the means (AbsGS).
    """

    width: int
    height: int
    threads: int | None = None
    absolute_gradient: torch.Tensor | None = None


class Compositor(torch.autograd.Function):
    """Draws projected Gaussians, nearest first (those at one depth in the order of their numbers).

    ``Compositor.apply(means, conics, opacities, colours, depths, visible, canvas)``, float32 but for the last two:
    ``means`` [N,2] pixels, ``conics`` [N,3] inverse covariances (xx, xy, yy) in 1 / pixels^2, ``opacities`` [N],
    ``colours`` [N,C], ``depths`` [N] for the order only (no gradient), ``visible`` [N] bool, a `Canvas`. Gives the
    colours [H,W,C] without background and the alphas [H,W].
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Composite."""
        means, conics, opacities, colours, depths, visible, canvas = inputs
        chosen = np.flatnonzero(visible.numpy())
        order = chosen[np.argsort(depths.detach().numpy()[chosen], kind="stable")]
        projected = Projected(_array(means), _array(conics), _array(opacities), _array(colours), order)
        lists = bin_gaussians(projected, canvas.width, canvas.height)
        drawn = draw_tiles(lists, canvas.width, canvas.height, canvas.threads)
        ctx.drawn = (lists, drawn, order, len(depths), canvas)
        return torch.from_numpy(drawn.colours), torch.from_numpy(1 - drawn.remaining)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of means, conics, opacities and colours."""
        lists, drawn, order, count, canvas = ctx.drawn
        wanted = ImageGradient(*map(_array, outputs))
        gradients = torch.from_numpy(tile_gradients(lists, drawn, wanted, order, count, threads=canvas.threads))
        canvas.absolute_gradient = gradients[:, MEAN_ABSOLUTE:COLOUR_GRADIENT].clone()
        return (
            gradients[:, MEAN:CONIC],
            gradients[:, CONIC:OPACITY_GRADIENT],
            gradients[:, OPACITY_GRADIENT],
            gradients[:, COLOUR_GRADIENT:],
            None,
            None,
            None,
        )


def _array(tensor: torch.Tensor) -> Float32s:
    """The values as one block of float32."""
    return np.ascontiguousarray(tensor.detach().numpy(), np.float32)
