"""Fine-tune the base with LoRA on cached latents."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.train_config import TrainConfig
from dwm_model.training import TrainSummary
from tasks.events import announce_training
from tasks.training import train_in_subprocess


class TrainParameters(BaseModel):
    """What to train, on what."""

    model_config = ConfigDict(extra="forbid")

    dataset: Path = Field(description="The dataset folder, encoded for this base.")
    base: Path = Field(description="The base model's folder in the diffusers layout.")
    run: Path = Field(description="The run's folder; an interrupted run continues from its last checkpoint.")
    config: TrainConfig = Field(
        default_factory=TrainConfig, description="Training configuration; the paper's values by default."
    )
    processes: int = Field(default=1, description="Processes on the worker's machine: one a GPU.", gt=0)


@flow(name="train")
def train(parameters: TrainParameters) -> TrainSummary:
    """Train in a subprocess that can be killed; its progress is an artifact."""
    chosen = parameters
    summary = train_in_subprocess(chosen.dataset, chosen.base, chosen.run, chosen.config, chosen.processes)
    announce_training(chosen.dataset, chosen.run, summary)
    return summary
