"""Masks and depth of a frame from what the renderer read back, and their reduction to the size of the clip."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from manifests.schema import MaskId
from render.scene import FloatArray, Image

_Number = TypeVar("_Number", bound=np.generic)

NEAR_M, FAR_M = 0.05, 20.0
"""Clip planes of the camera: nearer than its own head, farther than any room."""


def mask_ids(marks: Image, rest_marks: Image) -> Image:
    """`MaskId` [h,w] of a frame.

    Args:
        marks: [h,w,4] share of each pixel that is hand, actor, moved object, changed light in the interaction image.
        rest_marks: [h,w] share that is a moved object in the static image.
    """
    packed = np.ascontiguousarray(marks).view(np.uint32)[..., 0]
    ids = np.where(rest_marks > 0, np.uint8(MaskId.MOVED_OBJECT), np.uint8(MaskId.BACKGROUND))
    rows, columns = np.nonzero(packed)
    shares = marks[rows, columns]
    strongest = shares[:, :3].argmax(axis=1) + 1
    # A shadow only where nothing that moves shows, now or at rest.
    nothing_moves = ~shares[:, :3].any(axis=1)
    at_rest = np.where(rest_marks[rows, columns] > 0, MaskId.MOVED_OBJECT, MaskId.SHADOW)
    ids[rows, columns] = np.where(nothing_moves, at_rest, strongest)
    return ids


def camera_depth(window_depth: FloatArray) -> FloatArray:
    """Metres along z [h,w] of a depth buffer's values, 0 where nothing was drawn."""
    # Near the far plane the buffer is close to 1: subtract first, which is exact there.
    depth = np.float32(NEAR_M * FAR_M) / (np.float32(NEAR_M) + (1 - window_depth) * np.float32(FAR_M - NEAR_M))
    depth[window_depth == 1] = 0
    return depth


def reduce_ids(ids: Image, scale: int) -> Image:
    """Reduce mask ids by a whole factor: background only where every part is, else the id with most parts."""
    if scale == 1:
        return ids
    parts = _blocks(ids, scale)
    counts = np.stack([(parts == value).sum(axis=-1) for value in range(1, MaskId.SHADOW + 1)])
    # The first of equal counts wins: hands before the actor before moved objects before shadows.
    return np.where(counts.any(axis=0), counts.argmax(axis=0) + 1, MaskId.BACKGROUND).astype(np.uint8)


def reduce_depth(depth: FloatArray, scale: int) -> FloatArray:
    """Reduce depth by a whole factor to a value that a surface really has: the lower median of each block."""
    if scale == 1:
        return depth
    parts = np.sort(_blocks(depth, scale), axis=-1)
    return np.ascontiguousarray(parts[..., (scale * scale - 1) // 2])


def _blocks(image: npt.NDArray[_Number], scale: int) -> npt.NDArray[_Number]:
    """[h*scale, w*scale] as [h, w, scale*scale]."""
    height, width = image.shape[0] // scale, image.shape[1] // scale
    return image.reshape(height, scale, width, scale).swapaxes(1, 2).reshape(height, width, scale * scale)
