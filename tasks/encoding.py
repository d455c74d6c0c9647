"""Encoding as tasks: prompts once, then one shard of latents a task."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task

from dwm_model.base_model import load_base
from dwm_model.geometry import ClipGeometry
from dwm_model.latents import EncodeReport, ShardKind, encode_shard, record_failures
from dwm_model.prompts import encode_prompts
from manifests.dataset import Dataset
from tasks.retrying import is_worth_retrying


@task(name="encode-prompts", retries=1, retry_condition_fn=is_worth_retrying)
def encode_prompt_embeddings(dataset: Path, base: Path) -> int:
    """Embed the prompts that have no embedding yet; returns how many."""
    return encode_prompts(Dataset.open(dataset), load_base(base))


@task(name="encode-shard", retries=1, retry_condition_fn=is_worth_retrying)
def encode_latent_shard(
    dataset: Path, base: Path, geometry: ClipGeometry, clip_ids: list[str], kind: ShardKind = ShardKind.VIDEOS
) -> EncodeReport:
    """Encode one chunk of clips into one shard."""
    opened = Dataset.open(dataset)
    report = encode_shard(opened, load_base(base), geometry, clip_ids, kind)
    record_failures(opened, report)
    for clip_id, reason in report.failures.items():
        get_run_logger().warning("clip %s could not be encoded: %s", clip_id, reason)
    return report
