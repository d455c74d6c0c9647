"""Making the small base as tasks: text encoder, autoencoder, the folder that encoding needs, the finished base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from pydantic import BaseModel, Field

from dwm_model.geometry import ClipGeometry
from dwm_model.mini.base import (
    BaseKind,
    TransformerSettings,
    make_mini_transformer,
    read_parts,
    scaling_factor_of,
    write_mini_base,
)
from dwm_model.mini.text_encoder import TextSettings, train_text_encoder
from dwm_model.mini.vae import VaeSettings
from dwm_model.mini.vae_training import reconstruction_psnr, train_stages
from dwm_model.mini.videos import read_videos
from manifests.dataset import Dataset
from manifests.schema import Split
from tasks.artifacts import show_table

PARTS_NOTE = "Autoencoder and text encoder of the small base with a transformer that has learned nothing yet."


class VaeProgress(BaseModel):
    """How far the autoencoder is."""

    step: int = Field(description="Optimizer steps done of the stage that was reached.")
    is_complete: bool = Field(description="Whether it was the last.")
    psnr_db: dict[str, float] = Field(
        default_factory=dict, description="Held-out PSNR by kind of video, of the linear yardstick as `pca_<kind>`."
    )


@task(name="train-mini-vae")
def train_mini_vae(
    dataset: Path, folder: Path, stages: Sequence[VaeSettings], geometry: ClipGeometry, seconds: float | None
) -> VaeProgress:
    """Train on a dataset's train split, from where the folder is, for so long at most."""
    opened = Dataset.open(dataset)
    cache = folder / "videos"
    videos = read_videos(opened, Split.TRAIN, geometry, cache)
    trainer = train_stages(stages, videos, folder, seconds)
    log = get_run_logger()
    log.info("autoencoder: step %d of %d in %s", trainer.step, trainer.settings.max_steps, trainer.folder.name)
    progress = VaeProgress(step=trainer.step, is_complete=trainer.is_complete)
    if trainer.step == trainer.began_at or not progress.is_complete:
        return progress
    held_out = read_videos(opened, Split.VALIDATION, geometry, cache)
    models: dict[str, Any] = {"": trainer.vae.eval(), "pca_": trainer.pca}
    psnr = {
        f"{prefix}{role.value}": round(reconstruction_psnr(model, held_out, role), 2)
        for prefix, model in models.items()
        for role in held_out.frames
    }
    show_table(
        "mini-vae", [{"videos": name, "PSNR dB": str(value)} for name, value in psnr.items()], "Held-out reconstruction"
    )
    return progress.model_copy(update={"psnr_db": psnr})


@task(name="write-mini-parts")
def write_mini_parts(
    dataset: Path,
    vae_folder: Path,
    folder: Path,
    *,
    vae_stages: Sequence[VaeSettings],
    text_settings: TextSettings,
    transformer_settings: TransformerSettings,
    geometry: ClipGeometry,
    kind: BaseKind,
) -> Path:
    """Write a base whose transformer has learned nothing: what encoding and training begin from; kept when there."""
    if folder.exists():
        return folder
    opened = Dataset.open(dataset)
    videos = read_videos(opened, Split.TRAIN, geometry, vae_folder / "videos")
    vae = train_stages(vae_stages, videos, vae_folder).vae.eval()
    vae.register_to_config(scaling_factor=scaling_factor_of(vae, videos))
    prompts = opened.clips.read(["prompt", "split"]).to_pylist()
    text = train_text_encoder([row["prompt"] for row in prompts if row["split"] == Split.TRAIN.value], text_settings)
    transformer = make_mini_transformer(transformer_settings, text_settings.width, kind)
    write_mini_base(folder, transformer, vae, text, {"untrained": True, "description": PARTS_NOTE})
    return folder


@task(name="borrow-mini-parts")
def borrow_mini_parts(source: Path, folder: Path, transformer_settings: TransformerSettings, kind: BaseKind) -> Path:
    """The same with the autoencoder and text encoder of another base, or of a folder that holds only them."""
    if folder.exists():
        return folder
    vae, text = read_parts(source)
    transformer = make_mini_transformer(transformer_settings, text.encoder.config.d_model, kind)
    write_mini_base(folder, transformer, vae, text, {"untrained": True, "description": PARTS_NOTE})
    return folder


@task(name="write-mini-base")
def write_finished_base(parts: Path, trained_transformer: Path, folder: Path, note: dict[str, Any]) -> Path:
    """Write the base with a trained transformer, a folder that diffusers loads; kept when there."""
    from diffusers import CogVideoXTransformer3DModel

    if folder.exists():
        return folder
    vae, text = read_parts(parts)
    transformer = CogVideoXTransformer3DModel.from_pretrained(trained_transformer, local_files_only=True)
    write_mini_base(folder, transformer, vae, text, note)
    return folder
