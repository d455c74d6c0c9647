"""Settings of a training run, with the paper's values as defaults, and presets as data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dwm_model.geometry import ClipGeometry
from dwm_model.lora import ALL_LINEAR_LAYERS, LoraSettings
from dwm_model.recomputation import RecomputationPolicy
from manifests.errors import DwmError, UsageError
from manifests.profiles import get_profile


def profile_geometry(profile_name: str) -> ClipGeometry:
    """Geometry of the clips of a profile.

    Raises:
        DwmError: no such profile.
    """
    profile = get_profile(profile_name)
    return ClipGeometry(width=profile.width, height=profile.height, num_frames=profile.num_frames)


OPERATIONAL_FIELDS = frozenset({"keep_checkpoints", "tensorboard", "wandb_project"})
"""Settings that do not change what is learned: a run may be continued with others."""


def _policy_of_old_runs(value: Any) -> Any:
    """Name of a checkpointing policy that earlier versions wrote as true or false."""
    return {True: "full", False: "none"}[value] if isinstance(value, bool) else value


class WarmStart(BaseModel):
    """Weights that a run begins with: see `warm_start`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path = Field(description="Checkpoint folder of another run on the same base, such as step-000500.")
    weights_hash: str = Field(description="Hash of its weights; the run's id depends on it, not on where they lie.")


class TrainConfig(BaseModel):
    """Settings of a training run (paper section 3.2 and Appendix A; batch 7 x 2 on 4 GPUs is the paper's 56)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    geometry: ClipGeometry = Field(default=profile_geometry("paper"), description="Size and length of the clips.")
    conditioning: str = Field(default="hand_mesh", description="How hands enter the network: see `conditioning`.")
    mode: Literal["lora", "full"] = Field(
        default="lora",
        description="What trains: adapter, patch projection and what the conditioning adds, or the whole network.",
    )
    lora: LoraSettings = Field(default=LoraSettings(), description="Adapter that is trained in mode lora.")

    warm_start: WarmStart | None = Field(
        default=None, description="Begin with the weights of another run's checkpoint; null: with fresh ones."
    )
    max_steps: int = Field(default=15_000, description="Optimizer steps; the schedule ends here.", gt=0)
    batch_size: int = Field(default=7, description="Clips in one forward pass of each process.", gt=0)
    accumulation_steps: int = Field(default=2, description="Forward passes in one optimizer step.", gt=0)
    learning_rate: float = Field(default=1e-4, description="Peak learning rate.", gt=0)
    adam_betas: tuple[float, float] = Field(default=(0.9, 0.95), description="Decay of AdamW's two moments.")
    weight_decay: float = Field(default=0.01, description="AdamW's weight decay.", ge=0)
    warmup_steps: int = Field(default=100, description="Steps over which the rate rises linearly from zero.", ge=0)
    schedule_cycles: int = Field(
        default=1, description="Cosine cycles; after each the rate restarts at its peak.", gt=0
    )
    max_grad_norm: float = Field(default=1.0, description="Gradients are scaled down to this norm.", gt=0)

    source_weights: dict[str, float] | None = Field(
        default=None,
        description="Share of each source, such as trumans 0.5, taste_rob 0.5; null visits all clips equally often.",
    )
    prompt_dropout: float = Field(default=0.0, description="Share of clips trained with the empty prompt.", ge=0, le=1)
    hand_dropout: float = Field(default=0.0, description="Share of clips trained with a zero hand latent.", ge=0, le=1)
    navigation_share: float = Field(
        default=0.0,
        description="Share of clips trained with a zero hand latent to show the static video, beside hand_dropout's; "
        "for conditionings that are told of hands.",
        ge=0,
        le=1,
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Arithmetic of the frozen network; auto: bfloat16 on CUDA, float32 on the CPU."
    )
    gradient_checkpointing: Annotated[RecomputationPolicy, BeforeValidator(_policy_of_old_runs)] = Field(
        default="full",
        description="Activations that the backward pass computes again: none; selective: all but the attentions' "
        "results; full: all but each block's input (least memory, a third more arithmetic).",
    )
    fused_optimizer: bool = Field(default=True, description="Update all weights in one kernel.")
    compile_blocks: bool = Field(default=False, description="Compile the transformer's blocks with torch.compile.")
    parallelism: Literal["ddp", "fsdp2"] = Field(
        default="ddp",
        description="Several processes: ddp has a whole network in each, fsdp2 shards weights and optimizer over them.",
    )
    ema_decay: float | None = Field(
        default=None, description="Decay of a moving average of the weights, kept beside them; null: none.", gt=0, lt=1
    )
    divergence_ratio: float | None = Field(
        default=5.0,
        description="Stop when the mean loss of 50 steps exceeds this many times that of the first 50; null: never.",
        gt=1,
    )
    seed: int = Field(default=0, description="Seed of adapter, data order, noise and timesteps.")

    checkpoint_every: int = Field(
        default=500, description="Steps between checkpoints; the last step has one too.", gt=0
    )
    keep_checkpoints: int = Field(default=3, description="Newest checkpoints that are kept.", gt=0)
    validate_every: int = Field(default=500, description="Steps between validations, besides the first and last.", gt=0)
    num_validation_clips: int = Field(default=8, description="Validation clips that are used, first by id.", ge=0)
    num_validation_timesteps: int = Field(default=8, description="Evenly spread timesteps for each of them.", gt=0)

    tensorboard: bool = Field(default=True, description="Write curves for TensorBoard into the run's folder.")
    wandb_project: str | None = Field(
        default=None, description="Send curves to this Weights & Biases project (needs `pip install wandb`)."
    )

    def defining_fields(self) -> dict[str, Any]:
        """Settings that what is learned depends on, as JSON values; a warm start only where there is one."""
        fields = self.model_dump(mode="json", exclude={*OPERATIONAL_FIELDS, "warm_start"})
        if self.warm_start is not None:
            fields["warm_start"] = self.warm_start.weights_hash
        return fields

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of optimizer step ``step`` (from 1): linear warm-up, then cosine with hard restarts."""
        done = step - 1
        if done < self.warmup_steps:
            return self.learning_rate * done / self.warmup_steps
        progress = (done - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (self.schedule_cycles * progress % 1.0)))


PRESETS: dict[str, TrainConfig] = {
    "paper": TrainConfig(),
    "mini": TrainConfig(
        geometry=profile_geometry("mini"),
        lora=LoraSettings(rank=64, alpha=64, target_modules=ALL_LINEAR_LAYERS),
        max_steps=200,
        batch_size=8,
        accumulation_steps=1,
        learning_rate=2e-3,
        warmup_steps=20,
        navigation_share=0.1,
        gradient_checkpointing="none",
        checkpoint_every=100,
        keep_checkpoints=2,
        validate_every=100,
        num_validation_clips=4,
    ),
    "tiny": TrainConfig(
        geometry=profile_geometry("mini"),
        lora=LoraSettings(rank=16, alpha=16),
        max_steps=300,
        batch_size=4,
        accumulation_steps=1,
        learning_rate=3e-3,
        warmup_steps=20,
        gradient_checkpointing="none",
        checkpoint_every=100,
        keep_checkpoints=2,
        validate_every=50,
        num_validation_clips=4,
    ),
}
"""Presets: ``paper``; ``mini`` for the small base of the project; ``tiny`` for a tiny random base. Both are for two CPU
cores. A network as small as the small base learns little through its attentions alone, so its adapter is everywhere."""


def get_preset(name: str) -> TrainConfig:
    """Look a preset up by its name.

    Raises:
        UsageError: no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"training preset '{name}': unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def read_train_config(path: Path) -> TrainConfig:
    """Read a configuration from a JSON file; fields that are left out have the paper's values.

    Raises:
        DwmError: no such file, no JSON, or a field that does not exist or has a wrong value.
    """
    try:
        return TrainConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DwmError(f"{path}: could not be read ({error.strerror}); check the path") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise DwmError(f"{path}: {field}: {first['msg']} (given: {str(first['input'])[:60]}); correct it") from error
