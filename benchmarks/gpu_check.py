"""What to run first on a GPU machine (`make gpu-check`, under 10 minutes): does each GPU path work, and how fast?

Checks the mesh renderer's OpenGL, a bfloat16 training step and sampling of the tiny base against the CPU, and one
forward pass of a transformer of the real size with random weights. Prints a table and one JSON object; exits with 1
when a check fails and with 2 where there is no CUDA device.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dwm_model.base_model import load_base
from dwm_model.conditioning import ConditionLatents, known_mask_value
from dwm_model.denoiser import make_denoiser, velocity_losses
from dwm_model.tiny import make_tiny_base
from render.gl_context import gl_description

REAL_LATENT_SHAPE = (1, 13, 16, 60, 90)
"""Batch, frames, channels, rows and columns of a 49x720x480 clip's latent."""

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
        except (RuntimeError, OSError) as error:
            failed += 1
            outcomes[name] = f"FAILED: {error}"
        print(f"{name:>20}  {outcomes[name]}", flush=True)
    print(json.dumps({"device": torch.cuda.get_device_name(0), **outcomes}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
