"""Cache what training reads: latents of the three videos and prompt embeddings."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_model import describe_base
from dwm_model.latents import ShardKind, plan_encoding
from dwm_model.train_config import profile_geometry
from manifests.dataset import Dataset
from tasks.encoding import encode_latent_shard, encode_prompt_embeddings


class EncodeParameters(BaseModel):
    """What to encode, with what."""

    model_config = ConfigDict(extra="forbid")

    dataset: Path = Field(description="The dataset folder.")
    base: Path = Field(description="The base model's folder in the diffusers layout.")
    profile: str = Field(default="paper", description="Size and length of the encoded clips.")
    shard_size: int = Field(default=16, description="Clips a shard.", gt=0)
    hand_masks: bool = Field(default=False, description="Encode silhouettes of the hands as well.")


class EncodeResult(BaseModel):
    """What was encoded."""

    encoded: int = Field(description="Clips encoded by this run; those of earlier runs are kept.")
    failures: dict[str, str] = Field(description="Reason for each clip that could not be encoded.")


@flow(name="encode")
def encode(parameters: EncodeParameters) -> EncodeResult:
    """Plan the shards that are missing, then encode them one after another."""
    geometry = profile_geometry(parameters.profile)
    dataset, base = Dataset.open(parameters.dataset), describe_base(parameters.base)
    kinds = tuple(ShardKind) if parameters.hand_masks else (ShardKind.VIDEOS,)
    plan = [
        (kind, chunk) for kind in kinds for chunk in plan_encoding(dataset, base, geometry, parameters.shard_size, kind)
    ]
    encode_prompt_embeddings(parameters.dataset, parameters.base)
    reports = [encode_latent_shard(parameters.dataset, parameters.base, geometry, chunk, kind) for kind, chunk in plan]
    return EncodeResult(
        encoded=len({clip for report in reports for clip in report.encoded}),
        failures={clip: reason for report in reports for clip, reason in report.failures.items()},
    )
