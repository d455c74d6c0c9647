"""Make the small base that ships: generated world -> autoencoder, text encoder -> latents -> inpainting transformer.

Each call works for a given time at most, then leaves checkpoints; the next call continues.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.checkpoints import AVERAGE_FOLDER, checkpoint_folder
from dwm_model.mini.base import BaseKind, TransformerSettings
from dwm_model.mini.curve import CURVE_KEY, curve_of
from dwm_model.mini.text_encoder import TextSettings
from dwm_model.mini.vae import VAE_STAGES, VaeSettings
from dwm_model.train_config import TrainConfig, profile_geometry
from dwm_model.training import TrainSummary
from dwm_model.weight_files import TRANSFORMER_FOLDER
from flows.build_generated import LICENCE, build_recordings
from flows.encode import EncodeParameters, encode
from manifests.hashing import code_version
from manifests.splits import SplitPolicy, SplitSettings
from sources.synthetic.world import plan_training_world
from tasks.building import split_dataset
from tasks.mini_base import (
    VaeProgress,
    borrow_mini_parts,
    train_mini_vae,
    write_finished_base,
    write_mini_parts,
)
from tasks.training import train_in_subprocess

RECORDINGS_A_TASK = 40
PROFILE = "mini"
CONDITIONING_OF: dict[BaseKind, str] = {"inpainting": "inpainting", "image_to_video": "first_frame"}
"""What trains each kind of base; see `dwm_model.base_conditioning`."""


def pretraining_config() -> TrainConfig:
    """How a small base is trained: all weights, an EMA of them, one cosine."""
    return TrainConfig(
        geometry=profile_geometry(PROFILE),
        conditioning=CONDITIONING_OF["inpainting"],
        mode="full",
        max_steps=5_200,
        precision="bfloat16",
        batch_size=16,
        accumulation_steps=1,
        learning_rate=1e-3,
        warmup_steps=300,
        prompt_dropout=0.1,
        gradient_checkpointing="none",
        ema_decay=0.999,
        divergence_ratio=None,
        checkpoint_every=500,
        keep_checkpoints=1,
        validate_every=500,
        num_validation_clips=32,
        num_validation_timesteps=4,
    )


class PretrainMiniParameters(BaseModel):
    """What to make, and how long to work on it now."""

    model_config = ConfigDict(extra="forbid")

    out: Path = Field(
        default=Path("out/mini"),
        description="Folder of everything that is made on the way; what is there is continued.",
    )
    base: Path = Field(default=Path("out/mini/base"), description="Where the finished base goes.")
    minutes: float | None = Field(default=75.0, description="Stop with checkpoints after this time.", gt=0)
    num_scenes: int = Field(default=320, description="Generated rooms.", gt=2)
    recordings_per_scene: int = Field(default=2, description="Recordings a room.", gt=0)
    workers: int = Field(default=2, description="Processes that draw.", gt=0)
    parts: Path | None = Field(
        default=None, description="Take autoencoder and text encoder from this base instead of training them."
    )
    kind: BaseKind = Field(default="inpainting", description="What the transformer learns; see `BaseKind`.")
    vae: tuple[VaeSettings, ...] = Field(
        default=VAE_STAGES, description="Autoencoder: stages of its training, all of one size.", min_length=1
    )
    text: TextSettings = Field(default_factory=TextSettings, description="Text encoder.")
    transformer: TransformerSettings = Field(default_factory=TransformerSettings, description="Transformer's size.")
    training: TrainConfig = Field(
        default_factory=pretraining_config, description="Transformer's training; its conditioning follows from `kind`."
    )


class PretrainMiniResult(BaseModel):
    """How far it is."""

    vae: VaeProgress | None = Field(default=None, description="The autoencoder; null where it was taken over.")
    training: TrainSummary | None = Field(default=None, description="The transformer; null before it begins.")
    base: Path | None = Field(default=None, description="The finished base; null until it is.")


@flow(name="pretrain-mini")
def pretrain_mini(parameters: PretrainMiniParameters) -> PretrainMiniResult:
    """Run every stage for as long as there is time; a stage that is finished is passed over."""
    began = time.monotonic()
    deadline = None if parameters.minutes is None else began + 60.0 * parameters.minutes
    out = parameters.out.resolve()
    world, parts, run = out / "world", out / "parts", out / "run"
    build_world(parameters, out / "raw", world)
    geometry, vae = parameters.training.geometry, None
    if parameters.parts is not None:
        borrow_mini_parts(parameters.parts, parts, parameters.transformer, parameters.kind)
    else:
        vae = train_mini_vae(world, out / "vae", parameters.vae, geometry, seconds_until(deadline))
        if not vae.is_complete:
            return PretrainMiniResult(vae=vae)
        write_mini_parts(
            world,
            out / "vae",
            parts,
            vae_stages=parameters.vae,
            text_settings=parameters.text,
            transformer_settings=parameters.transformer,
            geometry=geometry,
            kind=parameters.kind,
        )
    encode(EncodeParameters(dataset=world, base=parts, profile=PROFILE))
    training = parameters.training.model_copy(update={"conditioning": CONDITIONING_OF[parameters.kind]})
    trained = train_in_subprocess(world, parts, run, training, seconds=seconds_until(deadline))
    if not trained.is_complete:
        return PretrainMiniResult(vae=vae, training=trained)
    average = "" if parameters.training.ema_decay is None else AVERAGE_FOLDER
    transformer = checkpoint_folder(run, trained.steps) / average / TRANSFORMER_FOLDER
    write_finished_base(parts, transformer, parameters.base, note_of(parameters, trained, run))
    return PretrainMiniResult(vae=vae, training=trained, base=parameters.base)


def build_world(parameters: PretrainMiniParameters, raw: Path, world: Path) -> None:
    """Generate the recordings that are missing, draw their triplets, and split by scene."""
    plans = plan_training_world(parameters.num_scenes, parameters.recordings_per_scene)
    build_recordings(raw, world, plans, PROFILE, a_task=RECORDINGS_A_TASK, workers=parameters.workers)
    shares = SplitSettings(train=0.92, validation=0.04, test=0.04, ensure_every_split=True)
    split_dataset(world, SplitPolicy.SCENE_DISJOINT, shares)


def seconds_until(deadline: float | None) -> float | None:
    """Seconds until a deadline of ``time.monotonic()``; None without one."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def note_of(parameters: PretrainMiniParameters, trained: TrainSummary, run: Path) -> dict[str, Any]:
    """What the base says of itself."""
    return {
        "untrained": False,
        "description": f"Small video {parameters.kind.replace('_', '-')} base, trained on generated rooms only.",
        "licence": LICENCE,
        "steps": trained.steps,
        "clips": trained.clips,
        "code_version": code_version(),
        CURVE_KEY: curve_of(run).model_dump(mode="json"),
    }
