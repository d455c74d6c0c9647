"""Tiles in which an autoencoder works to need less memory, of sizes that fit together."""

from __future__ import annotations

from typing import Any

_STEPS = (6, 5)
"""Latent cells whose multiples a CogVideoX tile may be high and wide: overlaps are a sixth and a fifth of it."""


def enable_tiles(vae: Any, spatial_ratio: int, *, is_wan: bool) -> None:
    """Let an autoencoder work in overlapping tiles.

    Diffusers' CogVideoX tiles are half the size that the autoencoder was trained at, and overlap by a sixth of their
    height and a fifth of their width. Where these are no whole latent cells the tiles do not fit together, and latents
    or pixels come out too many; so the tile is enlarged until they are. At 720x480 nothing changes (360x240).

    Args:
        vae: diffusers' ``AutoencoderKLCogVideoX`` or ``AutoencoderKLWan``; changed in place.
        spatial_ratio: pixels a latent cell is wide and high.
        is_wan: Wan's tiles have fixed sizes that fit.
    """
    if is_wan:
        vae.enable_tiling()
        return
    sizes = (vae.tile_sample_min_height, vae.tile_sample_min_width)
    height, width = (
        -(-size // (spatial_ratio * step)) * spatial_ratio * step for size, step in zip(sizes, _STEPS, strict=True)
    )
    vae.enable_tiling(tile_sample_min_height=height, tile_sample_min_width=width)
