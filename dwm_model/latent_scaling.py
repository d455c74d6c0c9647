"""From the autoencoder's latents to the network's and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LatentScaling:
    """What latents are shifted and multiplied by before the network sees them.

    Attributes:
        factor: one number for all channels (CogVideoX), or one a channel (Wan: the inverse deviations).
        mean: subtracted first; one a channel, or empty for zero.
    """

    factor: tuple[float, ...]
    mean: tuple[float, ...] = ()

    def to_network(self, latents_bcfhw: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, F, H, W] of the autoencoder as the network takes them, [B, F, C, H, W]."""
        if self.mean:
            latents_bcfhw = latents_bcfhw - self._column(self.mean, latents_bcfhw)
        return (latents_bcfhw * self._column(self.factor, latents_bcfhw)).transpose(1, 2)

    def to_autoencoder(self, latents_bfchw: torch.Tensor) -> torch.Tensor:
        """The network's latents [B, F, C, H, W] as the autoencoder decodes them, [B, C, F, H, W]."""
        latents = latents_bfchw.transpose(1, 2)
        latents = latents / self._column(self.factor, latents)
        return latents + self._column(self.mean, latents) if self.mean else latents

    @staticmethod
    def _column(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
        return like.new_tensor(values).view(-1, 1, 1, 1)
