"""The last block of a CogVideoX transformer without the text that leaves it, which nothing reads.

The network's output is made of the video tokens alone. diffusers runs the last feed-forward layer and the last norms
over the text tokens all the same: a tenth of a small network's step, and nothing to be seen at 17,550 video tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import nn

from dwm_model.control_branch import ControlledBlock, UncontrolledBlock

if TYPE_CHECKING:
    import torch
    from diffusers import CogVideoXTransformer3DModel

    from dwm_model.families import RotaryEmbedding


class LastBlock(CogVideoXBlock):  # type: ignore[misc]
    """A block that hands its text on as it came; it holds the weights of the block it replaces."""

    def __init__(self, base: CogVideoXBlock) -> None:
        nn.Module.__init__(self)
        self.norm1, self.attn1, self.norm2, self.ff = base.norm1, base.attn1, base.norm2, base.ff

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        image_rotary_emb: RotaryEmbedding | None = None,
        attention_kwargs: dict[str, Any] | None = None,  # noqa: ARG002 - of the blocks before it
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the block on video tokens [B, tokens, C] and text [B, L, C]."""
        video, text, gate, _ = self.norm1(hidden_states, encoder_hidden_states, temb)
        attended, _ = self.attn1(video, encoder_hidden_states=text, image_rotary_emb=image_rotary_emb)
        hidden_states = hidden_states + gate * attended
        video, _, gate, _ = self.norm2(hidden_states, encoder_hidden_states, temb)
        return hidden_states + gate * self.ff(video), encoder_hidden_states


def leave_last_text_out(transformer: CogVideoXTransformer3DModel) -> None:
    """Replace the last block, in place, where nothing but the network follows it; doing it again changes nothing."""
    last = transformer.transformer_blocks[-1]
    takes_residual = isinstance(last, ControlledBlock) and not isinstance(last, UncontrolledBlock)
    if not takes_residual:
        transformer.transformer_blocks[-1] = LastBlock(last)
