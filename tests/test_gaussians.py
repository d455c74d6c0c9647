"""The renderer of 3D Gaussians on the CPU: agreement with the definition, gsplat's conventions, bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gsplat import DefaultStrategy

from manifests.errors import DwmError, UsageError
from render import gaussian_cuda
from render.gaussians import RasterizeMode, RenderMode, rasterize
from tests.helpers_gaussians import brute_force, camera, random_gaussians

WIDTH, HEIGHT = 45, 37
"""Neither is a whole number of tiles."""


def render(gaussians: dict[str, torch.Tensor], **options: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    viewmat, lens = camera(WIDTH, HEIGHT)
    return rasterize(**gaussians, viewmats=viewmat[None], Ks=lens[None], width=WIDTH, height=HEIGHT, **options)


def gradients(gaussians: dict[str, torch.Tensor], loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names = list(gaussians)
    return dict(zip(names, torch.autograd.grad(loss, [gaussians[name] for name in names]), strict=True))


def pixel_weights(channels: int) -> torch.Tensor:
    return torch.randn((HEIGHT, WIDTH, channels), generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("bands", [None, 9])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_image_and_all_gradients_agree_with_the_definition(bands: int | None, mode: RasterizeMode) -> None:
    gaussians = random_gaussians(1, 700, bands=bands)
    degree = None if bands is None else 2
    image, alphas, _ = render(gaussians, sh_degree=degree, render_mode="RGB+D", rasterize_mode=mode)
    viewmat, lens = camera(WIDTH, HEIGHT)
    true, true_alphas, true_depth = brute_force(
        gaussians, viewmat, lens, (WIDTH, HEIGHT), sh_degree=degree, is_antialiased=mode == "antialiased"
    )
    expected = torch.cat([true, true_depth[..., None]], dim=-1)
    assert float((alphas > 0.9995).float().mean()) > 0.05  # pixels that are finished early
    torch.testing.assert_close(image[0].double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(alphas[0, ..., 0].double(), true_alphas, rtol=0, atol=1e-5)
    weights = pixel_weights(5)
    found = gradients(gaussians, (image[0] * weights[..., :4]).sum() + (alphas[0] * weights[..., 4:]).sum())
    wanted = gradients(gaussians, (expected * weights[..., :4]).sum() + (true_alphas * weights[..., 4]).sum())
    for name, gradient in wanted.items():
        assert gradient.abs().max() > 0
        scale = float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) < 1e-5 * scale, name


def test_the_number_of_threads_changes_no_bit() -> None:
    results = []
    for threads in (1, 2):
        gaussians = random_gaussians(2, 400)
        image, alphas, _ = render(gaussians, threads=threads)
        results.append([image, alphas, *gradients(gaussians, (image.square().sum() + alphas.sum())).values()])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.slow
def test_what_was_just_compiled_gives_the_bits_of_what_is_cached_and_leaves_torchs_threads(tmp_path: Path) -> None:
    code = (
        "import hashlib, torch; torch.set_num_threads(1); from tests.test_gaussians import *\n"
        "gaussians = random_gaussians(2, 400); image, alphas, _ = render(gaussians, threads=2)\n"
        "found = [image, alphas, *gradients(gaussians, image.square().sum() + alphas.sum()).values()]\n"
        "print(hashlib.sha1(b''.join(one.detach().numpy().tobytes() for one in found)).hexdigest())\n"
        "print(torch.get_num_threads())"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=Path(__file__).resolve().parents[1],
            check=True, capture_output=True, text=True,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert list(tmp_path.rglob("*.nbi"))
    assert runs[0] == runs[1]
    assert runs[0][1] == "1"


def test_background_shows_where_nothing_covers() -> None:
    gaussians = random_gaussians(3, 20)
    background = torch.tensor([[0.2, 0.5, 0.9]])
    image, alphas, _ = render(gaussians)
    on_colour, _, _ = render(gaussians, backgrounds=background)
    torch.testing.assert_close(on_colour, image + (1 - alphas) * background[0])
    with_depth, _, _ = render(gaussians, backgrounds=background, render_mode="RGB+D")
    plain, _, _ = render(gaussians, render_mode="D")
    torch.testing.assert_close(with_depth[..., 3:], plain)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("D", 1), ("ED", 1), ("RGB+D", 4), ("RGB+ED", 4)])
def test_render_modes_have_gsplats_channels(mode: RenderMode, channels: int) -> None:
    image, alphas, meta = render(random_gaussians(4, 30), render_mode=mode)
    assert image.shape == (1, HEIGHT, WIDTH, channels)
    assert alphas.shape == (1, HEIGHT, WIDTH, 1)
    assert meta["means2d"].shape == meta["radii"].shape == (1, 30, 2)
    if mode == "ED":
        depth = image.detach()[alphas > 0.5]
        assert 0.5 < float(depth.min()) <= float(depth.max()) < 6.0


def test_several_cameras_are_as_one_after_the_other() -> None:
    gaussians = random_gaussians(5, 60, bands=4)
    viewmat, lens = camera(WIDTH, HEIGHT)
    moved = viewmat.clone()
    moved[:3, 3] += 0.4
    both, _, _ = rasterize(
        **gaussians, viewmats=torch.stack([viewmat, moved]), Ks=lens.expand(2, 3, 3), width=WIDTH, height=HEIGHT,
        sh_degree=1,
    )  # fmt: skip
    second, _, _ = rasterize(**gaussians, viewmats=moved[None], Ks=lens[None], width=WIDTH, height=HEIGHT, sh_degree=1)
    assert torch.equal(both[1], second[0])
    assert not torch.equal(both[0], both[1])


def test_gaussians_behind_or_on_the_cameras_plane_have_zero_gradients_not_nan() -> None:
    gaussians = random_gaussians(6, 8)
    viewmat, _ = camera(WIDTH, HEIGHT)
    eye = -(viewmat[:3, :3].T @ viewmat[:3, 3])
    with torch.no_grad():
        gaussians["means"][0] = eye
        gaussians["means"][1] = eye - viewmat[2, :3]
    image, _, meta = render(gaussians)
    assert not meta["radii"][0, :2].any()
    found = gradients(gaussians, image.square().sum())
    for gradient in found.values():
        assert torch.isfinite(gradient).all()
        assert not gradient[:2].any()


def test_nothing_to_draw_gives_empty_pictures() -> None:
    gaussians = {name: tensor[:0] for name, tensor in random_gaussians(7, 3).items()}
    image, alphas, meta = render(gaussians)
    assert not image.any()
    assert not alphas.any()
    assert meta["radii"].shape == (1, 0, 2)


def test_gsplats_default_strategy_grows_a_scene_with_what_is_returned() -> None:
    gaussians = random_gaussians(8, 50)
    parameters: dict[str, torch.nn.Parameter] = {
        "means": torch.nn.Parameter(gaussians["means"].detach()),
        "quats": torch.nn.Parameter(gaussians["quats"].detach()),
        "scales": torch.nn.Parameter(gaussians["scales"].detach().log()),
        "opacities": torch.nn.Parameter(gaussians["opacities"].detach().logit()),
        "colors": torch.nn.Parameter(gaussians["colors"].detach()),
    }
    optimizers = {name: torch.optim.Adam([each], 1e-3) for name, each in parameters.items()}
    strategy = DefaultStrategy(refine_start_iter=0, refine_every=2, grow_grad2d=1e-6, absgrad=True)
    strategy.check_sanity(parameters, optimizers)
    state = strategy.initialize_state()
    for step in range(1, 3):
        image, _, meta = render(
            {
                **parameters,
                "scales": parameters["scales"].exp(),
                "opacities": parameters["opacities"].sigmoid(),
            },
            absgrad=True,
        )
        strategy.step_pre_backward(parameters, optimizers, state, step, meta)
        image.mean().backward()
        assert (meta["means2d"].absgrad >= meta["means2d"].grad.abs() - 1e-7).all()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        strategy.step_post_backward(parameters, optimizers, state, step, meta)
    assert len(parameters["means"]) > 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quats": torch.zeros(30, 3)}, "quats is torch.float32"),
        ({"means": torch.zeros(30, 3, dtype=torch.float64)}, "means is torch.float64"),
        ({"colors": torch.zeros(29, 3)}, "colors"),
    ],
)
def test_other_shapes_and_types_are_named(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        render({**random_gaussians(4, 30), **change})


def test_wrong_modes_degrees_and_threads_are_named() -> None:
    with pytest.raises(UsageError, match="'depth'"):
        render(random_gaussians(4, 3), render_mode="depth")
    with pytest.raises(UsageError, match="9 or more"):
        render(random_gaussians(4, 3, bands=4), sh_degree=2)
    with pytest.raises(UsageError, match="threads 0"):
        render(random_gaussians(4, 3), threads=0)


def test_missing_cuda_and_kernels_are_errors_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gaussian_cuda.require_cuda_kernels.cache_clear()
    with pytest.raises(DwmError, match="no CUDA device"):
        gaussian_cuda.require_cuda_kernels()
    with pytest.raises(DwmError, match="finds no CUDA toolkit"):
        gaussian_cuda.load_kernels(lambda: None)

    def broken() -> None:
        raise RuntimeError("Error building extension 'gsplat_cuda': [1/2] nvcc\nmore")

    with pytest.raises(DwmError, match=r"Error building extension 'gsplat_cuda': \[1/2\] nvcc\)"):
        gaussian_cuda.load_kernels(broken)


def test_a_long_compilation_is_not_silent(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_cuda, "HEARTBEAT_S", 0.01)
    import time

    with caplog.at_level("INFO"):
        gaussian_cuda.load_kernels(lambda: time.sleep(0.1) or np)
    assert any("still compiling" in message for message in caplog.messages)
    assert "takes minutes" in caplog.messages[0]


def test_importing_the_renderer_loads_no_cuda_code() -> None:
    code = "import sys, render.gaussians, gsplat; sys.exit('gsplat.cuda._backend' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
