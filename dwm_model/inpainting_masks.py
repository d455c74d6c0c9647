"""What is known of a video when an inpainting network is trained: boxes, tubes, first frames, or nothing.

Masks are drawn on latent cells. The mix is that of public inpainting models in kind (VideoX-Fun: first frames, boxes,
everything); the all-known mask is left out on purpose.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class MaskKind(StrEnum):
    """How the unknown part is shaped."""

    BOX = "box"
    """One box in all frames."""
    TUBE = "tube"
    """One box that moves."""
    AROUND_BOX = "around_box"
    """Everything but one box."""
    FUTURE = "future"
    """All frames after the first ones."""
    EVERYTHING = "everything"


MASK_SHARES: dict[MaskKind, float] = {
    MaskKind.BOX: 0.25,
    MaskKind.TUBE: 0.25,
    MaskKind.AROUND_BOX: 0.1,
    MaskKind.FUTURE: 0.2,
    MaskKind.EVERYTHING: 0.2,
}
"""How often each kind is drawn."""


def draw_known(frames: int, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Draw where a video is known: 1 known, 0 not, float32 [F, H, W]; never all of it.

    Args:
        frames: latent frames.
        height: latent rows.
        width: latent columns.
        generator: the same one draws the same.
    """
    import torch

    draw = float(torch.rand(1, generator=generator))
    kind = list(MASK_SHARES)[-1]
    for each, share in MASK_SHARES.items():
        if draw < share:
            kind = each
            break
        draw -= share
    if kind is MaskKind.EVERYTHING:
        return torch.zeros(frames, height, width)
    if kind is MaskKind.FUTURE and frames > 1:
        known = torch.zeros(frames, height, width)
        known[: 1 + _whole(frames - 1, generator)] = 1.0
        return known
    boxes = _boxes(frames, height, width, generator, moves=kind is MaskKind.TUBE)
    known = boxes if kind is MaskKind.AROUND_BOX else 1.0 - boxes
    return torch.zeros_like(known) if bool(known.all()) else known  # a box may fill a very small video


def _boxes(frames: int, height: int, width: int, generator: torch.Generator, *, moves: bool) -> torch.Tensor:
    """1 inside of a box, [F, H, W]: a quarter to three quarters of each side, still or on a straight way."""
    import torch

    rows, columns = (max(1, side // 4) + _whole(max(1, side // 2 + 1), generator) for side in (height, width))
    starts = [(_whole(height - rows + 1, generator), _whole(width - columns + 1, generator)) for _ in range(2)]
    inside = torch.zeros(frames, height, width)
    for frame in range(frames):
        share = frame / max(1, frames - 1) if moves else 0.0
        top, left = (round(first + share * (last - first)) for first, last in zip(*starts, strict=True))
        inside[frame, top : top + rows, left : left + columns] = 1.0
    return inside


def _whole(count: int, generator: torch.Generator) -> int:
    """A whole number below ``count``."""
    import torch

    return int(torch.randint(0, count, (1,), generator=generator))
