"""Floaters: what a reconstruction puts into empty space, seen along a path (paper Appendix G names the problem).

The photometric loss does not see them: a blob close to a camera of the exploration looks right from there and stands in
the way of everything from elsewhere. The semi-dense points know better: they were triangulated, so that nothing may
stand between a camera and a point but what has points of its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from render.camera import CameraPath
from render.framing import Frames
from render.registration import Mask, differing
from render.rotations import Floats
from render.scene import FloatArray

LEAST_POINTS = 30
"""A frame with fewer points that count is not measured."""
_NEAR_M = 0.05
_CLEAR_M, _CLEAR_SHARE = 0.1, 0.15
"""A surface is clearly in front of a point, or apart from it, by this many metres and by this share of the depth."""


def floater_shares(
    points: Floats,
    cameras: CameraPath,
    depth: FloatArray,
    ignored: Mask,
    pictures: tuple[Frames, Frames],
) -> Floats:
    """Share of the sight lines to semi-dense points in which a floater stands, frame by frame.

    A sight line counts where its pixel is not ignored and no surface that has points of its own hides the point. A
    floater stands in it where the rendered surface is clearly in front of the point, no point lies near that surface,
    and the recording shows something else there. (The last keeps a bare wall, on which there are no points, from being
    taken for a floater before the points of the next room.)

    Args:
        points: [P,3] semi-dense points, world, metres.
        cameras: T poses, intrinsics of the pictures.
        depth: [T,H,W] of the rendered scene along z, metres.
        ignored: [T,H,W] pixels that say nothing: hands, what was never seen, what the lens did not see.
        pictures: the rendered and the recorded frames, uint8 [T,H,W,3] each.

    Returns:
        [T] shares, 0-1; NaN for a frame in which fewer than `LEAST_POINTS` sight lines count.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(points)
    height, width = depth.shape[1:]
    shares = np.full(len(cameras), np.nan)
    for number, (rendered, recorded) in enumerate(zip(*pictures, strict=True)):
        places, far = cameras[number].project(points)
        inside = (far > _NEAR_M) & (places >= 0).all(axis=-1) & (places < [width, height]).all(axis=-1)
        columns, rows = places[inside].astype(np.int64).T
        counted = ~ignored[number, rows, columns]
        columns, rows, far = columns[counted], rows[counted], far[inside][counted]
        near = depth[number, rows, columns].astype(np.float64)
        hidden = near < far - _clear(far)
        surface = cameras[number].unproject(np.stack([columns, rows], axis=-1)[hidden] + 0.5, near[hidden])
        away = np.asarray(tree.query(surface)[0]) if hidden.any() else np.empty(0)
        unsupported = np.zeros(len(far), np.bool_)
        unsupported[hidden] = away > _clear(near[hidden])
        wrong = differing(_like(rendered, recorded, ignored[number]), recorded)[rows, columns]
        counting = int((~hidden | unsupported).sum())
        if counting >= LEAST_POINTS:
            shares[number] = float((unsupported & wrong).sum() / counting)
    return shares


def _clear(distance: Floats) -> Floats:
    result: Floats = np.maximum(_CLEAR_M, _CLEAR_SHARE * distance)
    return result


def _like(rendered: Frames, recorded: Frames, ignored: Mask) -> npt.NDArray[np.uint8]:
    """A rendered frame with the exposure of the recorded one: a gain a colour channel, by least squares."""
    here, there = rendered[~ignored].astype(np.float64), recorded[~ignored].astype(np.float64)
    gain = (here * there).sum(axis=0) / np.maximum((here**2).sum(axis=0), 1.0)
    return np.asarray(np.clip(np.rint(rendered * gain), 0, 255), np.uint8)
