"""A tiny base model with random weights, made on the spot: it exercises every path and shows nothing.

It has the layout and the parts of a CogVideoX-Fun V1.1 InP model (33 input channels, x4/x8 video autoencoder with 16
latent channels, T5 encoder, velocity-predicting DDIM schedule), a few hundred thousand parameters, and no training.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from dwm_model.base_folder import BaseParts, write_base_folder
from dwm_model.base_model import NOTE_FILE
from dwm_model.families import LATENT_CHANNELS, read_json_object
from dwm_model.small_transformer import small_transformer
from dwm_model.spelling import COMMON_WORDS, END_TOKEN, PAD_TOKEN, make_tokenizer, vocabulary_of
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKLCogVideoX
    from transformers import T5EncoderModel

TEXT_TOKENS = 64
"""Length of a prompt embedding of the tiny base."""

_SCALING_FACTOR = 0.7
_POSTERIOR_DEVIATION = 0.05
_TEXT_DIM = 64


def make_tiny_base(folder: Path, seed: int = 0) -> Path:
    """Write a tiny random base model as a diffusers folder; the same seed gives the same bytes.

    The folder appears complete or not at all. Where it holds the tiny base of this seed already, nothing is done.
    The random autoencoder is calibrated on procedural clips so that training on its latents means something: see
    `_calibrated_vae`.

    Args:
        folder: the folder to make.
        seed: seed of the weights.

    Returns:
        ``folder``.

    Raises:
        DwmError: the folder holds something else, or cannot be written.
    """
    import torch

    folder = Path(folder)
    if folder.exists():
        note = read_json_object(folder / NOTE_FILE)
        if note.get("untrained") is True and note.get("seed") == seed:
            return folder
        raise DwmError(f"{folder}: holds another base model; remove it or choose another folder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = BaseParts(
            transformer=small_transformer(
                layers=4, heads=2, time_width=64, text_width=_TEXT_DIM, text_tokens=TEXT_TOKENS
            ),
            vae=_calibrated_vae(),
            text_encoder=_text_encoder(),
            tokenizer=make_tokenizer(COMMON_WORDS.split()),
        )
    write_base_folder(
        folder,
        parts,
        {
            "untrained": True,
            "seed": seed,
            "description": "Tiny base with random weights, for trying the pipeline out; its videos are no results.",
            "licence": "CC0-1.0",
        },
    )
    return folder


def _text_encoder() -> T5EncoderModel:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(vocabulary_of(COMMON_WORDS.split())),
        d_model=_TEXT_DIM,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=PAD_TOKEN,
        eos_token_id=END_TOKEN,
    )
    return T5EncoderModel(config)


def _calibrated_vae() -> AutoencoderKLCogVideoX:
    """Random autoencoder made to behave by hand and by statistics of procedural clips; nothing is trained.

    - The encoder's kernels are made local and its side branches weak, so that latents are random mixtures of the mean
      colours of 8x8 pixels: as smooth as true latents, and differences between pixels survive.
    - Each latent channel has mean 0 and standard deviation ``1 / scaling_factor`` over the clips, so that scaled
      latents have unit variance. The scaling factor is that of the 5B models. The posterior's own deviation is small.
    - The decoder reads local colours from latents by least squares: decoded videos are mosaics in false
      colours.

    Statistics are rounded before they are used, so that the order of sums does not show in the bytes.
    """
    import torch
    from diffusers import AutoencoderKLCogVideoX

    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 16, 16, 24),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=4,
        temporal_compression_ratio=4,
        sample_height=64,
        sample_width=96,
        scaling_factor=_SCALING_FACTOR,
    ).eval()
    with torch.no_grad():
        clips = _procedural_clips()
        _localise_encoder(vae)
        _calibrate_encoder(vae, clips)
        _calibrate_decoder(vae, clips)
    return vae


def _localise_encoder(vae: AutoencoderKLCogVideoX) -> None:
    """Let each latent cell see its own 8x8 pixels: kernels keep their middle, strided ones average 2x2 pixels.

    The second layer of each side branch is weakened, and biases go.
    """
    import torch
    from torch import nn

    for name, module in vae.encoder.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d):
            continue
        kept = torch.zeros_like(module.weight)
        if module.stride[-1] == 2:
            kept[..., :2, :2] = module.weight.mean(dim=(-2, -1), keepdim=True)
        else:
            middle = module.kernel_size[-1] // 2
            kept[..., middle, middle] = module.weight[..., middle, middle]
        module.weight.copy_(kept * (0.1 if ".conv2." in name else 1.0))
        if module.bias is not None:
            module.bias.zero_()


def _procedural_clips(count: int = 4, frames: int = 17, height: int = 64, width: int = 96) -> torch.Tensor:
    """Smooth coloured backgrounds with a rectangle that moves across, [count, 3, frames, height, width] in [-1, 1]."""
    import torch
    from torch.nn import functional

    coarse = torch.randn(count, 3, 6, 9)
    background = functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    clips = (0.6 * background).clamp(-1, 1)[:, :, None].repeat(1, 1, frames, 1, 1)
    colours = torch.rand(count, 3) * 2 - 1
    for clip, colour in zip(clips, colours, strict=True):
        for frame in range(frames):
            left = frame * (width - 24) // frames
            clip[:, frame, 20:44, left : left + 24] = colour[:, None, None]
    return clips


def _calibrate_encoder(vae: AutoencoderKLCogVideoX, clips: torch.Tensor) -> None:
    """Set mean 0 and deviation ``1 / scaling_factor`` a latent channel, and a constant log-variance."""
    last = vae.encoder.conv_out.conv
    last.weight[LATENT_CHANNELS:] = 0.0
    last.bias[LATENT_CHANNELS:] = round(2.0 * math.log(_POSTERIOR_DEVIATION / _SCALING_FACTOR), 3)
    mean_bcfhw = vae.encode(clips).latent_dist.mean
    centre = mean_bcfhw.mean(dim=(0, 2, 3, 4))
    gain = (1.0 / (_SCALING_FACTOR * mean_bcfhw.std(dim=(0, 2, 3, 4)))).round(decimals=2)
    last.weight[:LATENT_CHANNELS] *= gain[:, None, None, None, None]
    last.bias[:LATENT_CHANNELS] = ((last.bias[:LATENT_CHANNELS] - centre) * gain).round(decimals=3)


def _calibrate_decoder(vae: AutoencoderKLCogVideoX, clips: torch.Tensor) -> None:
    """Make the last two layers read colours: the spatial norm hands the latent on, the last kernel adds it up.

    The activation between them is x * sigmoid(x), and x * sigmoid(x) - (-x) * sigmoid(-x) = x: each colour goes through
    it with both signs.
    """
    import torch
    from torch.nn import functional

    latents = vae.encode(clips).latent_dist.mean
    cells = functional.avg_pool3d(clips[:, :, 1:], (4, 8, 8))
    first = functional.avg_pool3d(clips[:, :, :1], (1, 8, 8))
    colours = torch.cat([first, cells], dim=2).movedim(1, -1).flatten(0, -2).double()
    inputs = functional.pad(latents.movedim(1, -1).flatten(0, -2).double(), (0, 1), value=1.0)
    ridge = 1e-3 * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ colours).float().round(decimals=3)
    norm, last = vae.decoder.norm_out, vae.decoder.conv_out.conv
    for parameter in (*norm.conv_y.parameters(), *norm.conv_b.parameters(), *last.parameters()):
        parameter.zero_()
    for colour in range(3):
        for unit, sign in ((colour, 1.0), (3 + colour, -1.0)):
            norm.conv_b.conv.weight[unit, :, 0, 0, 0] = sign * solution[:-1, colour]
            last.weight[colour, unit, -1, 1, 1] = sign
    last.bias.copy_(solution[-1])
