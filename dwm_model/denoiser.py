"""The denoising network with all that surrounds it, shared by training, validation and sampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dwm_model.conditioning import Conditioning, ConditionLatents, get_conditioning, known_mask_value
from dwm_model.families import ModelFamily, RotaryEmbedding

if TYPE_CHECKING:
    import torch
    from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel

    from dwm_model.base_model import BaseModel


@dataclass(frozen=True)
class Denoiser:
    """A transformer adapted to its conditioning, with its schedule.

    Attributes:
        transformer: the network.
        scheduler: noise schedule.
        family: how the network patches latents.
        conditioning: how hands enter.
        scaling_factor: factor from the autoencoder's latents to the network's.
        autocast_dtype: type of the arithmetic where it differs from the weights' (mixed precision); None: as stored.
    """

    transformer: CogVideoXTransformer3DModel
    scheduler: CogVideoXDDIMScheduler
    family: ModelFamily
    conditioning: Conditioning
    scaling_factor: float
    autocast_dtype: torch.dtype | None = None
    _rotary_by_size: dict[tuple[int, int, int], RotaryEmbedding | None] = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.transformer.device
        return device

    def predict(
        self,
        noisy_bfchw: torch.Tensor,
        conditions: ConditionLatents,
        text_bld: torch.Tensor,
        timesteps_b: torch.Tensor,
    ) -> torch.Tensor:
        """Predicted velocity, float32 [B, F, 16, H, W].

        Args:
            noisy_bfchw: noisy, scaled interaction latents.
            conditions: scaled latents of the conditions.
            text_bld: prompt embeddings, [B, tokens, dim].
            timesteps_b: training timesteps, [B].
        """
        import torch

        mask_value = known_mask_value(self.scaling_factor)
        network_input = self.conditioning.network_input(noisy_bfchw, conditions, mask_value)
        rotary = self._rotary(noisy_bfchw.shape[3], noisy_bfchw.shape[4], noisy_bfchw.shape[1])
        if self.autocast_dtype is None:
            dtype = self.transformer.dtype
            network_input, text_bld = network_input.to(dtype), text_bld.to(dtype)
            return self.family.predict(self.transformer, network_input, text_bld, timesteps_b, rotary).float()
        with torch.autocast(self.device.type, dtype=self.autocast_dtype):
            return self.family.predict(self.transformer, network_input, text_bld, timesteps_b, rotary).float()

    def _rotary(self, height: int, width: int, frames: int) -> RotaryEmbedding | None:
        """Rotary embedding of a latent size, made once."""
        size = (height, width, frames)
        if size not in self._rotary_by_size:
            self._rotary_by_size[size] = self.family.rotary_embedding(self.transformer, height, width, frames)
        return self._rotary_by_size[size]


def make_denoiser(base: BaseModel, conditioning_name: str, autocast_dtype: torch.dtype | None = None) -> Denoiser:
    """Load a base's transformer, only, and adapt it to a conditioning.

    Raises:
        DwmError: the conditioning is unknown or the base does not take it.
    """
    conditioning = get_conditioning(conditioning_name)
    conditioning.adapt(base.transformer)
    return Denoiser(
        transformer=base.transformer,
        scheduler=base.scheduler,
        family=base.family,
        conditioning=conditioning,
        scaling_factor=base.description.scaling_factor,
        autocast_dtype=autocast_dtype,
    )


def to_network_latents(latents_bcfhw: torch.Tensor, scaling_factor: float) -> torch.Tensor:
    """Latents of the autoencoder [B, C, F, H, W] as the network takes them: scaled, [B, F, C, H, W]."""
    return (latents_bcfhw * scaling_factor).transpose(1, 2)


def velocity_losses(
    denoiser: Denoiser,
    latents_bfchw: torch.Tensor,
    conditions: ConditionLatents,
    text_bld: torch.Tensor,
    *,
    noise_bfchw: torch.Tensor,
    timesteps_b: torch.Tensor,
) -> torch.Tensor:
    """Mean squared velocity error of each clip, float32 [B] (paper equation 7).

    Equal to the squared error of the clean latent weighted by 1 / (1 - alpha_bar), which the public trainer computes.
    """
    noisy = denoiser.scheduler.add_noise(latents_bfchw, noise_bfchw, timesteps_b)
    target = denoiser.scheduler.get_velocity(latents_bfchw, noise_bfchw, timesteps_b)
    predicted = denoiser.predict(noisy, conditions, text_bld, timesteps_b)
    errors: torch.Tensor = (predicted - target.float()).square().flatten(1).mean(dim=1)
    return errors
