"""How far a picture is from a frame: the loss, per-frame gains, PSNR. Only used pixels count."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it

PSNR_CAP_DB = 100.0
"""Largest PSNR that is reported, as in the benchmark's metrics."""

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def image_loss(image: torch.Tensor, target: torch.Tensor, used: torch.Tensor, structure_weight: float) -> torch.Tensor:
    """(1 - w) L1 + w (1 - SSIM), as 3D Gaussian Splatting is trained, over the used pixels.

    Unused pixels are black in both pictures, so that they do not disturb the windows beside them.

    Args:
        image: [H,W,3] rendered colours.
        target: [H,W,3] the frame, 0-1.
        used: [H,W] 1.0 where the pixel counts, else 0.0.
        structure_weight: w.
    """
    weight = used[..., None]
    seen, wanted = image * weight, target * weight
    count = used.sum() * 3
    absolute = (seen - wanted).abs().sum() / count
    if structure_weight == 0:
        return absolute
    structure = (_ssim(seen, wanted) * weight).sum() / count
    return (1 - structure_weight) * absolute + structure_weight * (1 - structure)


def _ssim(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Structural similarity [H,W,3] of two pictures [H,W,3]; beyond the border is black."""
    with torch.no_grad():
        mean_y, square_y = _blur(torch.cat([target, target * target], dim=-1)).chunk(2, dim=-1)
    mean_x, square_x, product = _blur(torch.cat([image, image * image, image * target], dim=-1)).chunk(3, dim=-1)
    variances = square_x - mean_x * mean_x + square_y - mean_y * mean_y
    covariance = product - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    result: torch.Tensor = likeness / ((mean_x * mean_x + mean_y * mean_y + _C1) * (variances + _C2))
    return result


def _blur(image: torch.Tensor) -> torch.Tensor:
    """Means [H,W,C] over the window around each pixel."""
    if not image.is_cuda:
        result: torch.Tensor = _CpuBlur.apply(image)  # type: ignore[no-untyped-call]
        return result
    kernel = _kernel(str(image.device))
    half = _WINDOW // 2
    rows = F.conv2d(image.permute(2, 0, 1)[:, None], kernel[None, None, None, :], padding=(0, half))
    return F.conv2d(rows, kernel[None, None, :, None], padding=(half, 0))[:, 0].permute(1, 2, 0)


class _CpuBlur(torch.autograd.Function):
    """OpenCV's filter: torch's convolutions of single channels take ten times as long on the CPU."""

    @staticmethod
    def forward(_: Any, image: torch.Tensor) -> torch.Tensor:
        return _filtered(image)

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _filtered(gradient)  # the window is symmetric and the border black: the filter is its own adjoint


def _filtered(image: torch.Tensor) -> torch.Tensor:
    kernel = _kernel("cpu").numpy()
    pixels = np.ascontiguousarray(image.detach().numpy())
    blurred = cv2.sepFilter2D(pixels, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    return torch.from_numpy(blurred.reshape(pixels.shape))


@cache
def _kernel(device: str) -> torch.Tensor:
    """The window's weights [11] along one axis."""
    offsets = torch.arange(_WINDOW, dtype=torch.float32) - _WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    return (weights / weights.sum()).to(device)


def fitted_log_gain(image: torch.Tensor, target: torch.Tensor, used: torch.Tensor, ridge: float) -> torch.Tensor:
    """Logarithms [3] of the gains that bring a picture nearest to a frame, by least squares drawn to 1.

    Args:
        image: [H,W,3] rendered colours.
        target: [H,W,3] the frame, 0-1.
        used: [H,W] 1.0 where the pixel counts.
        ridge: weight of the pull to 1, as a share of the picture's energy.
    """
    seen, wanted = image.detach() * used[..., None], target * used[..., None]
    energy = (seen * seen).sum(dim=(0, 1)) + 1e-6
    agreement = (seen * wanted).sum(dim=(0, 1)).clamp(min=0)
    return torch.log((agreement + ridge * energy + 1e-6) / (energy * (1 + ridge))).clamp(min=-2.0, max=2.0)


def squared_error(image: torch.Tensor, target: torch.Tensor, used: torch.Tensor) -> float:
    """Sum of the squared differences over the used pixels, with the picture cut to 0-1."""
    return float((((image.clamp(0, 1) - target) * used[..., None]) ** 2).double().sum())


def cross_fitted_error(image: torch.Tensor, target: torch.Tensor, used: torch.Tensor) -> float:
    """`squared_error` with gains that no measured pixel has had a say in: each half has the other half's gain.

    The halves are left and right of the middle of the frame.
    """
    left = torch.zeros_like(used)
    left[:, : used.shape[1] // 2] = 1.0
    error = 0.0
    for half in (left, 1 - left):
        other = used * (1 - half)
        gain = fitted_log_gain(image, target, other if other.any() else used, 0.0).exp()
        error += squared_error(image * gain, target, used * half)
    return error


def decibel(error: float, count: float) -> float:
    """PSNR in dB from a sum of squared differences of 0-1 values over ``count`` values."""
    return PSNR_CAP_DB if error <= 0 else min(PSNR_CAP_DB, 10 * math.log10(count / error))
