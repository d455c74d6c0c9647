"""Families of base models: what differs between CogVideoX-Fun V1.1 and V1.5, in one place.

The family is read from the base's own ``transformer/config.json`` (paper section 3.2 and Appendix A name the bases).
Tensors are written B (batch), F (latent frames), C (channels), H and W (latent rows and columns).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch
    from diffusers import CogVideoXTransformer3DModel

LATENT_CHANNELS = 16
"""Channels of a CogVideoX latent."""

BASE_CHANNELS = 33
"""Input channels of a Fun-InP base: 16 noisy latent, 1 mask, 16 masked-video latent."""

WIDENED_CHANNELS = 49
"""Input channels with a hand latent: 16 noisy, 1 mask, 16 static scene, 16 hands."""

RotaryEmbedding = tuple["torch.Tensor", "torch.Tensor"]
"""Cosines and sines of the rotary position embedding, each [tokens, head_dim]."""


@dataclass(frozen=True)
class ModelFamily:
    """How a family patches latents and gives them positions.

    Attributes:
        name: ``fun_v1_1`` or ``fun_v1_5``.
        patch_size_t: latent frames a patch spans; None where a patch lies within one frame (V1.1).
    """

    name: str
    patch_size_t: int | None

    def padded_frames(self, latent_frames: int) -> int:
        """Latent frames that the transformer is given for a clip of ``latent_frames``: V1.5 needs an even count."""
        step = self.patch_size_t or 1
        return -(-latent_frames // step) * step

    def rotary_embedding(
        self, transformer: CogVideoXTransformer3DModel, latent_height: int, latent_width: int, latent_frames: int
    ) -> RotaryEmbedding | None:
        """Rotary position embedding of a clip as diffusers' CogVideoX pipelines make it.

        V1.1 scales the grid into a centred region of the grid that the base was trained on; V1.5 takes the first rows
        and columns of that grid. Returns None for a base without rotary embeddings.
        """
        from diffusers.models.embeddings import get_3d_rotary_pos_embed
        from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

        config = transformer.config
        if not config.use_rotary_positional_embeddings:
            return None
        grid = (latent_height // config.patch_size, latent_width // config.patch_size)
        trained = (config.sample_height // config.patch_size, config.sample_width // config.patch_size)
        frames = self.padded_frames(latent_frames) // (self.patch_size_t or 1)
        common = {
            "embed_dim": config.attention_head_dim,
            "grid_size": grid,
            "temporal_size": frames,
            "device": transformer.device,
        }
        if self.patch_size_t is None:
            region = get_resize_crop_region_for_grid(grid, trained[1], trained[0])
            cosines, sines = get_3d_rotary_pos_embed(crops_coords=region, **common)
        else:
            cosines, sines = get_3d_rotary_pos_embed(crops_coords=None, grid_type="slice", max_size=trained, **common)
        return cosines, sines

    def predict(
        self,
        transformer: CogVideoXTransformer3DModel,
        network_input_bfchw: torch.Tensor,
        text_bld: torch.Tensor,
        timesteps_b: torch.Tensor,
        rotary: RotaryEmbedding | None,
    ) -> torch.Tensor:
        """Run the transformer on latents of any frame count.

        Where the family needs an even count, the last frame is repeated for the network and its output is dropped, so
        that neither training nor sampling ever sees the pad.

        Args:
            transformer: the network.
            network_input_bfchw: noisy latent, mask and conditions, [B, F, C, H, W].
            text_bld: prompt embeddings, [B, tokens, dim].
            timesteps_b: training timesteps, [B].
            rotary: from `rotary_embedding` for the same size; None for a base without it.

        Returns:
            The predicted velocity, [B, F, 16, H, W].
        """
        import torch

        frames = network_input_bfchw.shape[1]
        missing = self.padded_frames(frames) - frames
        if missing:
            pad = network_input_bfchw[:, -1:].expand(-1, missing, -1, -1, -1)
            network_input_bfchw = torch.cat([network_input_bfchw, pad], dim=1)
        output: torch.Tensor = transformer(
            hidden_states=network_input_bfchw,
            encoder_hidden_states=text_bld,
            timestep=timesteps_b,
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
        return output[:, :frames]


FAMILIES: dict[str, ModelFamily] = {
    family.name: family
    for family in (ModelFamily(name="fun_v1_1", patch_size_t=None), ModelFamily(name="fun_v1_5", patch_size_t=2))
}
"""The families, by name."""


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of a base model's folder.

    Raises:
        DwmError: the file is absent or is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DwmError(f"{path}: not found; the base model must be a folder in the diffusers layout") from error
    except (OSError, ValueError) as error:
        raise DwmError(f"{path}: not readable as JSON ({error}); copy the base model again") from error
    if not isinstance(value, dict):
        raise DwmError(f"{path}: holds a {type(value).__name__}, not a JSON object; copy the base model again")
    return value


def detect_family(config_path: Path) -> ModelFamily:
    """Family of the transformer whose ``config.json`` is given.

    Raises:
        DwmError: the file is absent, or its channel count or patch size belongs to no known family.
    """
    config = read_json_object(config_path)
    channels = config.get("in_channels")
    if channels not in (BASE_CHANNELS, WIDENED_CHANNELS):
        raise DwmError(
            f"{config_path}: in_channels is {channels}; an inpainting base has {BASE_CHANNELS} "
            f"({WIDENED_CHANNELS} once widened): use a CogVideoX-Fun InP model"
        )
    patch_size_t = config.get("patch_size_t")
    for family in FAMILIES.values():
        if family.patch_size_t == patch_size_t:
            return family
    raise DwmError(f"{config_path}: patch_size_t is {patch_size_t}; known are null (fun_v1_1) and 2 (fun_v1_5)")
