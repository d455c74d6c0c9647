"""The denoising network with all that surrounds it, shared by training, validation and sampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dwm_model.condition_data import ConditionBatch
from dwm_model.conditioning import Conditioning, get_conditioning
from dwm_model.families import ModelFamily, RotaryEmbedding
from dwm_model.latent_scaling import LatentScaling
from dwm_model.network_call import ConditionLatents, NetworkCall, known_mask_value
from dwm_model.schedules import NoiseSchedule

if TYPE_CHECKING:
    import torch

    from dwm_model.base_model import BaseModel


@dataclass(frozen=True)
class Denoiser:
    """A transformer adapted to its conditioning, with its schedule.

    Attributes:
        transformer: the network; all parameters are its own, those that a conditioning adds as well.
        schedule: noise schedule.
        family: how the network patches latents.
        conditioning: how hands enter.
        scaling: from the autoencoder's latents to the network's.
        mask_value: the mask channels' value where pixels are known.
        autocast_dtype: type of the arithmetic where it differs from the weights' (mixed precision); None: as stored.
    """

    transformer: Any
    schedule: NoiseSchedule
    family: ModelFamily
    conditioning: Conditioning
    scaling: LatentScaling
    mask_value: float
    autocast_dtype: torch.dtype | None = None
    _rotary_by_size: dict[tuple[int, int, int], RotaryEmbedding | None] = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.transformer.device
        return device

    def latents(self, latents_bcfhw: torch.Tensor) -> torch.Tensor:
        """The autoencoder's latents [B, 16, F, H, W] as the network takes them, [B, F, 16, H, W] on its device."""
        return self.scaling.to_network(latents_bcfhw.to(self.device))

    def conditions(self, batch: ConditionBatch) -> ConditionLatents:
        """A batch of conditions as the network takes it: scaled, on its device.

        Zero hand latents ("no hands") stay zero whatever the scaling is.
        """
        hands, poses, known = batch.hands_bcfhw, batch.poses_btd, batch.known_bfhw
        return ConditionLatents(
            static_bfchw=self.latents(batch.static_bcfhw),
            hands_bfchw=None if hands is None else self._scaled_hands(hands),
            poses_btd=None if poses is None else poses.to(self.device),
            known_bfhw=None if known is None else known.to(self.device),
        )

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
            conditions: what is known of the clips.
            text_bld: prompt embeddings, [B, tokens, dim].
            timesteps_b: what the network is told of the timesteps, [B].
        """
        import torch

        dtype = None if self.autocast_dtype is not None else self.transformer.dtype
        call = NetworkCall(
            noisy_bfchw=noisy_bfchw.to(dtype),
            conditions=conditions.to(dtype),
            text_bld=text_bld.to(dtype),
            timesteps_b=timesteps_b,
            mask_value=self.mask_value,
            rotary=self._rotary(noisy_bfchw),
        )
        mixed = self.autocast_dtype is not None
        with torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=mixed):
            return self.conditioning.predict(self.transformer, self.family, call).float()

    def _rotary(self, noisy_bfchw: torch.Tensor) -> RotaryEmbedding | None:
        """Rotary embedding of a latent size, made once."""
        _, frames, _, height, width = noisy_bfchw.shape
        size = (height, width, frames)
        if size not in self._rotary_by_size:
            self._rotary_by_size[size] = self.family.rotary_embedding(self.transformer, height, width, frames)
        return self._rotary_by_size[size]

    def _scaled_hands(self, hands_bcfhw: torch.Tensor) -> torch.Tensor:
        import torch

        is_absent = (hands_bcfhw == 0).flatten(1).all(dim=1).to(self.device)
        scaled = self.latents(hands_bcfhw)
        return torch.where(is_absent.view(-1, 1, 1, 1, 1), torch.zeros_like(scaled), scaled)


def make_denoiser(
    base: BaseModel, conditioning: str | Conditioning, autocast_dtype: torch.dtype | None = None, seed: int = 0
) -> Denoiser:
    """Load a base's transformer, only, and adapt it to a conditioning.

    Args:
        base: the base model.
        conditioning: how hands enter, by name or itself.
        autocast_dtype: type of the arithmetic where it differs from the weights' (mixed precision); None: as stored.
        seed: seed of the modules that a conditioning adds.

    Raises:
        DwmError: the conditioning is unknown or the base does not take it.
    """
    if isinstance(conditioning, str):
        conditioning = get_conditioning(conditioning)
    conditioning.prepare(base.transformer, base.family, seed)
    if not base.family.is_wan:
        from dwm_model.last_block import leave_last_text_out

        leave_last_text_out(base.transformer)
    return Denoiser(
        transformer=base.transformer,
        schedule=base.schedule,
        family=base.family,
        conditioning=conditioning,
        scaling=base.description.scaling,
        mask_value=known_mask_value(base.description.scaling_factor),
        autocast_dtype=autocast_dtype,
    )


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

    For CogVideoX it equals the squared error of the clean latent weighted by 1 / (1 - alpha_bar), which the public
    trainer computes.

    Args:
        denoiser: the network.
        latents_bfchw: scaled interaction latents.
        conditions: what is known of the clips.
        text_bld: prompt embeddings, [B, tokens, dim].
        noise_bfchw: the noise that is added.
        timesteps_b: training timesteps, whole numbers below ``denoiser.schedule.num_timesteps``, [B].
    """
    schedule = denoiser.schedule
    noisy = schedule.add_noise(latents_bfchw, noise_bfchw, timesteps_b)
    target = schedule.target(latents_bfchw, noise_bfchw, timesteps_b)
    predicted = denoiser.predict(noisy, conditions, text_bld, schedule.network_timesteps(timesteps_b))
    errors: torch.Tensor = (predicted - target.float()).square().flatten(1).mean(dim=1)
    return errors
