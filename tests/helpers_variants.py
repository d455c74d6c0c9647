"""Two clips of one scene that differ in the hands, for a network small enough to learn them by heart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel, WanTransformer3DModel

from dwm_model.conditioning import get_conditioning
from dwm_model.denoiser import Denoiser, velocity_losses
from dwm_model.families import CogVideoXFamily, ModelFamily
from dwm_model.latent_scaling import LatentScaling
from dwm_model.lora import LoraSettings, add_lora, trainable_parameters
from dwm_model.network_call import ConditionLatents
from dwm_model.schedules import FlowSchedule, NoiseSchedule, VelocitySchedule

FRAMES, HEIGHT, WIDTH, VIDEO_FRAMES = 3, 4, 4, 9
TEXT_TOKENS, TEXT_DIM = 2, 8


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_transformer(family: ModelFamily, in_channels: int, **changes: object) -> torch.nn.Module:
    """Random weights, width 128, two layers."""
    torch.manual_seed(0)
    common = {"num_attention_heads": 2, "attention_head_dim": 64, "in_channels": in_channels, "out_channels": 16}
    if not isinstance(family, CogVideoXFamily):
        sizes = {"text_dim": TEXT_DIM, "freq_dim": 32, "ffn_dim": 256, "num_layers": 2}
        return WanTransformer3DModel(**{**common, **sizes, **changes}).eval()
    sizes = {
        "time_embed_dim": 64,
        "text_embed_dim": TEXT_DIM,
        "num_layers": 2,
        "sample_width": WIDTH,
        "sample_height": HEIGHT,
        "sample_frames": VIDEO_FRAMES,
        "patch_size": 2,
        "patch_size_t": family.patch_size_t,
        "max_text_seq_length": TEXT_TOKENS,
        "use_rotary_positional_embeddings": True,
    }
    return CogVideoXTransformer3DModel(**{**common, **sizes, **changes}).eval()


def velocity_schedule() -> VelocitySchedule:
    scheduler = CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    return VelocitySchedule(scheduler)


def small_denoiser(name: str, family: ModelFamily, **changes: object) -> Denoiser:
    """A network adapted to a conditioning; ``changes`` are for its configuration."""
    transformer = small_transformer(family, 36 if family.is_wan else 33, **changes)
    conditioning = get_conditioning(name)
    conditioning.prepare(transformer, family)
    schedule: NoiseSchedule = FlowSchedule() if family.is_wan else velocity_schedule()
    mask_value = 1.0 if family.is_wan else 0.7
    return Denoiser(transformer, schedule, family, conditioning, LatentScaling((1.0,)), mask_value)


@dataclass(frozen=True)
class TwoClips:
    """One static scene, two hand motions, two outcomes; latents are scaled."""

    conditions: ConditionLatents
    targets_bfchw: torch.Tensor
    text_bld: torch.Tensor

    def repeated(self, count: int) -> TwoClips:
        """Each clip ``count`` times."""
        return TwoClips(
            self.conditions.repeat(count),
            self.targets_bfchw.repeat(count, 1, 1, 1, 1),
            self.text_bld.repeat(count, 1, 1),
        )


def two_clips(*, reversed_hands: bool = False) -> TwoClips:
    """Clips with hands of their own; or the second one is the first one backwards, with the same mean pose."""
    size = (FRAMES, 16, HEIGHT, WIDTH)
    static = noise(1, *size, seed=1).repeat(2, 1, 1, 1, 1)
    hands, poses = noise(2, *size, seed=2), 0.5 * noise(2, VIDEO_FRAMES, 104, seed=3)
    changes = noise(2, *size, seed=4)
    if reversed_hands:
        hands, poses, changes = (torch.stack([one[0], one[0].flip(0)]) for one in (hands, poses, changes))
    targets = 0.6 * static + 0.8 * changes
    text = noise(1, TEXT_TOKENS, TEXT_DIM, seed=5).repeat(2, 1, 1)
    return TwoClips(ConditionLatents(static, hands, poses), targets, text)


def learn(denoiser: Denoiser, clips: TwoClips, *, lora: LoraSettings | None, steps: int, rate: float) -> None:
    """Train on both clips at random timesteps: everything, or an adapter and what trains beside it."""
    if lora is None:
        denoiser.transformer.requires_grad_(True)
    else:
        add_lora(denoiser.transformer, lora, seed=0)
    parameters = list(trainable_parameters(denoiser.transformer).values())
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    generator, batch = torch.Generator().manual_seed(9), clips.repeated(4)
    for step in range(steps):
        warm_up, cosine = min(1.0, (step + 1) / 20), 0.5 * (1.0 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * warm_up * cosine
        drawn = torch.randn(batch.targets_bfchw.shape, generator=generator)
        timesteps = torch.randint(0, 1000, (len(drawn),), generator=generator)
        losses = velocity_losses(
            denoiser, batch.targets_bfchw, batch.conditions, batch.text_bld, noise_bfchw=drawn, timesteps_b=timesteps
        )
        optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def loss_at_fixed_noise(denoiser: Denoiser, clips: TwoClips) -> float:
    """Mean velocity error of both clips at eight spread timesteps."""
    batch = clips.repeated(8)
    timesteps = (torch.arange(8) * 125 + 60).repeat_interleave(2)
    with torch.no_grad():
        losses = velocity_losses(
            denoiser,
            batch.targets_bfchw,
            batch.conditions,
            batch.text_bld,
            noise_bfchw=noise(*batch.targets_bfchw.shape, seed=6),
            timesteps_b=timesteps,
        )
    return float(losses.mean())


def sample_both(denoiser: Denoiser, clips: TwoClips) -> torch.Tensor:
    """Latents of both clips, ten steps from the same noise, [2, F, 16, H, W]."""
    solver = denoiser.schedule.solver(10, 1.0, torch.device("cpu"))
    latents = solver.start(noise(1, *clips.targets_bfchw.shape[1:], seed=7).repeat(2, 1, 1, 1, 1), None)
    with torch.no_grad():
        for index, timestep in enumerate(solver.timesteps):
            predicted = denoiser.predict(latents, clips.conditions, clips.text_bld, timestep.expand(2))
            latents = solver.step(index, predicted, latents)
    return latents


def relative_errors(sampled: torch.Tensor, clips: TwoClips) -> list[list[float]]:
    """Distance of each sample to each target, relative to the target's length: [sample][target]."""
    targets = clips.targets_bfchw
    return [[float((one - target).norm() / target.norm()) for target in targets] for one in sampled]
