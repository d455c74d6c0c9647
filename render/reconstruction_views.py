"""Posed images that a scene is reconstructed from, and what the points look like in them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.camera import Camera
from render.rotations import Floats
from render.scene import Image

Mask = npt.NDArray[np.bool_]

_DEPTH_CELL = 6
"""Side of the cells, pixels, whose nearest point hides those behind it."""

_DEPTH_SLACK = 0.05
"""How much farther than its cell's nearest a point may be and still be seen, as a share of the depth."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReconstructionView:
    """One posed frame.

    Attributes:
        name: for messages and results, such as the frame's number or timestamp.
        image: uint8 RGB [H,W,3], or the path of a picture file.
        intrinsics: [3,3] pixels, pixel centres at +0.5.
        world_from_camera: [4,4] metres, OpenCV's axes.
        valid: bool [H,W], False where undistortion found no pixel; None for all valid.
        ignored: bool [H,W], True on hands or the operator, which are no part of the scene; None for none.
    """

    name: str
    image: Image | Path
    intrinsics: Floats
    world_from_camera: Floats
    valid: Mask | None = None
    ignored: Mask | None = None

    @property
    def camera(self) -> Camera:
        """Its camera."""
        return Camera(self.intrinsics, self.world_from_camera)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedView:
    """A view whose picture is in memory.

    Attributes:
        name: of the view.
        image: uint8 RGB [H,W,3].
        used: bool [H,W], the pixels that count.
        camera: of the view.
    """

    name: str
    image: Image
    used: Mask
    camera: Camera


def load_view(view: ReconstructionView, width: int, height: int) -> LoadedView:
    """Read and check one view.

    Raises:
        DwmError: the picture is missing, broken or of another size, a mask has another size, the camera is not finite,
            or no pixel is left to use.
    """
    image = _read_picture(view.image) if isinstance(view.image, Path) else view.image
    where = f"view '{view.name}'" + (f" ({view.image})" if isinstance(view.image, Path) else "")
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise DwmError(
            f"{where}: the picture is {image.dtype} {image.shape}, the settings say {width}x{height}; "
            "undistort to that size, or change width and height of the settings"
        )
    used = np.ones((height, width), np.bool_)
    for mask, keep in ((view.valid, True), (view.ignored, False)):
        if mask is not None:
            if mask.shape != used.shape:
                raise DwmError(f"{where}: a mask is {mask.shape}, must be {used.shape}; give it the picture's size")
            used &= mask.astype(np.bool_) == keep
    if not used.any():
        raise DwmError(f"{where}: the masks leave no pixel; leave the frame out")
    numbers = np.concatenate([np.ravel(view.intrinsics), np.ravel(view.world_from_camera)])
    if numbers.shape != (25,) or not np.isfinite(numbers).all():
        raise DwmError(f"{where}: intrinsics or pose are not finite 3x3 and 4x4 matrices; leave the frame out")
    return LoadedView(name=view.name, image=np.ascontiguousarray(image), used=used, camera=view.camera)


def _read_picture(path: Path) -> Image:
    if not path.is_file():
        raise DwmError(f"{path}: no such file; check the path")
    found = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if found is None:
        raise DwmError(f"{path}: not a picture, or damaged; make or copy it again")
    return np.ascontiguousarray(found[..., ::-1]).astype(np.uint8)


def hash_views(views: Sequence[LoadedView], points: Floats) -> str:
    """SHA-256 over everything that a reconstruction is made from."""
    digest = hashlib.sha256()
    for view in views:
        digest.update(view.name.encode())
        for array in (view.image, view.used, view.camera.intrinsics, view.camera.world_from_camera):
            digest.update(str((array.dtype, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(np.ascontiguousarray(points, np.float64).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class SeenPoints:
    """The points that at least one view sees.

    Attributes:
        points: [S,3] world, metres.
        colours: [S,3] mean over the views that see the point, as stored, 0-1.
        median_depth_m: median over all sightings of the depth along z, metres.
    """

    points: Floats
    colours: Floats
    median_depth_m: float


def see_points(points: Floats, views: Sequence[LoadedView]) -> SeenPoints:
    """Keep the points that some view sees in its used pixels and that no nearer point hides; colour them.

    Args:
        points: [P,3] world, metres.
        views: the views to look at.

    Raises:
        DwmError: there are no points, some are not finite, or no view sees at least two.
    """
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise DwmError(f"points {points.shape}: there are none; give semi-dense points [P,3] of the same capture")
    if not np.isfinite(points).all():
        raise DwmError("points: some are not finite; leave them out")
    sums, counts = np.zeros((len(points), 3)), np.zeros(len(points))
    depths: list[Floats] = []
    for view in views:
        which, pixels, depth = _visible(points, view)
        sums[which] += view.image[pixels[:, 1], pixels[:, 0]] / 255.0
        counts[which] += 1
        depths.append(depth)
    is_seen = counts > 0
    if is_seen.sum() < 2:
        raise DwmError(
            f"points: {int(is_seen.sum())} of {len(points)} are seen in the views; points and poses must be of one "
            "capture, in one frame, in metres"
        )
    colours = sums[is_seen] / counts[is_seen, None]
    return SeenPoints(points=points[is_seen], colours=colours, median_depth_m=float(np.median(np.concatenate(depths))))


def _visible(points: Floats, view: LoadedView) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Numbers, pixels (column, row) and depths of the points that a view sees."""
    height, width = view.used.shape
    places, depth = view.camera.project(points)
    inside = (depth > 0.05) & (places >= 0).all(axis=-1) & (places < [width, height]).all(axis=-1)
    which = np.flatnonzero(inside)
    pixels, depth = places[which].astype(np.int64), depth[which]
    cells = pixels // _DEPTH_CELL
    nearest = np.full((-(-height // _DEPTH_CELL), -(-width // _DEPTH_CELL)), np.inf)
    np.minimum.at(nearest, (cells[:, 1], cells[:, 0]), depth)
    keep = depth <= nearest[cells[:, 1], cells[:, 0]] * (1 + _DEPTH_SLACK)
    keep &= view.used[pixels[:, 1], pixels[:, 0]]
    return which[keep], pixels[keep], depth[keep]
