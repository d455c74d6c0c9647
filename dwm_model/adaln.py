"""Hand poses through adaptive layer norms (paper section 4.3, "AdaLN"): parameters in place of pictures.

Poses become an embedding that is added to the timestep's, which scales and shifts every block: one embedding a clip
(`adaln_global`) or one a latent frame (`adaln_frame`). Only the last projection starts at zero, so that the network
begins as the base and yet every weight before it gets a gradient as soon as that projection has moved. Modules are
exchanged for others that hold the same weights under the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers.models.normalization import AdaLayerNorm, CogVideoXLayerNormZero
from torch import nn
from torch.nn import functional

from dwm_model.hand_poses import POSE_FEATURES

if TYPE_CHECKING:
    from diffusers import CogVideoXTransformer3DModel
    from diffusers.models.embeddings import TimestepEmbedding

    from dwm_model.families import ModelFamily

POSE_PREFIX = "time_embedding.pose."
"""Parameters that a pose conditioning adds to a transformer."""


class GlobalPoseEncoder(nn.Module):
    """Poses [B, T, 104] to one embedding a clip, [B, dim]: an MLP a frame, then the mean over time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(POSE_FEATURES, dim)
        self.second = nn.Linear(dim, dim)
        self.last = zeroed(nn.Linear(dim, dim))

    def forward(self, poses_btd: torch.Tensor) -> torch.Tensor:
        """Embed."""
        hidden = functional.silu(self.first(poses_btd))
        hidden = functional.silu(self.second(hidden)).mean(dim=1)
        embedded: torch.Tensor = self.last(hidden)
        return embedded


class FramePoseEncoder(nn.Module):
    """Poses [B, T, 104] to one embedding a latent frame, [B, F, dim]: two temporal convolutions of stride 2, 49 to 13.

    Latent frame f stands for frames 4 f - 3 to 4 f, and sees frames 4 f - 3 to 4 f + 3.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(POSE_FEATURES, dim)
        self.halve = nn.Conv1d(dim, dim, kernel_size=3, stride=2, padding=1)
        self.quarter = nn.Conv1d(dim, dim, kernel_size=3, stride=2, padding=1)
        self.last = zeroed(nn.Linear(dim, dim))

    def forward(self, poses_btd: torch.Tensor) -> torch.Tensor:
        """Embed."""
        hidden = functional.silu(self.first(poses_btd)).transpose(1, 2)
        hidden = functional.silu(self.halve(hidden))
        hidden = functional.silu(self.quarter(hidden)).transpose(1, 2)
        embedded: torch.Tensor = self.last(hidden)
        return embedded


class PosedTimeEmbedding(nn.Module):
    """A timestep embedding to which that of the hand poses is added.

    Without poses it is the base's. With one embedding a clip the result is [B, dim]; with one a latent frame it is
    [B, 1 + patched frames, dim]: first what modulates the text, the timestep and the mean of the poses.
    """

    def __init__(self, base: TimestepEmbedding, pose: GlobalPoseEncoder | FramePoseEncoder, patch_size_t: int) -> None:
        super().__init__()
        self.linear_1, self.act, self.linear_2 = base.linear_1, base.act, base.linear_2
        self.pose = pose
        self._patch_size_t = patch_size_t

    def forward(self, sample: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """Embed a timestep's sinusoids [B, C] and, when given, poses [B, T, 104]."""
        embedded: torch.Tensor = self.linear_2(self.act(self.linear_1(sample)))
        if condition is None:
            return embedded
        poses: torch.Tensor = self.pose(condition)
        if poses.ndim == 2:
            return embedded + poses
        missing = -poses.shape[1] % self._patch_size_t
        if missing:  # the network's input repeats its last frame, too
            poses = torch.cat([poses, poses[:, -1:].expand(-1, missing, -1)], dim=1)
        batch, frames, dim = poses.shape
        patched = poses.reshape(batch, frames // self._patch_size_t, self._patch_size_t, dim).mean(dim=2)
        return embedded[:, None] + torch.cat([poses.mean(dim=1, keepdim=True), patched], dim=1)


class FrameLayerNormZero(CogVideoXLayerNormZero):  # type: ignore[misc]
    """A block's adaptive norm that takes one embedding a latent frame as well as one a clip."""

    def __init__(self, base: CogVideoXLayerNormZero) -> None:
        nn.Module.__init__(self)
        self.silu, self.linear, self.norm = base.silu, base.linear, base.norm

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Norm and modulate video [B, tokens, C] and text; returns both and their gates."""
        if temb.ndim == 2:
            whole: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] = super().forward(
                hidden_states, encoder_hidden_states, temb
            )
            return whole
        modulation = self.linear(self.silu(temb))
        shift, scale, gate, *_ = modulation[:, 1:].chunk(6, dim=-1)
        *_, text_shift, text_scale, text_gate = modulation[:, :1].chunk(6, dim=-1)
        video = _modulate_frames(self.norm(hidden_states), scale, shift)
        text = self.norm(encoder_hidden_states) * (1 + text_scale) + text_shift
        tokens = hidden_states.shape[1] // gate.shape[1]
        return video, text, gate.repeat_interleave(tokens, dim=1), text_gate


class FrameAdaLayerNorm(AdaLayerNorm):  # type: ignore[misc]
    """The last adaptive norm that takes one embedding a latent frame as well as one a clip."""

    def __init__(self, base: AdaLayerNorm) -> None:
        nn.Module.__init__(self)
        self.chunk_dim, self.emb = base.chunk_dim, base.emb
        self.silu, self.linear, self.norm = base.silu, base.linear, base.norm

    def forward(
        self, x: torch.Tensor, timestep: torch.Tensor | None = None, temb: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Norm and modulate video tokens [B, tokens, C]."""
        if temb is None or temb.ndim == 2:
            whole: torch.Tensor = super().forward(x, timestep, temb)
            return whole
        shift, scale = self.linear(self.silu(temb[:, 1:])).chunk(2, dim=-1)
        return _modulate_frames(self.norm(x), scale, shift)


def add_pose_embedding(
    transformer: CogVideoXTransformer3DModel, family: ModelFamily, *, per_frame: bool, seed: int
) -> None:
    """Let a transformer take hand poses, in place; nothing is done when it does already.

    Args:
        transformer: network.
        family: its family.
        per_frame: one embedding a latent frame, instead of one a clip.
        seed: seed of the new weights.
    """
    base = transformer.time_embedding
    if isinstance(base, PosedTimeEmbedding):
        return
    weight = base.linear_2.weight
    with torch.random.fork_rng(devices=[]), torch.device(weight.device):
        torch.manual_seed(seed)
        encoder = (FramePoseEncoder if per_frame else GlobalPoseEncoder)(weight.shape[0])
    pose = encoder.to(weight.dtype).requires_grad_(weight.requires_grad)
    transformer.time_embedding = PosedTimeEmbedding(base, pose, family.patch_size_t or 1)
    if per_frame:
        for block in transformer.transformer_blocks:
            block.norm1, block.norm2 = FrameLayerNormZero(block.norm1), FrameLayerNormZero(block.norm2)
        transformer.norm_out = FrameAdaLayerNorm(transformer.norm_out)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """A layer whose weights are zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _modulate_frames(normed: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Scale and shift tokens [B, F * n, C], ordered by frame, by one value [B, F, C] a frame."""
    batch, count, dim = scale.shape
    frames = normed.reshape(batch, count, -1, dim)
    return (frames * (1 + scale[:, :, None]) + shift[:, :, None]).flatten(1, 2)
