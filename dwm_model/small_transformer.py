"""The transformer of the bases that this project makes itself: CogVideoX's of the family ``fun_v1_1``, small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwm_model.families import BASE_CHANNELS, LATENT_CHANNELS

if TYPE_CHECKING:
    from diffusers import CogVideoXTransformer3DModel


def small_transformer(
    *,
    layers: int,
    heads: int,
    time_width: int,
    text_width: int,
    text_tokens: int,
    in_channels: int = BASE_CHANNELS,
) -> CogVideoXTransformer3DModel:
    """An untrained transformer for latents of profile ``mini``, in float32, drawn from torch's own generator.

    Args:
        layers: blocks.
        heads: attention heads of 64 channels each.
        time_width: width of the timestep embedding.
        text_width: width of a prompt embedding.
        text_tokens: length of a prompt embedding.
        in_channels: input channels; an inpainting base's unless given.
    """
    from diffusers import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=64,
        in_channels=in_channels,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=time_width,
        text_embed_dim=text_width,
        num_layers=layers,
        sample_width=12,
        sample_height=8,
        sample_frames=17,
        patch_size=2,
        patch_size_t=None,
        max_text_seq_length=text_tokens,
        use_rotary_positional_embeddings=True,
    )
