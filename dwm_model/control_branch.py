"""A control branch: hand silhouettes through a copy of the first blocks (InterDyn's way, a baseline of the paper).

The copy sees the network's own input and the hand-mask latent in 16 more channels; what each of its blocks gives goes
through a projection that starts at zero and is added after the block that it was copied from, as ControlNet does. The
network therefore begins as the base.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import nn
from torch.utils.checkpoint import checkpoint

from dwm_model.adaln import zeroed
from dwm_model.input_channels import INPAINTING, WITH_HANDS, rearranged_projection

if TYPE_CHECKING:
    from diffusers import CogVideoXTransformer3DModel

    from dwm_model.families import ModelFamily, RotaryEmbedding

CONTROL_PREFIX = "control_branch."
"""Parameters that the control branch adds to a transformer."""

MAX_CONTROL_BLOCKS = 8
"""Copied blocks of a large base; small ones copy half of theirs."""


class ControlBranch(nn.Module):
    """Copies of patch embedding, timestep embedding and the first blocks, with projections that start at zero."""

    def __init__(self, transformer: CogVideoXTransformer3DModel, family: ModelFamily, num_blocks: int) -> None:
        super().__init__()
        self.patch_embed = copy.deepcopy(transformer.patch_embed)
        self.patch_embed.proj = rearranged_projection(self.patch_embed.proj, family.slots, INPAINTING, WITH_HANDS)
        self.time_embedding = copy.deepcopy(transformer.time_embedding)
        self.blocks = nn.ModuleList(copy.deepcopy(block) for block in transformer.transformer_blocks[:num_blocks])
        weight = transformer.proj_out.weight
        dim = weight.shape[1]
        self.outputs = nn.ModuleList(
            zeroed(nn.Linear(dim, dim, device=weight.device, dtype=weight.dtype)) for _ in range(num_blocks)
        )

    def forward(
        self,
        network_input_bfchw: torch.Tensor,
        text_bld: torch.Tensor,
        sinusoids_bd: torch.Tensor,
        rotary: RotaryEmbedding | None,
        *,
        recompute: bool,
    ) -> tuple[torch.Tensor, ...]:
        """What is added after each of the first blocks, [B, tokens, dim] each.

        Args:
            network_input_bfchw: noisy | mask | static | hand mask, a frame count that the family can patch.
            text_bld: prompt embeddings.
            sinusoids_bd: sinusoids of the timesteps.
            rotary: rotary position embedding.
            recompute: recompute activations in the backward pass.
        """
        embedding = self.time_embedding(sinusoids_bd)
        tokens = self.patch_embed(text_bld, network_input_bfchw)
        text, video = tokens[:, : text_bld.shape[1]], tokens[:, text_bld.shape[1] :]
        residuals = []
        for block, output in zip(self.blocks, self.outputs, strict=True):
            if recompute and torch.is_grad_enabled():
                video, text = checkpoint(block, video, text, embedding, rotary, use_reentrant=False)
            else:
                video, text = block(video, text, embedding, rotary)
            residuals.append(output(video))
        return tuple(residuals)


class ControlledBlock(CogVideoXBlock):  # type: ignore[misc]
    """A block after which the control branch's residual is added; it holds the weights of the block it replaces."""

    def __init__(self, base: CogVideoXBlock, index: int) -> None:
        nn.Module.__init__(self)
        self.norm1, self.attn1, self.norm2, self.ff = base.norm1, base.attn1, base.norm2, base.ff
        self._index = index

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        image_rotary_emb: RotaryEmbedding | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the block and add the residual handed over in ``attention_kwargs``, the way that reaches blocks."""
        residuals = (attention_kwargs or {}).get("control_residuals")
        video, text = super().forward(hidden_states, encoder_hidden_states, temb, image_rotary_emb)
        return (video if residuals is None else video + residuals[self._index]), text


class UncontrolledBlock(ControlledBlock):
    """A block past the control branch: it takes no residual."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        image_rotary_emb: RotaryEmbedding | None = None,
        attention_kwargs: dict[str, Any] | None = None,  # noqa: ARG002 - residuals of the blocks before it
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the block."""
        return super().forward(hidden_states, encoder_hidden_states, temb, image_rotary_emb)


def add_control_branch(transformer: CogVideoXTransformer3DModel, family: ModelFamily) -> None:
    """Give a transformer of inpainting layout a control branch, in place; nothing is done when it has one."""
    if hasattr(transformer, "control_branch"):
        return
    count = max(1, min(MAX_CONTROL_BLOCKS, len(transformer.transformer_blocks) // 2))
    branch = ControlBranch(transformer, family, count)
    transformer.control_branch = branch.requires_grad_(transformer.proj_out.weight.requires_grad)
    for index, block in enumerate(transformer.transformer_blocks):
        kind = ControlledBlock if index < count else UncontrolledBlock
        transformer.transformer_blocks[index] = kind(block, index)
