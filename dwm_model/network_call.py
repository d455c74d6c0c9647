"""One call of the network: what every conditioning is given, and how the input channels are put together.

Tensors are written B (batch), F (latent frames), C (channels), H, W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from dwm_model.families import ModelFamily, RotaryEmbedding


@dataclass(frozen=True)
class ConditionLatents:
    """What the network is told of a batch of clips; latents are scaled as the network takes them, on its device.

    Attributes:
        static_bfchw: static-scene video, [B, F, 16, H, W].
        hands_bfchw: hand-mesh or hand-mask video, [B, F, 16, H, W]; None where no video tells of the hands.
        poses_btd: hand poses, [B, T, 104]; None where none are used.
        known_bfhw: where the static-scene latent is known (1) and where not (0), [B, F, H, W]; None: everywhere.
    """

    static_bfchw: torch.Tensor
    hands_bfchw: torch.Tensor | None = None
    poses_btd: torch.Tensor | None = None
    known_bfhw: torch.Tensor | None = None

    def to(self, dtype: torch.dtype | None) -> ConditionLatents:
        """The same in another type; as it is when None."""
        hands, poses, known = self.hands_bfchw, self.poses_btd, self.known_bfhw
        return ConditionLatents(
            self.static_bfchw.to(dtype),
            None if hands is None else hands.to(dtype),
            None if poses is None else poses.to(dtype),
            None if known is None else known.to(dtype),
        )

    def repeat(self, count: int) -> ConditionLatents:
        """The whole batch ``count`` times over, for the branches of guidance."""
        hands, poses, known = self.hands_bfchw, self.poses_btd, self.known_bfhw
        return ConditionLatents(
            self.static_bfchw.repeat(count, 1, 1, 1, 1),
            None if hands is None else hands.repeat(count, 1, 1, 1, 1),
            None if poses is None else poses.repeat(count, 1, 1),
            None if known is None else known.repeat(count, 1, 1, 1),
        )


@dataclass(frozen=True)
class NetworkCall:
    """One call of the network, the part that is the same for every conditioning.

    Attributes:
        noisy_bfchw: noisy, scaled interaction latents, [B, F, 16, H, W].
        conditions: what is known of the clips.
        text_bld: prompt embeddings, [B, tokens, dim].
        timesteps_b: what the network is told of the timesteps, [B].
        mask_value: the mask channels' value where pixels are known; see `known_mask_value`.
        rotary: rotary position embedding of this size; None for a network without it.
    """

    noisy_bfchw: torch.Tensor
    conditions: ConditionLatents
    text_bld: torch.Tensor
    timesteps_b: torch.Tensor
    mask_value: float
    rotary: RotaryEmbedding | None


def known_mask_value(scaling_factor: float) -> float:
    """Value of the mask channel where pixels are known: 1 scaled like the latents (the base was trained so)."""
    return 1.0 * scaling_factor


def input_channels(
    call: NetworkCall,
    family: ModelFamily,
    static_bfchw: torch.Tensor,
    *more: torch.Tensor,
    known_bfhw: torch.Tensor | None = None,
) -> torch.Tensor:
    """Concatenate noisy | mask | static and more latents, [B, F, channels, H, W].

    Args:
        call: noisy latent and mask value.
        family: gives the number of mask channels.
        static_bfchw: what stands in the static slot.
        more: what stands after it.
        known_bfhw: where the mask says "known" (1) and where not (0); everywhere when None.
    """
    import torch

    noisy = call.noisy_bfchw
    mask = noisy.new_full((*noisy.shape[:2], family.slots.mask_channels, *noisy.shape[3:]), call.mask_value)
    if known_bfhw is not None:
        mask *= known_bfhw[:, :, None]
    return torch.cat([noisy, mask, static_bfchw, *more], dim=2)
