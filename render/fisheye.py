"""The lens of Aria's colour camera, and straight pictures out of bent ones.

Two conventions meet here. A `FisheyeCamera` counts as projectaria-tools does: the centre of the first pixel is at 0.
Everything else in this project puts it at 0.5; `PinholeView` is in that convention, in which Gaussians are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.rotations import Floats

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

STORED_FROM_UPRIGHT = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""Aria's colour sensor is mounted on its side: `numpy.rot90(image, k=3)` shows the stored image upright. This is the
rotation of the camera's axes that belongs to it: a direction in the upright camera's frame, in the stored one's."""

NUM_PARAMS = 15
"""Focal length, principal point (2), radial (6), tangential (2) and thin-prism (4) coefficients."""
_NEWTON_STEPS = 20
_CONVERGED = 1e-12
_MAX_OVERSAMPLING = 16


@dataclass(frozen=True, eq=False)
class FisheyeCamera:
    """The model FISHEYE624 of projectaria-tools (`FisheyeRadTanThinPrism` in its files).

    Attributes:
        params: [15] focal length, principal point x, y, six radial, two tangential, four thin-prism coefficients.
        width: width of the stored image, pixels.
        height: height of the stored image, pixels.
        valid_radius: pixels from the principal point within which the lens gives a picture; None for all of it.

    Raises:
        DwmError: another number of parameters, or values that are not finite.
    """

    params: Floats
    width: int
    height: int
    valid_radius: float | None = None

    def __post_init__(self) -> None:
        if self.params.shape != (NUM_PARAMS,) or not np.isfinite(self.params).all() or self.params[0] <= 0:
            raise DwmError(
                f"camera calibration: {self.params.size} parameters ({np.array2string(self.params, precision=3)}); "
                f"the model FISHEYE624 has {NUM_PARAMS} finite ones with a focal length above 0"
            )

    @property
    def focal_px(self) -> float:
        """Focal length at the centre, pixels."""
        return float(self.params[0])

    def scaled(self, width: int, height: int) -> FisheyeCamera:
        """The same camera with another number of pixels; the image keeps its edges."""
        factor = width / self.width
        params = self.params.copy()
        params[0] *= factor
        params[1:3] = (params[1:3] + 0.5) * factor - 0.5
        radius = None if self.valid_radius is None else self.valid_radius * factor
        return replace(self, params=params, width=width, height=height, valid_radius=radius)

    def project(self, rays: npt.ArrayLike) -> tuple[Floats, Mask]:
        """Pixels [...,2] (first centre at 0) of directions [...,3] in the stored camera's frame, and which are seen."""
        directions = np.asarray(rays, dtype=np.float64)
        in_front = directions[..., 2] > 0
        pixels = self.bend(np.where(in_front[..., None], directions, (0.0, 0.0, 1.0)))
        return pixels, in_front & self.is_visible(pixels)

    def unproject(self, pixels: npt.ArrayLike) -> Floats:
        """Directions [...,3] with z = 1 in the stored camera's frame of pixels [...,2] (first centre at 0)."""
        goal = (np.asarray(pixels, dtype=np.float64) - self.params[1:3]) / self.params[0]
        bent = goal.copy()
        for _ in range(_NEWTON_STEPS):
            value, jacobian = self._distort(bent)
            step = np.linalg.solve(jacobian, (goal - value)[..., None])[..., 0]
            bent += step
            if np.abs(step).max(initial=0.0) < _CONVERGED:
                break
        radius = np.linalg.norm(bent, axis=-1)
        angle = self._undo_radial(radius)
        scale = np.where(radius > 1e-9, np.tan(angle) / np.maximum(radius, 1e-9), 1.0)
        return np.concatenate([bent * scale[..., None], np.ones_like(radius)[..., None]], axis=-1)

    def is_visible(self, pixels: Floats) -> Mask:
        """Whether pixels [...,2] lie in the image and within the lens' circle."""
        x, y = pixels[..., 0], pixels[..., 1]
        inside = (x >= 0) & (y >= 0) & (x <= self.width - 1) & (y <= self.height - 1)
        if self.valid_radius is None:
            return np.asarray(inside)
        away = np.linalg.norm(pixels - self.params[1:3], axis=-1)
        return np.asarray(inside & (away <= self.valid_radius))

    def bend(self, rays: Floats) -> Floats:
        """Pixels [...,2] (first centre at 0) of directions [...,3] whose z is above 0, seen or not."""
        slopes = rays[..., :2] / rays[..., 2:]
        radius = np.linalg.norm(slopes, axis=-1)
        angle = np.arctan(radius)
        scale = np.where(radius > 1e-9, self._radial(angle)[0] / np.maximum(radius, 1e-9), 1.0)
        result: Floats = self.params[0] * self._distort(slopes * scale[..., None])[0] + self.params[1:3]
        return result

    def _radial(self, angle: Floats) -> tuple[Floats, Floats]:
        """Bent angles and their derivatives: angle (1 + k0 angle^2 + ... + k5 angle^12)."""
        factors = np.concatenate([[1.0], self.params[3:9]])
        square = angle**2
        slopes = factors * np.arange(1, 2 * len(factors), 2)
        value: Floats = np.asarray(angle * np.polynomial.polynomial.polyval(square, factors), np.float64)
        slope: Floats = np.asarray(np.polynomial.polynomial.polyval(square, slopes), np.float64)
        return value, slope

    def _undo_radial(self, radius: Floats) -> Floats:
        angle: Floats = np.minimum(radius, 1.4)
        for _ in range(_NEWTON_STEPS):
            value, slope = self._radial(angle)
            step = (radius - value) / np.where(np.abs(slope) > 1e-6, slope, 1e-6)
            angle = np.asarray(np.clip(angle + step, 0.0, 1.5), np.float64)
            if np.abs(step).max(initial=0.0) < _CONVERGED:
                break
        return angle

    def _distort(self, bent: Floats) -> tuple[Floats, Floats]:
        """Tangential and thin-prism terms on top of the radial ones: values [...,2] and their Jacobians [...,2,2]."""
        tangential, prism = self.params[9:11], self.params[11:15].reshape(2, 2)
        square = (bent**2).sum(axis=-1)
        along = 2.0 * (bent @ tangential)
        powers = np.stack([square, square**2], axis=-1)
        value = bent + along[..., None] * bent + square[..., None] * tangential + powers @ prism.T
        slope = np.stack([np.ones_like(square), 2 * square], axis=-1) @ prism.T
        jacobian = (1.0 + along)[..., None, None] * np.eye(2)
        jacobian = jacobian + 2.0 * bent[..., :, None] * tangential
        jacobian = jacobian + 2.0 * (tangential + slope)[..., :, None] * bent[..., None, :]
        return value, jacobian


@dataclass(frozen=True, eq=False)
class PinholeView:
    """A straight, upright picture of what a fisheye camera saw.

    Attributes:
        fisheye: the lens.
        intrinsics: [3,3] of the picture, pixel centres at +0.5.
        width: width of the picture, pixels.
        height: height of the picture, pixels.
        upright: the picture is turned as `STORED_FROM_UPRIGHT` says; False leaves it as it is stored.
    """

    fisheye: FisheyeCamera
    intrinsics: Floats
    width: int
    height: int
    upright: bool = True

    @property
    def stored_from_view(self) -> Floats:
        """Rotation [3,3] of directions in the picture's camera frame into the stored image's."""
        return STORED_FROM_UPRIGHT if self.upright else np.eye(3)

    @property
    def oversampling(self) -> int:
        """Samples across a pixel: as many as the stored image has pixels there, so that nothing flickers."""
        factor = int(np.ceil(self.fisheye.focal_px / float(self.intrinsics[0, 0])))
        return min(max(1, factor), _MAX_OVERSAMPLING)

    @cached_property
    def _nodes(self) -> Floats:
        """Stored pixels [H+2,W+2,2] of the pixel centres, with one more around the picture."""
        columns, rows = np.arange(-1, self.width + 1) + 0.5, np.arange(-1, self.height + 1) + 0.5
        grid = np.stack([*np.meshgrid(columns, rows), np.ones((len(rows), len(columns)))], axis=-1)
        return self.fisheye.bend(grid @ np.linalg.inv(self.intrinsics).T @ self.stored_from_view.T)

    @cached_property
    def _maps(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Where each sample of the picture lies in the stored image: x and y.

        The lens is smooth, so that what lies between pixel centres is interpolated.
        """
        samples = self.oversampling
        nodes = self._nodes.astype(np.float32)
        size = (nodes.shape[1] * samples, nodes.shape[0] * samples)
        dense = np.asarray(cv2.resize(nodes, size, interpolation=cv2.INTER_LINEAR))
        inner = dense[samples:-samples, samples:-samples]
        return np.ascontiguousarray(inner[..., 0]), np.ascontiguousarray(inner[..., 1])

    @cached_property
    def valid(self) -> Mask:
        """[H,W] which pixels the lens saw, their neighbours too."""
        seen = self.fisheye.is_visible(self._nodes).astype(np.uint8)
        return np.asarray(cv2.erode(seen, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0)

    def undistort(self, stored: Image) -> Image:
        """The picture [H,W,3] of a stored image [h,w,3]; black where the lens saw nothing.

        Raises:
            DwmError: the image has another size than the calibration.
        """
        if stored.shape[:2] != (self.fisheye.height, self.fisheye.width):
            raise DwmError(
                f"an image of {stored.shape[1]}x{stored.shape[0]} pixels, the calibration is for "
                f"{self.fisheye.width}x{self.fisheye.height}; use the calibration of this recording"
            )
        x, y = self._maps
        large = cv2.remap(stored, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if self.oversampling > 1:
            large = cv2.resize(large, (self.width, self.height), interpolation=cv2.INTER_AREA)
        picture = np.asarray(large, np.uint8)
        picture[~self.valid] = 0
        return picture
