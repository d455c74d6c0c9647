"""CPU time of one training step from cached latents against the same step written as the public trainer does it.

Both steps train the same LoRA on the tiny base (4 layers of width 128) with a batch of 2 clips of 13 frames of 64x96
pixels and 226 text tokens: forward, backward, clipped gradient, AdamW.

- Ours reads the clips' moments from a safetensors shard, samples them, and takes the velocity error.
- The public trainer's has the pixels of the three videos of each clip and encodes them in the step, recomputes
  activations in the backward pass, and takes the clean-latent error weighted by 1 / (1 - alpha_bar). Decoding the mp4
  files is not counted. The ratio depends on the autoencoder: the headline has one of widths 16, 32, 64, 96, the least
  that reconstructs pictures; the second figure has the tiny base's (8, 16, 16, 24), which shows colours only.

Figures: ``speedup_vs_raw_video`` and ``speedup_vs_raw_video_smallest_vae`` (ratios of medians of CPU time, process
accounting, one thread) and ``gradient_max_diff`` (largest difference between the two losses' gradients, float32, same
latents, noise, timesteps).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors import safe_open
from safetensors.torch import save_file

from dwm_model.base_model import load_base
from dwm_model.conditioning import ConditionLatents, known_mask_value
from dwm_model.denoiser import Denoiser, make_denoiser, to_network_latents, velocity_losses
from dwm_model.latents import sample_posterior
from dwm_model.lora import LoraSettings, add_lora, trainable_parameters
from dwm_model.tiny import make_tiny_base

BATCH, FRAMES, HEIGHT, WIDTH = 2, 13, 64, 96
TEXT_TOKENS = 226
ROLES = ("interaction", "static", "hands")


@dataclass
class Setting:
    """What both steps work on.

    Attributes:
        denoiser: transformer with LoRA.
        mini_vae: autoencoder of the raw-video step.
        smallest_vae: autoencoder of the tiny base.
        videos: pixels of the videos of each role, [B, 3, T, H, W] in [-1, 1].
        shard: file with the moments of the videos of each role, [B, 2C, F, H, W].
        text_bld: prompt embeddings.
        parameters: what trains.
        optimizer: AdamW over them.
        generator: source of noise and timesteps.
    """

    denoiser: Denoiser
    mini_vae: AutoencoderKLCogVideoX
    smallest_vae: AutoencoderKLCogVideoX
    videos: dict[str, torch.Tensor]
    shard: Path
    text_bld: torch.Tensor
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    generator: torch.Generator


def make_setting(folder: Path) -> Setting:
    """Make the tiny base, the videos and their shard."""
    torch.manual_seed(0)
    base = load_base(make_tiny_base(folder / "base"))
    denoiser = make_denoiser(base, "hand_mesh")
    add_lora(denoiser.transformer, LoraSettings(rank=64, alpha=64), seed=0)
    denoiser.transformer.train()
    mini_vae = AutoencoderKLCogVideoX(
        block_out_channels=(16, 32, 64, 96), latent_channels=16, layers_per_block=1, norm_num_groups=2
    )
    generator = torch.Generator().manual_seed(0)
    videos = {role: torch.rand(BATCH, 3, FRAMES, HEIGHT, WIDTH, generator=generator) * 2 - 1 for role in ROLES}
    with torch.inference_mode():
        moments = {role: base.vae.encode(video).latent_dist.parameters.half() for role, video in videos.items()}
    save_file({role: tensor.contiguous() for role, tensor in moments.items()}, folder / "shard.safetensors")
    parameters = list(trainable_parameters(denoiser.transformer).values())
    return Setting(
        denoiser=denoiser,
        mini_vae=mini_vae.eval(),
        smallest_vae=base.vae,
        videos=videos,
        shard=folder / "shard.safetensors",
        text_bld=torch.randn(BATCH, TEXT_TOKENS, base.description.text_dim, generator=generator),
        parameters=parameters,
        optimizer=torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01),
        generator=generator,
    )


def cached_latents(setting: Setting) -> tuple[torch.Tensor, ConditionLatents]:
    """Sampled, scaled latents from the shard, [1, F, C, H, W]."""
    with safe_open(setting.shard, framework="pt") as shard:
        interaction, static, hands = (
            to_network_latents(
                sample_posterior(shard.get_tensor(role).float(), setting.generator),
                setting.denoiser.scaling_factor,
            )
            for role in ROLES
        )
    return interaction, ConditionLatents(static, hands)


def encoded_latents(setting: Setting, vae: AutoencoderKLCogVideoX) -> tuple[torch.Tensor, ConditionLatents]:
    """Sampled, scaled latents of the videos, encoded now, [1, F, C, H, W]."""
    with torch.no_grad():
        interaction, static, hands = (
            to_network_latents(
                vae.encode(setting.videos[role]).latent_dist.sample(setting.generator),
                setting.denoiser.scaling_factor,
            )
            for role in ROLES
        )
    return interaction, ConditionLatents(static, hands)


def weighted_clean_loss(
    setting: Setting,
    latents: torch.Tensor,
    conditions: ConditionLatents,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """The public trainer's loss: error of the clean latent, weighted by 1 / (1 - alpha_bar)."""
    denoiser = setting.denoiser
    scheduler = denoiser.scheduler
    noisy = scheduler.add_noise(latents, noise, timesteps)
    mask = torch.full_like(noisy[:, :, :1], known_mask_value(denoiser.scaling_factor))
    network_input = torch.cat([noisy, mask, conditions.static_bfchw, conditions.hands_bfchw], dim=2)
    rotary = denoiser.family.rotary_embedding(denoiser.transformer, noisy.shape[3], noisy.shape[4], noisy.shape[1])
    velocity = denoiser.family.predict(denoiser.transformer, network_input, setting.text_bld, timesteps, rotary)
    clean = scheduler.get_velocity(velocity, noisy, timesteps)
    weights = (1 / (1 - scheduler.alphas_cumprod[timesteps])).float()[:, None]
    loss: torch.Tensor = (weights * (clean - latents).square().flatten(1)).mean()
    return loss


def noise_and_timesteps(setting: Setting, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise like the latents, and a uniform timestep."""
    noise = torch.randn(latents.shape, generator=setting.generator)
    return noise, torch.randint(0, 1000, (len(latents),), generator=setting.generator)


def update(setting: Setting, loss: torch.Tensor) -> None:
    """Backward pass, clipped gradient, optimizer step."""
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(setting.parameters, 1.0)
    setting.optimizer.step()
    setting.optimizer.zero_grad(set_to_none=True)


def cached_step(setting: Setting) -> None:
    """Our step."""
    setting.denoiser.transformer.disable_gradient_checkpointing()
    latents, conditions = cached_latents(setting)
    noise, timesteps = noise_and_timesteps(setting, latents)
    losses = velocity_losses(
        setting.denoiser, latents, conditions, setting.text_bld, noise_bfchw=noise, timesteps_b=timesteps
    )
    update(setting, losses.mean())


def raw_video_step(setting: Setting, vae: AutoencoderKLCogVideoX) -> None:
    """The public trainer's step."""
    setting.denoiser.transformer.enable_gradient_checkpointing()
    latents, conditions = encoded_latents(setting, vae)
    noise, timesteps = noise_and_timesteps(setting, latents)
    update(setting, weighted_clean_loss(setting, latents, conditions, noise, timesteps))


def cpu_seconds(step: Callable[[], None]) -> float:
    """CPU time of a step, all threads of the process."""
    began = time.process_time()
    step()
    return time.process_time() - began


def gradient_difference(setting: Setting, draws: int = 4) -> tuple[float, float]:
    """Largest difference between both losses' gradients over some draws, and the largest gradient."""
    difference = largest = 0.0
    for _ in range(draws):
        latents, conditions = cached_latents(setting)
        noise, timesteps = noise_and_timesteps(setting, latents)
        ours = velocity_losses(
            setting.denoiser, latents, conditions, setting.text_bld, noise_bfchw=noise, timesteps_b=timesteps
        ).mean()
        public = weighted_clean_loss(setting, latents, conditions, noise, timesteps)
        pairs = zip(
            torch.autograd.grad(ours, setting.parameters),
            torch.autograd.grad(public, setting.parameters),
            strict=True,
        )
        for one, other in pairs:
            difference = max(difference, float((one - other).abs().max()))
            largest = max(largest, float(one.abs().max()))
    return difference, largest


def measure(repeats: int) -> dict[str, float | int]:
    """Run both steps in turn and compare."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        setting = make_setting(Path(folder))
        difference, largest = gradient_difference(setting)
        steps: dict[str, Callable[[], None]] = {
            "cached": partial(cached_step, setting),
            "raw": partial(raw_video_step, setting, setting.mini_vae),
            "raw_smallest": partial(raw_video_step, setting, setting.smallest_vae),
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for round_number in range(repeats + 1):
            for name, step in steps.items():
                seconds = cpu_seconds(step)
                if round_number:  # the first round warms up
                    times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "repeats": repeats,
        "cached_step_cpu_s": round(medians["cached"], 4),
        "raw_video_step_cpu_s": round(medians["raw"], 4),
        "raw_video_step_smallest_vae_cpu_s": round(medians["raw_smallest"], 4),
        "speedup_vs_raw_video": round(medians["raw"] / medians["cached"], 2),
        "speedup_vs_raw_video_smallest_vae": round(medians["raw_smallest"] / medians["cached"], 2),
        "gradient_max_diff": difference,
        "gradient_max": largest,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--repeats", type=int, default=9, help="timed steps of each kind")
    options = parser.parse_args()
    figures = measure(options.repeats)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:36} {value}")


if __name__ == "__main__":
    main()
