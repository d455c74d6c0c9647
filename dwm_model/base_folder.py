"""Write a base model of the CogVideoX kind as a folder in the diffusers layout, whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwm_model.base_model import NOTE_FILE, hide_progress_bars
from dwm_model.families import read_json_object
from dwm_model.safe_writes import safetensors_errors_as_os_errors
from manifests.atomic import atomic_folder

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
    from transformers import PreTrainedTokenizerBase, T5EncoderModel


@dataclass(frozen=True)
class BaseParts:
    """The parts of a base model."""

    transformer: CogVideoXTransformer3DModel
    vae: AutoencoderKLCogVideoX
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerBase


def write_base_folder(folder: Path, parts: BaseParts, note: dict[str, Any]) -> None:
    """Write a base model; the same parts give the same bytes.

    Args:
        folder: the folder to make.
        parts: the parts, stored in the types that their weights have.
        note: content of the note beside the index: ``untrained``, ``description``, ``licence`` and more.

    Raises:
        DwmError: it cannot be written.
    """
    hide_progress_bars()
    with atomic_folder(folder) as temporary, safetensors_errors_as_os_errors():
        parts.transformer.save_pretrained(temporary / "transformer")
        parts.vae.save_pretrained(temporary / "vae")
        parts.text_encoder.save_pretrained(temporary / "text_encoder")
        parts.tokenizer.save_pretrained(temporary / "tokenizer")
        velocity_scheduler().save_pretrained(temporary / "scheduler")
        for config in sorted(temporary.glob("*/config.json")):
            _forget_origin(config)
        _write_json(temporary / "model_index.json", _model_index())
        _write_json(temporary / NOTE_FILE, note)


def _forget_origin(config: Path) -> None:
    """Drop the path that a part was loaded from: it tells of this machine, and would change the base's hash."""
    settings = read_json_object(config)
    if settings.pop("_name_or_path", None) is not None:
        _write_json(config, settings)


def velocity_scheduler() -> CogVideoXDDIMScheduler:
    """The schedule of the 5B models: velocity prediction, zero terminal signal, trailing timesteps."""
    from diffusers import CogVideoXDDIMScheduler

    return CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def _model_index() -> dict[str, Any]:
    """The index by which diffusers finds the parts."""
    import diffusers

    return {
        "_class_name": "CogVideoXPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
