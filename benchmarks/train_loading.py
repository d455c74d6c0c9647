"""Reading clips at random from 10,000: latents in shards, as training reads them, against one ``.pt`` file an item."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.public_step import ROLES
from dwm_model.base_model import BaseDescription, describe_base
from dwm_model.geometry import ClipGeometry
from dwm_model.latent_shards import ShardKind, ShardMetadata, clip_fingerprint, write_shard
from dwm_model.latents import LatentStore, VideoRole
from dwm_model.tiny import make_tiny_base
from manifests.dataset import Dataset
from manifests.schema import Clip, ClipStatus, Source, Split

ITEMS = 10_000
READ = 1_000
GEOMETRY = ClipGeometry(width=96, height=64, num_frames=17)
_CLIPS_A_SHARD = 16


def _clip(number: int) -> Clip:
    name = f"clip{number:05d}"
    hashes = {f"{role}_path": f"{role}-{number}" for role in ROLES}
    paths = {f"{role}_path": f"clips/synthetic/{name}/{role}.mp4" for role in ROLES}
    return Clip(
        clip_id=name,
        source=Source.SYNTHETIC,
        scene_id="scene",
        recording_id="recording",
        num_frames=GEOMETRY.num_frames,
        fps=8.0,
        width=GEOMETRY.width,
        height=GEOMETRY.height,
        prompt="I push a box.",
        split=Split.TRAIN,
        status=ClipStatus.READY,
        output_hashes=hashes,
        **paths,
    )


def random_dataset(root: Path, base: BaseDescription, items: int, items_folder: Path | None = None) -> Dataset:
    """A dataset of clips with random latents and no videos; with a folder, each clip's latents also as a ``.pt``."""
    dataset = Dataset.create_or_open(root)
    clips = [_clip(number) for number in range(items)]
    dataset.clips.upsert(clips)
    latents = {role: torch.randn(GEOMETRY.moments_shape(base)).half() for role in ROLES}
    for start in range(0, items, _CLIPS_A_SHARD):
        chunk = clips[start : start + _CLIPS_A_SHARD]
        fingerprints = {clip.clip_id: clip_fingerprint(clip, ShardKind.VIDEOS) for clip in chunk}
        metadata = ShardMetadata(encoder_hash=base.encoder_hash, geometry=GEOMETRY, clips=fingerprints, failed={})
        tensors = {f"{clip.clip_id}.{role}": latents[role].clone() for clip in chunk for role in ROLES}
        write_shard(dataset, base, metadata, tensors)
        if items_folder is not None:
            for clip in chunk:
                torch.save(latents, items_folder / f"{clip.clip_id}.pt")
    return dataset


def loading_figures(folder: Path, repeats: int, items: int = ITEMS) -> dict[str, float]:
    """Clips a second of both ways, and their ratio: medians of CPU time over random clips, all of them in memory.

    A clip is the latents of its three videos, float32; prompt embeddings and posterior samples are not counted.
    """
    base = describe_base(make_tiny_base(folder / "base"))
    (folder / "items").mkdir()
    dataset = random_dataset(folder / "dataset", base, items, folder / "items")
    store = LatentStore(dataset, base, GEOMETRY)

    def from_shards(clip_id: str) -> None:
        store.moments(clip_id, VideoRole.INTERACTION)
        store.moments(clip_id, VideoRole.STATIC)
        store.moments(clip_id, VideoRole.HANDS)

    def from_item(clip_id: str) -> None:
        item = torch.load(folder / "items" / f"{clip_id}.pt", weights_only=True)
        for role in ROLES:
            item[role].float()

    order = torch.randperm(items, generator=torch.Generator().manual_seed(0)).tolist()
    chosen = [_clip(number).clip_id for number in order]
    ways: dict[str, Callable[[str], None]] = {"shards": from_shards, "items": from_item}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        part = [chosen[(turn * READ + index) % items] for index in range(READ)]
        for name, read in ways.items():
            began = time.process_time()
            for clip_id in part:
                read(clip_id)
            rates[name].append(READ / (time.process_time() - began))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "loader_items": items,
        "loader_shards_clips_per_s": round(medians["shards"], 1),
        "loader_items_clips_per_s": round(medians["items"], 1),
        "loader_speedup": round(medians["shards"] / medians["items"], 2),
    }
