"""Validation loss: fixed clips, fixed noise, fixed timesteps, so that two values differ only by the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwm_model.conditioning import ConditionLatents
from dwm_model.denoiser import Denoiser, to_network_latents, velocity_losses
from dwm_model.latents import LatentStore
from dwm_model.train_config import TrainConfig
from dwm_model.training_data import Batch, load_validation_clip, stable_seed

if TYPE_CHECKING:
    import torch


def validation_loss(denoiser: Denoiser, store: LatentStore, clips: dict[str, str], config: TrainConfig) -> float | None:
    """Mean velocity error over clips and timesteps, with the live network and posterior means.

    The timesteps lie in the middles of equal parts of the schedule; the noise of each clip and timestep comes from the
    run's seed and the clip's id. The training's randomness is not touched.

    Args:
        denoiser: the network.
        store: cached latents.
        clips: prompt of each validation clip.
        config: seed, number of timesteps, batch size.

    Returns:
        The loss; None without validation clips.
    """
    import torch

    if not clips:
        return None
    total = int(denoiser.scheduler.config.num_train_timesteps)
    count = config.num_validation_timesteps
    timesteps = torch.tensor([int((index + 0.5) * total / count) for index in range(count)])
    was_training = denoiser.transformer.training
    denoiser.transformer.eval()
    losses: list[torch.Tensor] = []
    with torch.no_grad():
        for clip_id, prompt in clips.items():
            batch = load_validation_clip(store, clip_id, prompt)
            generator = torch.Generator().manual_seed(stable_seed("validation", config.seed, clip_id))
            noise = torch.randn((count, *batch.interaction_bcfhw.shape[1:]), generator=generator).transpose(1, 2)
            for start in range(0, count, config.batch_size):
                part = slice(start, start + config.batch_size)
                losses.append(_losses_of_clip(denoiser, batch, noise[part], timesteps[part]))
    denoiser.transformer.train(was_training)
    return float(torch.cat(losses).double().mean())


def _losses_of_clip(
    denoiser: Denoiser, batch: Batch, noise_bfchw: torch.Tensor, timesteps_b: torch.Tensor
) -> torch.Tensor:
    """Losses of one clip at several timesteps, on the CPU, [B]."""
    count = len(timesteps_b)
    scaled = (
        to_network_latents(latents, denoiser.scaling_factor).to(denoiser.device).expand(count, -1, -1, -1, -1)
        for latents in (batch.interaction_bcfhw, batch.static_bcfhw, batch.hands_bcfhw)
    )
    interaction, static, hands = scaled
    return velocity_losses(
        denoiser,
        interaction,
        ConditionLatents(static, hands),
        batch.text_bld.to(denoiser.device).expand(count, -1, -1),
        noise_bfchw=noise_bfchw.to(denoiser.device),
        timesteps_b=timesteps_b.to(denoiser.device),
    ).cpu()
