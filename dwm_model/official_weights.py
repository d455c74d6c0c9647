"""The two files in which users exchange trained weights, into a run's folder and out of it, and whole merged models.

Published weights (``byungjun-kim/DWM-CogVideoX-Fun-5b-LoRA``) are ``pytorch_lora_weights.safetensors`` and
``non_lora_weights.safetensors`` in one folder. Imported, they are a run that generates and is benchmarked like any
other; a run exports to the same two files, byte for byte where it was imported.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_model import NOTE_FILE, PART_FOLDERS, describe_base, load_base
from dwm_model.base_model import BaseModel as DiffusionBase
from dwm_model.checkpoints import RUN_FILE, RunIdentity, checkpoint_folder, load_weights, read_identity
from dwm_model.denoiser import make_denoiser
from dwm_model.geometry import ClipGeometry
from dwm_model.lora import (
    LORA_FILE,
    PROJECTION_FILE,
    LoraSettings,
    import_adapter,
    read_settings,
    settings_from_tensors,
)
from dwm_model.safe_writes import safetensors_errors_as_os_errors
from dwm_model.sampling import choose_checkpoint
from dwm_model.symbolic_step import SymbolicBase
from dwm_model.train_config import TrainConfig
from manifests.atomic import atomic_folder, copy_file, make_folder
from manifests.errors import DwmError, UsageError
from manifests.hashing import hash_file, short_id

logger = logging.getLogger(__name__)

IMPORTED_STEP = 0
"""Step of the checkpoint of imported weights: how long they were trained is not told."""

STOCK_CONDITIONINGS = ("hand_mesh", "hand_mask", "none")
"""Conditionings whose network is a stock diffusers transformer of another width, so that it can be merged."""


class ImportSummary(BaseModel):
    """What was imported."""

    model_config = ConfigDict(frozen=True)

    run: Path = Field(description="The run's folder.")
    run_id: str = Field(description="Hash of base, weights and settings.")
    conditioning: str = Field(description="How hands enter the network.")
    rank: int = Field(description="Rank of the adapter.")
    alpha: float = Field(description="Its alpha.")


def import_run(
    folder: Path,
    base_path: Path,
    run_folder: Path,
    geometry: ClipGeometry,
    *,
    conditioning: str = "hand_mesh",
    alpha: float | None = None,
) -> ImportSummary:
    """Make a run of exchanged weights, whose names and shapes are compared with the base's network first.

    Args:
        folder: folder with the two files.
        base_path: base that they were trained on.
        run_folder: folder of the run to make.
        geometry: size and length of the videos that the run makes.
        conditioning: how hands enter the network.
        alpha: LoRA's alpha, for a file that does not tell it; never assumed.

    Raises:
        DwmError: a file is missing, damaged, of another family, rank or conditioning, alpha is unknown or contradicts
            the file, or the run's folder exists.
    """
    import torch

    settings = _settings(folder, alpha)
    base = SymbolicBase(describe_base(base_path), "meta", torch.float32)
    geometry.check(base.description)
    with torch.device("meta"):
        import_adapter(make_denoiser(base, conditioning).transformer, folder, settings)
    hashes = [hash_file(folder / name) for name in (LORA_FILE, PROJECTION_FILE)]
    config = TrainConfig(geometry=geometry, conditioning=conditioning, lora=settings)
    identity = RunIdentity(
        run_id=short_id(base.base_hash, *hashes, config.model_dump_json()),
        base_name=base.name,
        base_hash=base.base_hash,
        base_is_untrained=base.is_untrained,
        dataset_hash="imported",
        config=config,
    )
    with atomic_folder(run_folder) as temporary:
        checkpoint = checkpoint_folder(temporary, IMPORTED_STEP)
        checkpoint.mkdir(parents=True)
        for name in (LORA_FILE, PROJECTION_FILE):
            shutil.copyfile(folder / name, checkpoint / name)
        (temporary / RUN_FILE).write_text(identity.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return ImportSummary(
        run=run_folder,
        run_id=identity.run_id,
        conditioning=conditioning,
        rank=settings.rank,
        alpha=settings.alpha,
    )


def export_lora(run_folder: Path, out: Path, step: int | None = None) -> Path:
    """Write a run's two exchanged files into a folder, byte for byte as its checkpoint has them.

    Args:
        run_folder: the run.
        out: folder to write; made when absent. Files of these names are overwritten.
        step: which checkpoint; the newest when None.

    Raises:
        DwmError: no such run or checkpoint, or the whole network was trained.
    """
    identity = read_identity(run_folder)
    if identity.config.mode != "lora":
        raise DwmError(f"{run_folder}: trained the whole network, there is no adapter; use `dwm export merged`")
    checkpoint = checkpoint_folder(run_folder, choose_checkpoint(run_folder, step))
    make_folder(out)
    for name in (LORA_FILE, PROJECTION_FILE):
        if not (checkpoint / name).is_file():
            raise DwmError(f"{checkpoint / name}: not found; the checkpoint is damaged, choose another with --step")
        copy_file(checkpoint / name, out / name)
    return out


def export_merged(
    run_folder: Path, base_path: Path, out: Path, step: int | None = None, dtype: str = "float32"
) -> Path:
    """Write a whole base model with a run's weights in it, which stock diffusers loads.

    ``transformer/`` has the widened input and the adapter merged into its weights; the other parts are the base's.

    Args:
        run_folder: the run.
        base_path: base that it was trained on.
        out: folder to make.
        step: which checkpoint; the newest when None.
        dtype: type of the written weights: float32, bfloat16 or float16; they are merged in float32.

    Raises:
        DwmError: no such run or checkpoint, another base, a conditioning whose modules stock diffusers does not have,
            or the folder exists or cannot be written.
    """
    import torch

    identity = read_identity(run_folder)
    config = identity.config
    if config.conditioning not in STOCK_CONDITIONINGS:
        raise DwmError(
            f"{run_folder}: conditioning {config.conditioning} adds modules that stock diffusers does not have; "
            f"only {', '.join(STOCK_CONDITIONINGS)} can be merged"
        )
    base = load_base(base_path)
    if base.base_hash != identity.base_hash:
        raise DwmError(f"{run_folder}: trained on base {identity.base_name}, not on {base.path}; give that base")
    denoiser = make_denoiser(base, config.conditioning)
    chosen = choose_checkpoint(run_folder, step)
    load_weights(run_folder, chosen, denoiser.transformer, config)
    transformer = denoiser.transformer.requires_grad_(requires_grad=False)
    if config.mode == "lora":
        transformer.fuse_lora()
        transformer.unload_lora()
    torch.nn.Module.to(transformer, getattr(torch, dtype))  # diffusers' own `to` warns of layers that it knows of none
    with atomic_folder(out) as temporary, safetensors_errors_as_os_errors():
        transformer.save_pretrained(temporary / "transformer")
        for part in PART_FOLDERS:
            if part != "transformer":
                shutil.copytree(base.path / part, temporary / part)
        _write_index(base, temporary, f"{base.name} with run {identity.run_id}, step {chosen}, merged")
    return out


def _settings(folder: Path, alpha: float | None) -> LoraSettings:
    if alpha is not None and alpha <= 0:
        raise UsageError(f"--alpha {alpha:g}: not above 0; published weights have 64")
    told = read_settings(folder)
    if told is None:
        if alpha is None:
            raise DwmError(f"{folder / LORA_FILE}: does not tell its alpha; give the one of its training with --alpha")
        return settings_from_tensors(folder, alpha)
    if alpha is not None and alpha != told.alpha:
        raise DwmError(f"{folder / LORA_FILE}: tells alpha {told.alpha:g}, not {alpha:g}; leave --alpha out")
    return told


def _write_index(base: DiffusionBase, folder: Path, description: str) -> None:
    """Copy or make the index by which diffusers finds the parts, and the note with what the base is."""
    index = base.path / "model_index.json"
    if index.exists():
        shutil.copyfile(index, folder / "model_index.json")
    else:
        logger.warning("%s: has no model_index.json; parts can be loaded one by one, not as a pipeline", base.path)
    note: dict[str, Any] = {"untrained": base.is_untrained, "description": description}
    (folder / NOTE_FILE).write_text(json.dumps(note, indent=2, sort_keys=True) + "\n", encoding="utf-8")
