"""Families of base models: what differs between CogVideoX-Fun V1.1, V1.5 and Wan2.1-Fun, in one place.

The family is read from the base's own ``transformer/config.json`` (paper section 3.2 and Appendix A name the bases).
Tensors are written B (batch), F (latent frames), C (channels), H and W (latent rows and columns).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dwm_model.input_channels import COGVIDEOX_SLOTS, WAN_SLOTS, InputSlots, slots_of
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch
    from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel

LATENT_CHANNELS = 16
"""Channels of a latent, of CogVideoX and of Wan."""

BASE_CHANNELS = 33
"""Input channels of a CogVideoX-Fun InP base: 16 noisy latent, 1 mask, 16 masked-video latent."""

WIDENED_CHANNELS = 49
"""Input channels with a hand latent: 16 noisy, 1 mask, 16 static scene, 16 hands."""

RotaryEmbedding = tuple["torch.Tensor", "torch.Tensor"]
"""Cosines and sines of the rotary position embedding, each [tokens, head_dim]."""

_OFFSET_OF_V1_5_I2V = 2.0
"""The constant that CogVideoX1.5 image-to-video pipelines feed to networks with an ``ofs`` embedding."""

_CLIP_TOKENS = 257
"""Tokens of the CLIP image embedding of Wan image-to-video networks; zeros stand for "no image"."""


@dataclass(frozen=True)
class NetworkExtras:
    """What a conditioning hands to a transformer beside the usual input.

    Attributes:
        poses_btd: hand poses that join the timestep embedding, [B, T, 104]; see `adaln`.
        residuals: what is added after each of the first blocks, [B, tokens, dim] each; see `control_branch`.
    """

    poses_btd: torch.Tensor | None = None
    residuals: tuple[torch.Tensor, ...] | None = None


NO_EXTRAS = NetworkExtras()
"""Nothing beside the usual input."""


class ModelFamily(Protocol):
    """How a family patches latents, gives them positions and takes its input."""

    @property
    def name(self) -> str:
        """Name in configurations and documents."""

    @property
    def patch_size_t(self) -> int | None:
        """Latent frames that a patch spans; None where a patch lies within one frame."""

    @property
    def slots(self) -> InputSlots:
        """What the input channels hold."""

    @property
    def projection_name(self) -> str:
        """Module path of the patch projection in the transformer."""

    @property
    def is_wan(self) -> bool:
        """Whether transformer, autoencoder and text encoder are Wan's, and noise is matched by flow."""

    def padded_frames(self, latent_frames: int) -> int:
        """Latent frames that the transformer is given for a clip of ``latent_frames``."""

    def pad(self, network_input_bfchw: torch.Tensor) -> torch.Tensor:
        """Repeat the last latent frame until the family can patch the clip, [B, padded F, C, H, W]."""

    def rotary_embedding(
        self, transformer: Any, latent_height: int, latent_width: int, latent_frames: int
    ) -> RotaryEmbedding | None:
        """Rotary position embedding of a clip; None where the transformer makes its own."""

    def predict(
        self,
        transformer: Any,
        network_input_bfchw: torch.Tensor,
        text_bld: torch.Tensor,
        timesteps_b: torch.Tensor,
        rotary: RotaryEmbedding | None,
        *,
        extras: NetworkExtras = NO_EXTRAS,
    ) -> torch.Tensor:
        """Run the transformer on latents of any frame count, [B, F, 16, H, W] from [B, F, C, H, W]."""


@dataclass(frozen=True)
class CogVideoXFamily:
    """CogVideoX-Fun, through diffusers' stock transformer.

    Attributes:
        name: ``fun_v1_1`` or ``fun_v1_5``.
        patch_size_t: latent frames a patch spans; None where a patch lies within one frame (V1.1).
    """

    name: str
    patch_size_t: int | None
    slots: InputSlots = COGVIDEOX_SLOTS
    projection_name: str = "patch_embed.proj"
    is_wan: bool = False

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

        Raises:
            DwmError: the clip is larger than a V1.5 base's grid.
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
        if self.patch_size_t is not None and (grid[0] > trained[0] or grid[1] > trained[1]):
            raise DwmError(
                f"latents of {latent_width}x{latent_height}: base of family {self.name} has positions up to "
                f"{config.sample_width}x{config.sample_height}; use a smaller profile"
            )
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
        *,
        extras: NetworkExtras = NO_EXTRAS,
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
            extras: what a conditioning adds beside the input channels.

        Returns:
            The predicted velocity, [B, F, 16, H, W].

        Raises:
            DwmError: the base has learned positions of another size (CogVideoX-5b-I2V).
        """
        _check_learned_positions(transformer, network_input_bfchw)
        frames = network_input_bfchw.shape[1]
        config = transformer.config
        offset = timesteps_b.new_full((len(timesteps_b),), _OFFSET_OF_V1_5_I2V) if config.ofs_embed_dim else None
        output: torch.Tensor = transformer(
            hidden_states=self.pad(network_input_bfchw),
            encoder_hidden_states=text_bld,
            timestep=timesteps_b,
            timestep_cond=extras.poses_btd,
            ofs=offset,
            image_rotary_emb=rotary,
            attention_kwargs=None if extras.residuals is None else {"control_residuals": extras.residuals},
            return_dict=False,
        )[0]
        return output[:, :frames]

    def pad(self, network_input_bfchw: torch.Tensor) -> torch.Tensor:
        """Repeat the last latent frame until the family can patch the clip, [B, padded F, C, H, W]."""
        import torch

        frames = network_input_bfchw.shape[1]
        missing = self.padded_frames(frames) - frames
        if not missing:
            return network_input_bfchw
        return torch.cat([network_input_bfchw, network_input_bfchw[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)


@dataclass(frozen=True)
class WanFamily:
    """Wan2.1-Fun InP through diffusers' Wan classes: Conv3d patches, own positions, flow matching."""

    name: str = "wan_fun_inp"
    patch_size_t: int | None = 1
    slots: InputSlots = WAN_SLOTS
    projection_name: str = "patch_embedding"
    is_wan: bool = True

    def padded_frames(self, latent_frames: int) -> int:
        """The same number: a Wan patch lies within one latent frame."""
        return latent_frames

    def pad(self, network_input_bfchw: torch.Tensor) -> torch.Tensor:
        """The input as it is."""
        return network_input_bfchw

    def rotary_embedding(
        self,
        transformer: WanTransformer3DModel,  # noqa: ARG002 - the protocol has them, Wan makes positions itself
        latent_height: int,  # noqa: ARG002
        latent_width: int,  # noqa: ARG002
        latent_frames: int,  # noqa: ARG002
    ) -> RotaryEmbedding | None:
        """None: the transformer makes its own."""
        return None

    def predict(
        self,
        transformer: WanTransformer3DModel,
        network_input_bfchw: torch.Tensor,
        text_bld: torch.Tensor,
        timesteps_b: torch.Tensor,
        rotary: RotaryEmbedding | None,  # noqa: ARG002
        *,
        extras: NetworkExtras = NO_EXTRAS,
    ) -> torch.Tensor:
        """Run the transformer, [B, F, 16, H, W] from [B, F, C, H, W].

        A network with a CLIP image embedding is given zeros, as VideoX-Fun does where there is no reference image (its
        training drops the image one time in ten).

        Raises:
            DwmError: the conditioning adds something that Wan's transformer cannot take.
        """
        if extras.poses_btd is not None or extras.residuals is not None:
            raise DwmError(f"family {self.name}: takes hands through its input channels only")
        config = transformer.config
        image = None
        if config.image_dim is not None:
            image = text_bld.new_zeros(len(text_bld), _CLIP_TOKENS, config.image_dim)
        output: torch.Tensor = transformer(
            hidden_states=network_input_bfchw.transpose(1, 2),
            timestep=timesteps_b,
            encoder_hidden_states=text_bld,
            encoder_hidden_states_image=image,
            return_dict=False,
        )[0]
        return output.transpose(1, 2)


FUN_V1_1 = CogVideoXFamily(name="fun_v1_1", patch_size_t=None)
FUN_V1_5 = CogVideoXFamily(name="fun_v1_5", patch_size_t=2)
WAN_FUN_INP = WanFamily()

FAMILIES: dict[str, ModelFamily] = {family.name: family for family in (FUN_V1_1, FUN_V1_5, WAN_FUN_INP)}
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
        DwmError: the file is absent, or its class, channel count or patch size belongs to no known family.
    """
    config = read_json_object(config_path)
    family = _family_of_class(config, config_path)
    slots_of(family.slots, config.get("in_channels"), config_path)
    return family


def _family_of_class(config: dict[str, Any], config_path: Path) -> ModelFamily:
    if config.get("_class_name") == "WanTransformer3DModel":
        if list(config.get("patch_size", (1, 2, 2))) != [1, 2, 2]:
            raise DwmError(f"{config_path}: patch_size is {config['patch_size']}; wan_fun_inp has [1, 2, 2]")
        return WAN_FUN_INP
    patch_size_t = config.get("patch_size_t")
    for family in (FUN_V1_1, FUN_V1_5):
        if family.patch_size_t == patch_size_t:
            return family
    raise DwmError(f"{config_path}: patch_size_t is {patch_size_t}; known are null (fun_v1_1) and 2 (fun_v1_5)")


def _check_learned_positions(transformer: CogVideoXTransformer3DModel, network_input_bfchw: torch.Tensor) -> None:
    config, (height, width) = transformer.config, network_input_bfchw.shape[-2:]
    if config.use_learned_positional_embeddings and (height, width) != (config.sample_height, config.sample_width):
        raise DwmError(
            f"base with learned positions: its latents are {config.sample_width}x{config.sample_height}, not "
            f"{width}x{height}; use the profile of that size, or another base"
        )
