"""The small base as a whole: its transformer, and the folder in which it ships."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_folder import BaseParts, write_base_folder
from dwm_model.base_model import hide_progress_bars
from dwm_model.families import BASE_CHANNELS, LATENT_CHANNELS
from dwm_model.latent_shards import VideoRole
from dwm_model.mini.text_encoder import TEXT_TOKENS, TrainedText
from dwm_model.mini.videos import VideoSet
from dwm_model.small_transformer import small_transformer
from manifests.errors import DwmError

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel

BaseKind = Literal["inpainting", "image_to_video"]
"""What a base is trained for: an inpainting base has a mask channel, an image-to-video base (Appendix D) has none."""

_INPUT_CHANNELS: dict[BaseKind, int] = {"inpainting": BASE_CHANNELS, "image_to_video": 2 * LATENT_CHANNELS}


class TransformerSettings(BaseModel):
    """Size of the small transformer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(default=6, description="Blocks.", gt=0)
    heads: int = Field(default=4, description="Attention heads of 64 channels each.", gt=0)
    time_width: int = Field(default=64, description="Width of the timestep embedding.", gt=0)
    seed: int = Field(default=0, description="Seed of the weights.")


def make_mini_transformer(
    settings: TransformerSettings, text_width: int, kind: BaseKind = "inpainting"
) -> CogVideoXTransformer3DModel:
    """An untrained transformer of the family ``fun_v1_1``, in float32."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return small_transformer(
            layers=settings.layers,
            heads=settings.heads,
            time_width=settings.time_width,
            text_width=text_width,
            text_tokens=TEXT_TOKENS,
            in_channels=_INPUT_CHANNELS[kind],
        )


def scaling_factor_of(vae: AutoencoderKLCogVideoX, videos: VideoSet, limit: int = 64) -> float:
    """What makes the latents of interaction videos have unit variance, of evenly spread clips, to three digits."""
    import torch

    crops = videos.whole(VideoRole.INTERACTION, limit)
    with torch.inference_mode():
        latents = torch.cat([vae.encode(videos.batch([crop])).latent_dist.mean for crop in crops])
    return round(1.0 / float(latents.std()), 3)


def write_mini_base(
    folder: Path,
    transformer: CogVideoXTransformer3DModel,
    vae: AutoencoderKLCogVideoX,
    text: TrainedText,
    note: dict[str, Any],
) -> None:
    """Write the parts in float16; those that are given are left as they are.

    Raises:
        DwmError: the folder cannot be written.
    """
    parts = BaseParts(
        transformer=copy.deepcopy(transformer).half(),
        vae=copy.deepcopy(vae).half(),
        text_encoder=copy.deepcopy(text.encoder).half(),
        tokenizer=text.tokenizer,
    )
    write_base_folder(folder, parts, note)


def read_parts(folder: Path) -> tuple[AutoencoderKLCogVideoX, TrainedText]:
    """Autoencoder and text encoder of a folder in the diffusers layout, which need not hold a transformer.

    Raises:
        DwmError: a part is missing or damaged.
    """
    from diffusers import AutoencoderKLCogVideoX
    from transformers import T5EncoderModel, T5Tokenizer

    hide_progress_bars()
    try:
        vae = AutoencoderKLCogVideoX.from_pretrained(folder / "vae", local_files_only=True)
        encoder = T5EncoderModel.from_pretrained(folder / "text_encoder", local_files_only=True)
        tokenizer = T5Tokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise DwmError(
            f"{folder}: needs vae, text_encoder and tokenizer of a base ({reason}); copy them again"
        ) from error
    return vae.float().eval(), TrainedText(encoder.float().eval(), tokenizer)
