"""What to run first on a GPU machine (`make gpu-check`, under 10 minutes): does each GPU path work, and how fast?

Checks the mesh renderer's OpenGL, gsplat's kernels against the CPU renderer of Gaussians (the picture, the alphas and
all gradients), a short fit with each of gsplat's strategies, a bfloat16 training step of the tiny base against the CPU,
and one forward pass of a transformer of the real size with random weights. Prints a table and one JSON object; exits
with 1 when a check fails and with 2 where there is no CUDA device.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.bench_gaussians import Workload
from dwm_model.base_model import load_base
from dwm_model.denoiser import make_denoiser, velocity_losses
from dwm_model.network_call import ConditionLatents, known_mask_value
from dwm_model.tiny import make_tiny_base
from manifests.errors import DwmError
from render.camera import CameraPath, intrinsics_from_fov, look_at
from render.gaussian_scene import GaussianScene, render_path, scene_from_points
from render.gl_context import gl_description
from render.reconstruction import reconstruct
from render.reconstruction_settings import Densification, get_reconstruction_profile
from render.reconstruction_views import ReconstructionView

REAL_LATENT_SHAPE = (1, 13, 16, 60, 90)
"""Batch, frames, channels, rows and columns of a 49x720x480 clip's latent."""

GAUSSIAN_TOLERANCE = 1e-3
"""Largest difference of gsplat's kernels from the CPU renderer, relative to the greatest value of what is compared."""

UNSURE_ALPHA = 0.5
"""The depth of pixels that are covered less is not compared."""

LEAST_FIT_DB = 20.0
"""PSNR that the short fit must reach on views that it has not seen."""

TOLERANCE = 0.05
"""Largest relative difference of a bfloat16 loss from the float32 one."""


def renderer() -> str:
    """The OpenGL that draws; software drawing on a GPU machine is a failure."""
    description = gl_description()
    if "llvmpipe" in description or "softpipe" in description:
        raise RuntimeError(f"drawn in software: {description}; check the EGL vendor files of the driver")
    return description


def training_step() -> str:
    """Loss and gradient of the tiny base in bfloat16 on the GPU, against float32 on the CPU."""
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        base_path = make_tiny_base(Path(folder) / "tiny")
        for device, autocast in (("cpu", None), ("cuda", torch.bfloat16)):
            denoiser = make_denoiser(load_base(base_path, device=device), "hand_mesh", autocast)
            denoiser.transformer.requires_grad_(requires_grad=True)
            generator = torch.Generator().manual_seed(0)
            latents, noise, static, hands = (
                torch.randn((2, 5, 16, 8, 12), generator=generator).to(device) for _ in range(4)
            )
            text = torch.randn((2, 64, 64), generator=generator).to(device)
            loss = velocity_losses(
                denoiser,
                latents,
                ConditionLatents(static, hands),
                text,
                noise_bfchw=noise,
                timesteps_b=torch.tensor([100, 700], device=device),
            ).mean()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
            losses[device] = float(loss)
    difference = abs(losses["cuda"] / losses["cpu"] - 1.0)
    if not np.isfinite(difference) or difference > TOLERANCE:
        raise RuntimeError(f"bfloat16 loss {losses['cuda']:.4f} differs from float32 {losses['cpu']:.4f}")
    return f"loss {losses['cuda']:.4f} (bfloat16, GPU) against {losses['cpu']:.4f} (float32, CPU)"


def gaussians(device: str = "cuda") -> str:
    """A cloud of Gaussians through `rasterize` on a device and on the CPU: picture, alphas, depth, every gradient."""
    found: list[dict[str, torch.Tensor]] = []
    for where in ("cpu", device):
        work = Workload(5_000, 360, 240)
        scene = GaussianScene(**{name: value.detach().to(where) for name, value in vars(work.scene).items()})
        parameters = vars(scene)
        for value in parameters.values():
            value.requires_grad_()
        viewmat, lens = torch.eye(4, device=where)[None], work.lens.to(where)
        image, alphas, _ = scene.rasterize(viewmat, lens, *work.size, render_mode="RGB+ED")
        (image[..., :3].square().mean() + alphas.mean()).backward()  # type: ignore[no-untyped-call]
        values = {"colours": image[..., :3], "depth": image[..., 3] * (alphas[..., 0] > UNSURE_ALPHA), "alphas": alphas}
        gradients = {f"gradient of {name}": value.grad for name, value in parameters.items() if value.grad is not None}
        found.append({name: value.detach().cpu() for name, value in (values | gradients).items()})
    own, other = found
    apart = {name: float((own[name] - other[name]).abs().max() / own[name].abs().max()) for name in own}
    worst = max(apart, key=lambda name: apart[name])
    if len(own) != len(other) or not apart[worst] < GAUSSIAN_TOLERANCE:
        raise RuntimeError(f"gsplat's kernels differ from the CPU renderer: {worst} by {apart[worst]:.2g}")
    return f"{len(apart)} arrays agree with the CPU; worst is {worst}, {apart[worst]:.1g} of its greatest value"


def fit(device: str = "cuda", strategies: tuple[Literal["default", "mcmc"], ...] = ("default", "mcmc")) -> str:
    """A short reconstruction of views of a known scene, with each strategy."""
    random = np.random.default_rng(0)
    points = random.uniform([-1.0, 0.3, -0.4], [1.0, 1.7, 0.4], (1500, 3))
    known = scene_from_points(points, random.uniform(0.1, 0.9, points.shape), sh_degree=0, opacity=0.9)
    poses = np.stack([look_at((0.1 * number - 0.8, 1.2, -2.0), (0.0, 1.0, 0.0)) for number in range(16)])
    path = CameraPath(intrinsics_from_fov(180, 120, 70), poses)
    pictures = render_path(known, path, 180, 120).frames
    views = [
        ReconstructionView(name=f"{number:03d}", image=picture, intrinsics=path.intrinsics, world_from_camera=pose)
        for number, (picture, pose) in enumerate(zip(pictures, poses, strict=True))
    ]
    told = []
    for strategy in strategies:
        dense = Densification(strategy=strategy, start=100, stop=300, every=50, max_gaussians=5_000)
        settings = get_reconstruction_profile("aria_mini").model_copy(
            update={"device": device, "steps": 400, "densification": dense}
        )
        with tempfile.TemporaryDirectory() as folder:
            result = reconstruct(views, points, Path(folder), settings)
        quality = result.evaluation.plain_psnr_db if result.evaluation else float("nan")
        if not quality > LEAST_FIT_DB:
            raise RuntimeError(f"strategy {strategy}: {quality:.1f} dB on held-out views, {LEAST_FIT_DB:g} are wanted")
        told.append(f"{strategy} {quality:.1f} dB")
    return f"held-out views: {', '.join(told)}"


def real_size_forward() -> str:
    """One forward pass of the 5B transformer's shape, 49 channels, random bfloat16 weights."""
    from diffusers import CogVideoXTransformer3DModel

    with torch.device("cuda"):
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=48,
            in_channels=49,
            num_layers=42,
            sample_frames=49,
            text_embed_dim=4096,
            use_rotary_positional_embeddings=False,
        ).eval()
        torch.set_default_dtype(default)
    noisy, static, hands = (torch.randn(REAL_LATENT_SHAPE, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    mask = torch.full_like(noisy[:, :, :1], known_mask_value(0.7))
    text = torch.randn((1, 226, 4096), device="cuda", dtype=torch.bfloat16)
    began = time.perf_counter()
    with torch.inference_mode():
        output = transformer(
            hidden_states=torch.cat([noisy, mask, static, hands], dim=2),
            encoder_hidden_states=text,
            timestep=torch.tensor([500], device="cuda"),
            return_dict=False,
        )[0]
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    if output.shape != REAL_LATENT_SHAPE:
        raise RuntimeError(f"output {tuple(output.shape)}, {REAL_LATENT_SHAPE} expected")
    parameters = sum(parameter.numel() for parameter in transformer.parameters())
    memory = torch.cuda.max_memory_allocated() / 2**30
    return f"{parameters:,} parameters, {seconds:.2f} s, {memory:.1f} GiB"


CHECKS: dict[str, Callable[[], str]] = {
    "renderer": renderer,
    "gaussians": gaussians,
    "fit": fit,
    "training_step": training_step,
    "real_size_forward": real_size_forward,
}


def main() -> int:
    """Run all checks; a failing one does not keep the others from running."""
    if not torch.cuda.is_available():
        print(f"gpu-check: torch {torch.__version__} sees no CUDA device here; run it on a GPU machine")
        return 2
    print(torch.cuda.get_device_name(0))
    outcomes: dict[str, str] = {}
    failed = 0
    for name, check in CHECKS.items():
        try:
            outcomes[name] = check()
        except (RuntimeError, OSError, DwmError) as error:
            failed += 1
            outcomes[name] = f"FAILED: {error}"
        print(f"{name:>20}  {outcomes[name]}", flush=True)
    print(json.dumps({"device": torch.cuda.get_device_name(0), **outcomes}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
