"""Sampling: from the latents of static scene and hands to the interaction video (paper section 3.2).

DDIM with classifier-free guidance over the text only: both branches see the static and hand latents. The conditions
are the means of their posteriors and the initial noise follows from clip and seed alone, so that a video does not
depend on what was generated before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_model import BaseModel as DiffusionBase
from dwm_model.base_model import default_device, load_base
from dwm_model.checkpoints import checkpoint_folder, checkpoint_steps, read_identity
from dwm_model.conditioning import ConditionLatents
from dwm_model.denoiser import Denoiser, make_denoiser, to_network_latents
from dwm_model.latents import encode_frames, posterior_mean
from dwm_model.lora import import_adapter
from dwm_model.prompts import embed_prompt
from manifests.errors import DwmError
from manifests.hashing import short_id
from render.video import Frames

if TYPE_CHECKING:
    import torch
    from diffusers import CogVideoXDDIMScheduler


class SamplerConfig(BaseModel):
    """Settings of the sampler, with the paper's values as defaults (section 4)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_inference_steps: int = Field(default=50, description="Denoising steps.", gt=0)
    guidance_scale: float = Field(default=6.0, description="Weight of the text; 1 turns guidance off.", ge=1)


@dataclass(frozen=True)
class SampleConditions:
    """What a video is generated from; all tensors float32 on the CPU.

    Attributes:
        static_moments: cached latent of the static video: mean and log-variance, [2C, F, H, W], unscaled.
        hand_moments: the same of the hand video.
        text_ld: prompt embedding, [tokens, dim].
        empty_text_ld: embedding of the empty prompt, which guidance steers away from.
    """

    static_moments: torch.Tensor
    hand_moments: torch.Tensor
    text_ld: torch.Tensor
    empty_text_ld: torch.Tensor


class Sampler:
    """A base model with the adapter of a training run."""

    def __init__(self, base: DiffusionBase, denoiser: Denoiser, run_id: str, checkpoint_step: int) -> None:
        self.base = base
        self.denoiser = denoiser
        self.run_id = run_id
        self.checkpoint_step = checkpoint_step

    @classmethod
    def from_run(cls, base_path: Path, run_folder: Path, checkpoint_step: int | None = None) -> Sampler:
        """Load a base and the adapter of a run's checkpoint.

        Args:
            base_path: base model that the run was trained on.
            run_folder: folder of the run.
            checkpoint_step: step of the checkpoint; the newest when None.

        Raises:
            DwmError: no run, no such checkpoint, or the run was trained on another base.
        """
        import torch

        identity = read_identity(run_folder)
        step = choose_checkpoint(run_folder, checkpoint_step)
        device = default_device()
        base = load_base(base_path, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
        if base.base_hash != identity.base_hash:
            raise DwmError(
                f"{base.path}: base {base.base_hash[:8]} is not the one that {run_folder} was trained on "
                f"({identity.base_name}, {identity.base_hash[:8]}); give that base"
            )
        denoiser = make_denoiser(base, identity.config.conditioning, torch.bfloat16 if device == "cuda" else None)
        import_adapter(denoiser.transformer, checkpoint_folder(run_folder, step), identity.config.lora)
        denoiser.transformer.eval().requires_grad_(requires_grad=False)
        return cls(base, denoiser, identity.run_id, step)

    def generate(self, conditions: SampleConditions, clip_id: str, seed: int, config: SamplerConfig) -> Frames:
        """Generate the interaction video, uint8 RGB [T, H, W, 3].

        The same clip id, seed, conditions and settings give the same video on the same machine.
        """
        latents_bcfhw = self.denoise(conditions, clip_id, seed, config)
        return decode_frames(self.base, latents_bcfhw)[0]

    def denoise(self, conditions: SampleConditions, clip_id: str, seed: int, config: SamplerConfig) -> torch.Tensor:
        """Generate the unscaled latent of the video, float32 [1, C, F, H, W]."""
        import torch

        scheduler = _copied(self.denoiser.scheduler)
        scheduler.set_timesteps(config.num_inference_steps, device=self.denoiser.device)
        static, hands = self._network_latent(conditions.static_moments), self._network_latent(conditions.hand_moments)
        guided = config.guidance_scale > 1.0
        texts = [conditions.empty_text_ld, conditions.text_ld] if guided else [conditions.text_ld]
        text_bld = torch.stack(texts).to(self.denoiser.device)
        batch = ConditionLatents(
            static_bfchw=static.repeat(len(texts), 1, 1, 1, 1), hands_bfchw=hands.repeat(len(texts), 1, 1, 1, 1)
        )
        noise = torch.randn(static.shape, generator=noise_generator(clip_id, seed))
        latents = noise.to(self.denoiser.device) * scheduler.init_noise_sigma
        with torch.inference_mode():
            for timestep in scheduler.timesteps:
                model_input = scheduler.scale_model_input(latents.repeat(len(texts), 1, 1, 1, 1), timestep)
                velocity = self.denoiser.predict(model_input, batch, text_bld, timestep.expand(len(texts)))
                if guided:
                    without_text, with_text = velocity.chunk(2)
                    velocity = without_text + config.guidance_scale * (with_text - without_text)
                latents = scheduler.step(velocity, timestep, latents, eta=0.0, return_dict=False)[0]
        return (latents.transpose(1, 2) / self.denoiser.scaling_factor).float().cpu()

    def conditions_of(self, static: Frames, hands: Frames, prompt: str) -> SampleConditions:
        """Encode videos (uint8 RGB [T, H, W, 3] of one size and length) and a prompt that are in no dataset.

        Raises:
            DwmError: the videos differ in size or length.
        """
        if static.shape != hands.shape:
            raise DwmError(
                f"static video {static.shape} and hand video {hands.shape} differ in length or size; "
                "give two videos of one camera path"
            )
        static_moments, hand_moments = encode_frames(self.base, [static, hands])
        return SampleConditions(
            static_moments=static_moments,
            hand_moments=hand_moments,
            text_ld=embed_prompt(self.base, prompt),
            empty_text_ld=embed_prompt(self.base, ""),
        )

    def _network_latent(self, moments: torch.Tensor) -> torch.Tensor:
        """Posterior mean as the network takes it, [1, F, C, H, W]."""
        latents = to_network_latents(posterior_mean(moments)[None], self.denoiser.scaling_factor)
        return latents.to(self.denoiser.device)


def choose_checkpoint(run_folder: Path, step: int | None) -> int:
    """The given step, or the newest of a run.

    Raises:
        DwmError: the run has no checkpoint, or none of this step.
    """
    steps = checkpoint_steps(run_folder)
    if not steps:
        raise DwmError(f"{run_folder}: has no checkpoint yet; train it first")
    if step is not None and step not in steps:
        raise DwmError(f"{run_folder}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step


def noise_generator(clip_id: str, seed: int) -> torch.Generator:
    """Source of a video's initial noise: depends on clip and seed, not on order or batch."""
    import torch

    return torch.Generator().manual_seed(int(short_id(clip_id, seed)[:15], 16))


def decode_frames(base: DiffusionBase, latents_bcfhw: torch.Tensor) -> Frames:
    """Decode unscaled latents [B, C, F, H, W] to uint8 RGB [B, T, H, W, 3], T = temporal ratio * (F - 1) + 1."""
    import torch

    with torch.inference_mode():
        pixels = base.vae.decode(latents_bcfhw.to(base.device, base.dtype)).sample
    scaled: Any = ((pixels.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    frames: Frames = np.ascontiguousarray(scaled.permute(0, 2, 3, 4, 1).cpu().numpy())
    return frames


def _copied(scheduler: CogVideoXDDIMScheduler) -> CogVideoXDDIMScheduler:
    """A scheduler of the same configuration; `set_timesteps` changes the one it is called on."""
    copied: CogVideoXDDIMScheduler = type(scheduler).from_config(scheduler.config)
    return copied
