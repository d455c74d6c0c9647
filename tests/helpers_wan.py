"""A tiny random Wan2.1-Fun InP base in the diffusers layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

TEXT_DIM = 32


def make_tiny_wan_base(folder: Path, *, image_dim: int | None = None) -> Path:
    """36 input channels, x4/x8 autoencoder with a mean and deviation a channel, UMT5, flow shift 5.

    Args:
        folder: the folder to make.
        image_dim: width of a CLIP image embedding, which published Fun InP networks take; None without.
    """
    torch.manual_seed(0)
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    vocabulary += [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,"]
    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": TEXT_DIM, "freq_dim": 16}
    image = {} if image_dim is None else {"image_dim": image_dim, "added_kv_proj_dim": 24}
    transformer = WanTransformer3DModel(in_channels=36, ffn_dim=32, num_layers=2, **sizes, **image)
    vae = AutoencoderKLWan(
        base_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1 * channel for channel in range(16)],
        latents_std=[1.0 + 0.1 * channel for channel in range(16)],
    )
    encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=len(vocabulary), d_model=TEXT_DIM, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    parts = {"transformer": transformer, "vae": vae, "text_encoder": encoder, "scheduler": scheduler}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(folder / "tokenizer")
    (folder / "dwm_base.json").write_text(json.dumps({"untrained": True}))
    return folder
