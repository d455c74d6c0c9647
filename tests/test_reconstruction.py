"""Reconstruction on tiny frames that a known scene was drawn into: quality, masks, gains, exact resume, bad input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from manifests.errors import DwmError, UsageError
from render.camera import CameraPath, intrinsics_from_fov, look_at
from render.gaussian_ply import read_ply
from render.gaussian_scene import GaussianScene, render_path, scene_from_points
from render.reconstruction import FitStep, ReconstructionResult, reconstruct
from render.reconstruction_loss import cross_fitted_error, fitted_log_gain, image_loss
from render.reconstruction_settings import (
    RECONSTRUCTION_PROFILES,
    Densification,
    LearningRates,
    ReconstructionSettings,
    get_reconstruction_profile,
)
from render.reconstruction_state import CHECKPOINT_FILE
from render.reconstruction_views import ReconstructionView, load_view, see_points
from tests.helpers_gaussians import brute_force, of_scene

WIDTH, HEIGHT, FRAMES = 48, 32, 12

SETTINGS = ReconstructionSettings(
    width=WIDTH,
    height=HEIGHT,
    steps=150,
    device="cpu",
    threads=1,
    sh_degree=1,
    sh_every=60,
    initial_opacity=0.5,
    exposure_start=40,
    held_out_every=4,
    evaluate_every=50,
    checkpoint_every=60,
    rates=LearningRates(means=1e-3, scales=1e-2, sh_constant=1e-2),
    densification=Densification(start=20, stop=120, every=20, gradient=1e-4, max_gaussians=900),
)


def teacher() -> tuple[GaussianScene, CameraPath]:
    """A painted wall with a painted board before it, and a path past them."""
    random = np.random.default_rng(0)
    across = np.linspace(-1.6, 1.6, 26)
    wall = np.stack([*np.meshgrid(across, across * 0.7), np.full((26, 26), 2.5)], axis=-1).reshape(-1, 3)
    board = np.concatenate([wall[::3, :2] * 0.35, np.full((len(wall[::3]), 1), 1.6)], axis=1)
    places = np.concatenate([wall, board])
    waves = 0.5 + 0.4 * np.sin(places[:, :1] * [3.0, 5.0, 2.0] + places[:, 1:2] * [4.0, 1.0, 6.0])
    waves[len(wall) :] = 1 - waves[len(wall) :]
    scene = scene_from_points(places + 0.004 * random.standard_normal(places.shape), waves, sh_degree=0, opacity=0.9)
    eyes = [[0.5 * np.sin(turn), 0.2 * np.cos(2 * turn), 0.2 * np.cos(turn)] for turn in np.linspace(0, 6, FRAMES)]
    poses = np.stack([look_at(eye, [0, 0, 2.2], up=[0, -1, 0]) for eye in eyes])
    return scene, CameraPath(intrinsics_from_fov(WIDTH, HEIGHT, 70.0), poses)


@pytest.fixture(scope="module")
def capture() -> tuple[list[ReconstructionView], np.ndarray]:
    scene, cameras = teacher()
    frames = render_path(scene, cameras, WIDTH, HEIGHT, threads=1).frames
    views = [
        ReconstructionView(
            name=f"{number:02d}",
            image=frames[number],
            intrinsics=cameras.intrinsics,
            world_from_camera=cameras.world_from_camera[number],
        )
        for number in range(FRAMES)
    ]
    noise = np.random.default_rng(1).standard_normal((len(scene), 3))
    return views, scene.means.numpy()[::2].astype(np.float64) + 0.02 * noise[::2]


Capture = tuple[list[ReconstructionView], np.ndarray]


@pytest.fixture(scope="module")
def whole(capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReconstructionResult]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, reconstruct(*capture, folder, SETTINGS)


def losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def test_held_out_frames_become_like_the_truth(whole: tuple[Path, ReconstructionResult]) -> None:
    folder, result = whole
    assert result.is_complete
    assert result.held_out == ("02", "06", "10")
    evaluations = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    assert [each["step"] for each in evaluations] == [50, 100, 150]
    assert result.evaluation is not None
    assert result.evaluation.psnr_db > max(26.0, evaluations[0]["psnr_db"] + 0.5)
    assert result.evaluation.plain_psnr_db > 25.0
    assert len(result.evaluation.frames) == 3
    assert max(frame.unseen_share for frame in result.evaluation.frames) < 0.3
    assert result.num_gaussians != result.num_points  # the strategy added or removed some
    steps = losses(folder)
    assert [each["step"] for each in steps] == list(range(1, 151))
    assert not {each["view"] for each in steps} & set(result.held_out)
    assert steps[-1]["loss"] < 0.6 * steps[0]["loss"]
    assert json.loads((folder / "result.json").read_text())["num_gaussians"] == result.num_gaussians


def test_the_trained_scene_is_the_same_through_the_definition(
    whole: tuple[Path, ReconstructionResult], capture: Capture
) -> None:
    scene = read_ply(whole[0] / "scene.ply")
    for view in capture[0][::5]:
        viewmat, lens = (
            torch.tensor(matrix, dtype=torch.float32) for matrix in (view.camera.camera_from_world, view.intrinsics)
        )
        image, alphas, _ = scene.rasterize(viewmat[None], lens[None], WIDTH, HEIGHT)
        expected, expected_alphas, _ = brute_force(of_scene(scene), viewmat, lens, (WIDTH, HEIGHT), sh_degree=1)
        torch.testing.assert_close(image[0].double(), expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(alphas[0, ..., 0].double(), expected_alphas, rtol=0, atol=1e-4)


def test_a_stopped_reconstruction_continues_to_the_same_bytes(
    whole: tuple[Path, ReconstructionResult], capture: Capture, tmp_path: Path
) -> None:
    done: list[FitStep] = []
    first = reconstruct(*capture, tmp_path, SETTINGS, should_stop=lambda: len(done) >= 70, on_step=done.append)
    assert not first.is_complete
    assert not (tmp_path / "scene.ply").exists()
    # A process killed later than its checkpoint has journalled more than it can continue from.
    with (tmp_path / "steps.jsonl").open("a") as journal:
        journal.write('{"step": 9999, "loss": 1.0, "view": "00", "num_gaussians": 1}\n{"ste')
    second = reconstruct(*capture, tmp_path, SETTINGS, resume=True)
    assert second == whole[1]
    for name in ("scene.ply", "steps.jsonl", "evaluations.jsonl", "result.json", CHECKPOINT_FILE):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes(), name


def test_another_seed_gives_another_scene(capture: Capture, tmp_path: Path) -> None:
    short = SETTINGS.model_copy(update={"steps": 3})
    for seed in (0, 1):
        reconstruct(*capture, tmp_path / str(seed), short.model_copy(update={"seed": seed}))
    assert (tmp_path / "0/scene.ply").read_bytes() != (tmp_path / "1/scene.ply").read_bytes()


def test_other_inputs_settings_and_a_taken_folder_are_refused(
    whole: tuple[Path, ReconstructionResult], capture: Capture, tmp_path: Path
) -> None:
    views, points = capture
    short = SETTINGS.model_copy(update={"steps": 2})
    reconstruct(views, points, tmp_path, short)
    with pytest.raises(DwmError, match="holds a reconstruction already"):
        reconstruct(views, points, tmp_path, short)
    with pytest.raises(DwmError, match="of other images, points or settings"):
        reconstruct(views, points + 0.01, tmp_path, short, resume=True)
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"x" * 100)
    with pytest.raises(DwmError, match="damaged"):
        reconstruct(views, points, tmp_path, short, resume=True)


def test_masked_pixels_have_no_say(capture: Capture, tmp_path: Path) -> None:
    views, points = capture
    hand = np.zeros((HEIGHT, WIDTH), np.bool_)
    hand[20:, 10:30] = True
    corner = np.ones((HEIGHT, WIDTH), np.bool_)
    corner[:6, :8] = False
    short = SETTINGS.model_copy(update={"steps": 25})
    scenes = []
    for colour in (0, 255):
        painted = []
        for view in views:
            image = np.array(view.image)
            image[hand | ~corner] = colour
            painted.append(replace(view, image=image, valid=corner, ignored=hand))
        reconstruct(painted, points, tmp_path / str(colour), short)
        scenes.append((tmp_path / str(colour) / "scene.ply").read_bytes())
    assert scenes[0] == scenes[1]


def test_gains_follow_the_exposure_and_the_scene_does_not(capture: Capture, tmp_path: Path) -> None:
    views, points = capture
    factors = [1.0 if number % 2 else 0.7 for number in range(FRAMES)]
    exposed = [
        replace(view, image=(np.asarray(view.image) * factor).round().astype(np.uint8))
        for view, factor in zip(views, factors, strict=True)
    ]
    result = reconstruct(exposed, points, tmp_path / "gains", SETTINGS)
    fixed = reconstruct(exposed, points, tmp_path / "none", SETTINGS.model_copy(update={"fit_exposure": False}))
    bright = np.mean([result.log_gains[f"{number:02d}"] for number in range(1, FRAMES, 2)])
    dark = np.mean([result.log_gains[f"{number:02d}"] for number in range(0, FRAMES, 4)])
    assert abs((bright - dark) - np.log(1 / 0.7)) < 0.1
    assert not any(any(gain) for gain in fixed.log_gains.values())
    assert result.evaluation is not None
    assert fixed.evaluation is not None
    assert result.evaluation.psnr_db > fixed.evaluation.psnr_db + 3
    assert fixed.evaluation.psnr_db == fixed.evaluation.plain_psnr_db


def test_pictures_are_read_from_files(capture: Capture, tmp_path: Path) -> None:
    view = capture[0][0]
    cv2.imwrite(str(tmp_path / "0.png"), np.asarray(view.image)[..., ::-1])
    loaded = load_view(replace(view, image=tmp_path / "0.png"), WIDTH, HEIGHT)
    assert np.array_equal(loaded.image, view.image)
    (tmp_path / "1.png").write_bytes(b"no picture")
    for name, message in (("1.png", "not a picture"), ("2.png", "no such file")):
        with pytest.raises(DwmError, match=message):
            load_view(replace(view, image=tmp_path / name), WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((20, 20, 3), np.uint8)}, "the settings say 48x32"),
        ({"valid": np.zeros((HEIGHT, WIDTH), np.bool_)}, "leave no pixel"),
        ({"ignored": np.zeros((3, 3), np.bool_)}, r"a mask is \(3, 3\)"),
        ({"world_from_camera": np.full((4, 4), np.nan)}, "not finite"),
    ],
)
def test_views_that_cannot_be_used_are_named(capture: Capture, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DwmError, match=message) as caught:
        load_view(replace(capture[0][3], **change), WIDTH, HEIGHT)
    assert "'03'" in str(caught.value)


def test_too_few_views_double_names_and_foreign_points_are_refused(capture: Capture, tmp_path: Path) -> None:
    views, points = capture
    cases: list[tuple[Sequence[ReconstructionView], np.ndarray, str]] = [
        (views[:1], points, "at least 2"),
        ([views[0], *views], points, "one name"),
        (views, np.zeros((0, 3)), "there are none"),
        (views, points + np.array([0, 0, -50]), "0 of .* are seen"),
        (views, points * np.nan, "not finite"),
    ]
    for chosen, cloud, message in cases:
        with pytest.raises(DwmError, match=message):
            reconstruct(chosen, cloud, tmp_path, SETTINGS)
    assert not (tmp_path / "steps.jsonl").exists()


def test_mcmc_is_refused_on_the_cpu_with_the_reason(capture: Capture, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"densification": Densification(strategy="mcmc")})
    with pytest.raises(UsageError, match="CUDA kernels only"):
        reconstruct(*capture, tmp_path, settings)


def test_profiles_have_the_sizes_of_the_paper_and_of_a_small_machine() -> None:
    paper, mini = (get_reconstruction_profile(name) for name in RECONSTRUCTION_PROFILES)
    assert (paper.width, paper.height, paper.steps, paper.device) == (1024, 1024, 30_000, "cuda")
    assert (mini.width, mini.height, mini.device) == (180, 120, "cpu")
    with pytest.raises(UsageError, match="choose one of paper, aria_mini"):
        get_reconstruction_profile("big")


def test_hidden_points_take_no_colour_from_what_hides_them(capture: Capture) -> None:
    view = load_view(capture[0][0], WIDTH, HEIGHT)
    pixel = np.array([24.5, 16.5])
    near, far = (view.camera.unproject(pixel, depth) for depth in (1.0, 2.5))
    seen = see_points(np.stack([near, far, view.camera.unproject([5.5, 5.5], 2.0)]), [view])
    np.testing.assert_allclose(seen.points, np.stack([near, view.camera.unproject([5.5, 5.5], 2.0)]))
    np.testing.assert_allclose(seen.colours[0], view.image[16, 24] / 255)


def test_the_loss_has_the_gradient_of_its_values() -> None:
    random = torch.Generator().manual_seed(0)
    image, target = (torch.rand((13, 17, 3), generator=random) for _ in range(2))
    used = (torch.rand((13, 17), generator=random) > 0.3).float()
    image.requires_grad_()
    loss = image_loss(image, target, used, 0.6)
    (gradient,) = torch.autograd.grad(loss, image)
    assert not gradient[used == 0].any()
    direction = torch.randn(image.shape, generator=random)
    step = 2e-3
    ends = [float(image_loss(image.detach() + sign * step * direction, target, used, 0.6)) for sign in (1, -1)]
    assert abs((ends[0] - ends[1]) / (2 * step) - float((gradient * direction).sum())) < 2e-3 * float(gradient.norm())
    assert float(image_loss(target, target, used, 0.2)) < 1e-6


def test_gains_are_fitted_without_the_pixels_that_they_are_measured_on() -> None:
    random = torch.Generator().manual_seed(1)
    image = torch.rand((10, 12, 3), generator=random) * 0.5
    used = torch.ones(10, 12)
    gain = torch.tensor([1.2, 0.8, 1.5])
    torch.testing.assert_close(fitted_log_gain(image, image * gain, used, 0.0), gain.log(), atol=1e-4, rtol=0)
    assert cross_fitted_error(image, image * gain, used) < 1e-6
    one_sided = image.clone()
    one_sided[:, 6:] *= 2  # a gain of one half only is no exposure
    assert cross_fitted_error(image, one_sided, used) > 1.0
