"""The training step of the public release, written down again from its description, to compare with.

In float32: latents from one ``.pt`` file an item (or pixels that are encoded in the step), rotary positions made anew
at each step, every block recomputed in the backward pass, error of the clean latent weighted by 1 / (1 - alpha_bar),
clipped gradient, plain AdamW over the LoRA factors and the patch projection. Autoencoder and text encoder stay in
memory. Its faults that cost no time (one noise for all ranks, bfloat16 LoRA) are not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKLCogVideoX

from dwm_model.denoiser import Denoiser
from dwm_model.latents import sample_posterior
from dwm_model.lora import trainable_parameters
from dwm_model.schedules import VelocitySchedule

ROLES = ("interaction", "static", "hands")


@dataclass
class PublicTrainer:
    """The public step on given items.

    Attributes:
        denoiser: transformer with adapter; its schedule and sizes are used.
        text_bld: prompt embeddings of the batch.
        generator: source of noise and timesteps.
        resident: what stays in memory unused.
    """

    denoiser: Denoiser
    text_bld: torch.Tensor
    generator: torch.Generator
    resident: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        self.denoiser.transformer.enable_gradient_checkpointing()
        self.parameters = list(trainable_parameters(self.denoiser.transformer).values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01)

    def cached_step(self, items: list[Path]) -> None:
        """A step from cached items, `write_items` files."""
        loaded = [torch.load(item, weights_only=True) for item in items]
        moments = {role: torch.stack([item[role] for item in loaded]).float() for role in ROLES}
        self._update(self.loss(*(sample_posterior(moments[role], self.generator) for role in ROLES)))

    def raw_video_step(self, vae: AutoencoderKLCogVideoX, videos: dict[str, torch.Tensor]) -> None:
        """A step from pixels, [B, 3, T, H, W] in [-1, 1] for each role."""
        with torch.no_grad():
            latents = [vae.encode(videos[role]).latent_dist.sample(self.generator) for role in ROLES]
        self._update(self.loss(*latents))

    def loss(
        self,
        interaction_bcfhw: torch.Tensor,
        static_bcfhw: torch.Tensor,
        hands_bcfhw: torch.Tensor,
        noise: torch.Tensor | None = None,
        timesteps: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Weighted error of the clean latents; noise [B, F, C, H, W] and timesteps [B] are drawn unless given."""
        denoiser = self.denoiser
        scheduler = cast(VelocitySchedule, denoiser.schedule).scheduler  # the public release knows CogVideoX only
        interaction, static, hands = (
            denoiser.latents(latents) for latents in (interaction_bcfhw, static_bcfhw, hands_bcfhw)
        )
        if noise is None:
            noise = torch.randn(interaction.shape, generator=self.generator)
        if timesteps is None:
            timesteps = torch.randint(0, 1000, (len(interaction),), generator=self.generator)
        noisy = scheduler.add_noise(interaction, noise, timesteps)
        mask = torch.full_like(noisy[:, :, :1], denoiser.mask_value)
        network_input = torch.cat([noisy, mask, static, hands], dim=2)
        rotary = denoiser.family.rotary_embedding(denoiser.transformer, noisy.shape[3], noisy.shape[4], noisy.shape[1])
        text = self.text_bld[: len(interaction)]
        velocity = denoiser.family.predict(denoiser.transformer, network_input, text, timesteps, rotary)
        clean = scheduler.get_velocity(velocity, noisy, timesteps)
        weights = (1 / (1 - scheduler.alphas_cumprod[timesteps])).float()[:, None]
        loss: torch.Tensor = (weights * (clean - interaction).square().flatten(1)).mean()
        return loss

    def _update(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def write_items(folder: Path, moments: dict[str, torch.Tensor], text_bld: torch.Tensor) -> list[Path]:
    """Write one ``.pt`` file an item, as the release caches them: moments of each role and the prompt embedding."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"item-{index:05d}.pt" for index in range(len(text_bld))]
    for index, path in enumerate(paths):
        item = {role: tensor[index].clone() for role, tensor in moments.items()}
        torch.save({**item, "prompt": text_bld[index].clone()}, path)
    return paths
