"""Sampling: from the latents of static scene and hands to the interaction video (paper section 3.2).

DDIM with classifier-free guidance over the text only: both branches see the static and hand latents. The conditions
are the means of their posteriors and the initial noise follows from clip and seed alone, so that a video does not
depend on what was generated before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_model import BaseModel as DiffusionBase
from dwm_model.base_model import default_device, load_base
from dwm_model.checkpoints import RunIdentity, checkpoint_folder, checkpoint_steps, read_identity
from dwm_model.conditioning import ConditionLatents
from dwm_model.denoiser import Denoiser, make_denoiser, to_network_latents
from dwm_model.geometry import ClipGeometry
from dwm_model.latents import LatentStore, encode_frames, posterior_mean
from dwm_model.lora import import_adapter
from dwm_model.prompts import embed_prompt
from manifests.errors import DwmError
from manifests.hashing import short_id
from render.video import Frames

if TYPE_CHECKING:
    import torch


class SamplerConfig(BaseModel):
    """Settings of the sampler, with the paper's values as defaults (section 4)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_inference_steps: int = Field(default=50, description="Denoising steps.", gt=0)
    guidance_scale: float = Field(default=6.0, description="Weight of the text; 1 turns guidance off.", ge=1)


class Sampler:
    """A base model with the adapter of a training run; make it with `from_run`.

    Attributes:
        base: the base model.
        geometry: size and length of the videos, those of the run.
        run_id: the run.
        checkpoint_step: step of the adapter.
    """

    def __init__(
        self,
        base: DiffusionBase,
        denoiser: Denoiser,
        identity: RunIdentity,
        checkpoint_step: int,
        store: LatentStore | None,
    ) -> None:
        self.base = base
        self.geometry: ClipGeometry = identity.config.geometry
        self.run_id = identity.run_id
        self.checkpoint_step = checkpoint_step
        self._denoiser = denoiser
        self._store = store

    @classmethod
    def from_run(
        cls,
        base_path: Path,
        run_folder: Path,
        checkpoint_step: int | None = None,
        *,
        store: LatentStore | None = None,
    ) -> Sampler:
        """Load a base and the adapter of a run's checkpoint.

        Args:
            base_path: base model that the run was trained on.
            run_folder: folder of the run.
            checkpoint_step: step of the checkpoint; the newest when None.
            store: where prompt embeddings are looked up before the text encoder is loaded.

        Raises:
            DwmError: no run, no such checkpoint, or the run was trained on another base.
        """
        import torch

        identity = read_identity(run_folder)
        step = choose_checkpoint(run_folder, checkpoint_step)
        device = default_device()
        on_gpu = device == "cuda"
        base = load_base(base_path, device=device, dtype=torch.bfloat16 if on_gpu else torch.float32)
        if base.base_hash != identity.base_hash:
            raise DwmError(
                f"{run_folder}: trained on base {identity.base_name} ({identity.base_hash[:8]}), not on {base.path} "
                f"({base.base_hash[:8]}); give the base that it was trained on"
            )
        denoiser = make_denoiser(base, identity.config.conditioning, torch.bfloat16 if on_gpu else None)
        import_adapter(denoiser.transformer, checkpoint_folder(run_folder, step), identity.config.lora)
        denoiser.transformer.eval().requires_grad_(requires_grad=False)
        return cls(base, denoiser, identity, step, store)

    def generate(
        self,
        static_moments: torch.Tensor,
        hand_moments: torch.Tensor,
        prompt: str,
        seed: int = 0,
        config: SamplerConfig | None = None,
        *,
        clip_id: str = "",
    ) -> Frames:
        """Generate the interaction video.

        Args:
            static_moments: latent of the static video: mean and log-variance, [2C, F, H, W], unscaled.
            hand_moments: the same of the hand video.
            prompt: text prompt.
            seed: another seed gives another video.
            config: settings; the paper's when None.
            clip_id: goes into the initial noise beside the seed.

        Returns:
            uint8 RGB [T, H, W, 3]; the same for the same arguments on the same machine.

        Raises:
            DwmError: a latent has another size than the run's, or the network gives values that are not finite.
        """
        import torch

        expected = list(self.geometry.moments_shape(self.base.description))
        for moments in (static_moments, hand_moments):
            if list(moments.shape) != expected:
                raise DwmError(
                    f"latents of {list(moments.shape)}: the run needs {expected} ({self.geometry}); encode at that size"
                )
        noise = torch.randn(self._network_latents(static_moments, 1).shape, generator=noise_generator(clip_id, seed))
        config = config or SamplerConfig()
        latents = self._denoise(noise, static_moments, hand_moments, self._texts(prompt, config), config)
        if not bool(torch.isfinite(latents).all()):
            raise DwmError(
                f"run {self.run_id}, step {self.checkpoint_step}: gave values that are not finite; train again"
            )
        video: Frames = decode_frames(self.base, latents.transpose(1, 2) / self._denoiser.scaling_factor)[0]
        return video

    def encode(self, videos: Sequence[Frames]) -> torch.Tensor:
        """Encode static or hand videos that are in no dataset, uint8 RGB [T, H, W, 3] of the run's geometry.

        Returns:
            Moments, float32 on the CPU, [N, 2C, F, H, W], as `generate` takes them.

        Raises:
            DwmError: a video has another size or length.
        """
        import torch

        expected = [self.geometry.num_frames, self.geometry.height, self.geometry.width, 3]
        for video in videos:
            if list(video.shape) != expected:
                raise DwmError(f"video of {list(video.shape)}: the run needs {expected}; resize or cut it first")
        return encode_frames(self.base, videos).to(torch.float16).float()  # as the cache stores them

    def _denoise(
        self,
        noise_bfchw: torch.Tensor,
        static_moments: torch.Tensor,
        hand_moments: torch.Tensor,
        texts_bld: torch.Tensor,
        config: SamplerConfig,
    ) -> torch.Tensor:
        """Run the sampler from noise to a clean, scaled latent [1, F, C, H, W]."""
        import torch

        scheduler = type(self._denoiser.scheduler).from_config(self._denoiser.scheduler.config)
        scheduler.set_timesteps(config.num_inference_steps, device=self._denoiser.device)
        branches = len(texts_bld)
        conditions = ConditionLatents(
            static_bfchw=self._network_latents(static_moments, branches),
            hands_bfchw=self._network_latents(hand_moments, branches),
        )
        latents: torch.Tensor = noise_bfchw.to(self._denoiser.device) * scheduler.init_noise_sigma
        with torch.inference_mode():
            for timestep in scheduler.timesteps:
                noisy = scheduler.scale_model_input(latents.repeat(branches, 1, 1, 1, 1), timestep)
                velocity = self._denoiser.predict(noisy, conditions, texts_bld, timestep.expand(branches))
                if branches == 2:
                    without_text, with_text = velocity.chunk(2)
                    velocity = without_text + config.guidance_scale * (with_text - without_text)
                latents = scheduler.step(velocity, timestep, latents, eta=0.0, return_dict=False)[0]
        return latents

    def _texts(self, prompt: str, config: SamplerConfig) -> torch.Tensor:
        """Embeddings [B, tokens, dim]: the empty prompt and the prompt, or the prompt alone without guidance."""
        import torch

        prompts = ["", prompt] if config.guidance_scale > 1.0 else [prompt]
        embedded = []
        for text in prompts:
            cached = self._store.cached_prompt_embedding(text) if self._store else None
            embedded.append(embed_prompt(self.base, text) if cached is None else cached)
        return torch.stack(embedded).to(self._denoiser.device)

    def _network_latents(self, moments: torch.Tensor, count: int) -> torch.Tensor:
        """Posterior mean as the network takes it, ``count`` times, [B, F, C, H, W]."""
        latents = to_network_latents(posterior_mean(moments)[None], self._denoiser.scaling_factor)
        return latents.to(self._denoiser.device).repeat(count, 1, 1, 1, 1)


def choose_checkpoint(run_folder: Path, step: int | None) -> int:
    """The given step, or the newest of a run.

    Raises:
        DwmError: the run has no checkpoint, or none of this step.
    """
    steps = checkpoint_steps(run_folder)
    if not steps:
        raise DwmError(f"{run_folder}: has no checkpoint yet; continue its training")
    if step is not None and step not in steps:
        raise DwmError(f"{run_folder}: no checkpoint at step {step}; there are {', '.join(map(str, steps))}")
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
