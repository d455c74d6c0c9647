"""The ways hands enter the network, and the channel order of its input (paper section 3.2).

A conditioning adapts a base transformer once and then builds the network's input at each step; the trainer and the
sampler only know this interface. Tensors are written B (batch), F (latent frames), C (channels), H, W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dwm_model.families import BASE_CHANNELS, WIDENED_CHANNELS
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch
    from diffusers import CogVideoXTransformer3DModel


@dataclass(frozen=True)
class ConditionLatents:
    """What the network is told of a batch of clips; latents are scaled by the autoencoder's factor.

    Attributes:
        static_bfchw: static-scene video, [B, F, 16, H, W].
        hands_bfchw: hand-mesh video, [B, F, 16, H, W].
    """

    static_bfchw: torch.Tensor
    hands_bfchw: torch.Tensor


class Conditioning(Protocol):
    """One way of telling the network about the hands."""

    @property
    def name(self) -> str:
        """Name in configurations."""
        ...

    def adapt(self, transformer: CogVideoXTransformer3DModel) -> None:
        """Change a base transformer in place so that it takes this conditioning; no change when done already."""
        ...

    def network_input(self, noisy_bfchw: torch.Tensor, conditions: ConditionLatents, mask_value: float) -> torch.Tensor:
        """Build the network's input, [B, F, channels, H, W].

        Args:
            noisy_bfchw: noisy interaction latent.
            conditions: what is known of the clips.
            mask_value: the mask channel's value where pixels are known; see `known_mask_value`.
        """
        ...


@dataclass(frozen=True)
class HandMesh:
    """The paper's way: the hand-mesh video's latent in 16 more input channels that start at zero."""

    name: str = "hand_mesh"

    def adapt(self, transformer: CogVideoXTransformer3DModel) -> None:
        """Widen 33 input channels to 49."""
        widen_input(transformer, WIDENED_CHANNELS)

    def network_input(self, noisy_bfchw: torch.Tensor, conditions: ConditionLatents, mask_value: float) -> torch.Tensor:
        """Concatenate 16 noisy | 1 mask | 16 static | 16 hands, all pixels of the static scene known."""
        import torch

        mask = torch.full_like(noisy_bfchw[:, :, :1], mask_value)
        return torch.cat([noisy_bfchw, mask, conditions.static_bfchw, conditions.hands_bfchw], dim=2)


CONDITIONINGS: dict[str, Conditioning] = {conditioning.name: conditioning for conditioning in (HandMesh(),)}
"""The ways hands can enter, by name."""


def get_conditioning(name: str) -> Conditioning:
    """Look a conditioning up by its name.

    Raises:
        DwmError: no such conditioning.
    """
    if name not in CONDITIONINGS:
        raise DwmError(f"conditioning '{name}': unknown; choose one of {', '.join(CONDITIONINGS)}")
    return CONDITIONINGS[name]


def known_mask_value(scaling_factor: float) -> float:
    """Value of the mask channel where pixels are known: 1 scaled like the latents (the base was trained so)."""
    return 1.0 * scaling_factor


def widen_input(transformer: CogVideoXTransformer3DModel, channels: int) -> None:
    """Give the patch embedding ``channels`` input channels; the new ones have zero weights, so the output is unchanged.

    V1.1 bases have a convolution [dim, C, p, p], V1.5 bases a linear layer whose inputs are ordered (C, p_t, p, p) with
    channels outermost: in both the old weights come first and the new columns follow.

    Raises:
        DwmError: the transformer has neither 33 nor ``channels`` input channels.
    """
    import torch
    from torch import nn

    present = transformer.config.in_channels
    if present == channels:
        return
    if present != BASE_CHANNELS:
        raise DwmError(f"transformer with in_channels {present}: only {BASE_CHANNELS} can be widened to {channels}")
    old = transformer.patch_embed.proj
    options = {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
    new: nn.Conv2d | nn.Linear
    if isinstance(old, nn.Conv2d):
        patch = transformer.config.patch_size
        new = nn.Conv2d(channels, old.out_channels, kernel_size=patch, stride=patch, **options)
    else:
        new = nn.Linear(old.in_features // present * channels, old.out_features, **options)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.weight.shape[1]] = old.weight
        if new.bias is not None:
            new.bias.copy_(old.bias)
    transformer.patch_embed.proj = new.requires_grad_(old.weight.requires_grad)
    transformer.register_to_config(in_channels=channels)
