"""Cached latents: videos encoded once, as posterior mean and log-variance, in sharded safetensors files.

A clip's tensors are ``<clip_id>.interaction``, ``.static`` and ``.hands``, float16 [2C, F, H, W] (mean, then
log-variance); clips without ground truth have no ``interaction``. Silhouettes of the hands, ``<clip_id>.hand_mask``,
lie in shards of their own beside the others, made when a conditioning asks for them. `latent_shards` has the files.
Encoding each clip once saves a quarter of a training step at full size.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.dataset as ds

from dwm_model.base_model import BaseDescription
from dwm_model.geometry import ClipGeometry
from dwm_model.hand_poses import load_hand_poses
from dwm_model.latent_shards import (
    LATENT_SCHEMA_VERSION,
    ShardKind,
    ShardMetadata,
    VideoRole,
    clip_fingerprint,
    clip_fingerprints,
    read_shards,
    write_shard,
)
from dwm_model.mapped_shards import MappedShard
from dwm_model.prompts import is_prompt_embedded, load_prompt_embedding
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus

if TYPE_CHECKING:
    import torch

    from dwm_model.base_model import BaseModel as DiffusionBase
    from render.framing import Frames

__all__ = [
    "LATENT_SCHEMA_VERSION",
    "ClipGeometry",
    "ClipLatents",
    "EncodeReport",
    "LatentStore",
    "ShardKind",
    "VideoRole",
    "encode_frames",
    "encode_shard",
    "mask_video",
    "plan_encoding",
    "posterior_mean",
    "sample_posterior",
]

logger = logging.getLogger(__name__)

_MAX_MAPPED_SHARDS = 4096
_MAX_POSES = 4096


@dataclass(frozen=True)
class ClipLatents:
    """Cached latents of a clip: moments (mean, then log-variance), unscaled, float32 [2C, F, H, W] each.

    Attributes:
        clip_id: the clip.
        static: static-scene video.
        hands: hand-mesh video.
        interaction: interaction video; None for a clip without ground truth.
    """

    clip_id: str
    static: torch.Tensor
    hands: torch.Tensor
    interaction: torch.Tensor | None


@dataclass(frozen=True)
class EncodeReport:
    """Outcome of encoding a chunk.

    Attributes:
        path: the shard; it holds the clips that could be encoded.
        encoded: their ids.
        failures: reason for each other clip. Nothing is lost: a clip that is not marked failed in the manifest is
            planned again, in a chunk of its own, until its files can be read.
    """

    path: Path
    encoded: tuple[str, ...]
    failures: dict[str, str] = field(default_factory=dict)


def posterior_mean(moments: torch.Tensor) -> torch.Tensor:
    """Mean of the posterior, [..., C, F, H, W] from moments [..., 2C, F, H, W]."""
    return moments.chunk(2, dim=-4)[0]


def sample_posterior(moments: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Sample of the posterior, [..., C, F, H, W] from moments [..., 2C, F, H, W], with explicit randomness (CPU)."""
    import torch

    mean, log_variance = moments.chunk(2, dim=-4)
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    return mean + torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) * noise.to(mean.device)


def encode_frames(base: DiffusionBase, videos: Sequence[Frames]) -> torch.Tensor:
    """Encode videos of one size together.

    Args:
        base: base model; its autoencoder is loaded.
        videos: N videos, uint8 RGB [T, H, W, 3].

    Returns:
        Moments, float32 on the CPU, [N, 2C, F, H, W].
    """
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3).to(base.device)
    with torch.inference_mode():
        scaled = (pixels.to(torch.float32) / 127.5 - 1.0).to(base.dtype)
        if scaled.device.type == "cpu":
            moments: torch.Tensor = base.vae.encode(scaled).latent_dist.parameters
        else:  # one video at a time keeps full-size encoding within a GPU's memory
            moments = torch.cat([base.vae.encode(video[None]).latent_dist.parameters for video in scaled])
    return moments.float().cpu()


def mask_video(hands: Frames) -> Frames:
    """Binary silhouettes of a hand video as a video: white hands on black, uint8 RGB [T, H, W, 3]."""
    import numpy as np

    from render.hand_mask import hand_mask

    silhouettes = hand_mask(hands).astype(np.uint8) * np.uint8(255)
    return np.repeat(silhouettes[..., None], 3, axis=-1)


def plan_encoding(
    dataset: Dataset,
    base: BaseDescription,
    geometry: ClipGeometry,
    shard_size: int = 16,
    kind: ShardKind = ShardKind.VIDEOS,
) -> list[list[str]]:
    """Chunks of clips that are still to be encoded; each becomes a shard.

    The chunks do not depend on what an earlier, interrupted run has done: whole shards only ever take whole chunks
    away, and clips that failed are planned again in chunks of their own, so that resuming ends in the same files.

    Args:
        dataset: the dataset; its ready and conditions-only clips are encoded.
        base: the base model.
        geometry: size and length of the encoded clips.
        shard_size: clips a shard.
        kind: what of the clips is encoded.

    Returns:
        Lists of clip ids, sorted.

    Raises:
        DwmError: the geometry does not suit the base or is longer than every clip, or a shard is damaged.
    """
    geometry.check(base)
    _require_a_long_clip(dataset, geometry)
    wanted = clip_fingerprints(dataset, kind)
    done: set[str] = set()
    failed: list[list[str]] = []
    for shard in (shard for _, shard in read_shards(dataset, base, geometry) if shard.kind is kind):
        done.update(clip for clip, fingerprint in shard.clips.items() if wanted.get(clip) == fingerprint)
        failed.append(sorted(clip for clip, fingerprint in shard.failed.items() if wanted.get(clip) == fingerprint))
    retries = sorted({tuple(clip for clip in chunk if clip not in done) for chunk in failed} - {()})
    mentioned = done.union(*retries)
    fresh = sorted(clip for clip in wanted if clip not in mentioned)
    chunks = [fresh[start : start + shard_size] for start in range(0, len(fresh), shard_size)]
    return chunks + [list(chunk) for chunk in retries]


def encode_shard(
    dataset: Dataset,
    base: DiffusionBase,
    geometry: ClipGeometry,
    clip_ids: Sequence[str],
    kind: ShardKind = ShardKind.VIDEOS,
) -> EncodeReport:
    """Encode a chunk of clips into one shard: the first ``num_frames`` frames, resized to the geometry.

    Args:
        dataset: the dataset.
        base: base model; only its autoencoder is loaded.
        geometry: size and length.
        clip_ids: a chunk of `plan_encoding`.
        kind: what of the clips is encoded; the same as in the plan.

    Returns:
        The shard and what went into it; unreadable clips are reported, not raised.

    Raises:
        DwmError: a clip is not in the manifest, or the shard cannot be written.
    """
    geometry.check(base.description)
    clips = [dataset.clips.get(clip_id) for clip_id in sorted(clip_ids)]
    tensors: dict[str, torch.Tensor] = {}
    encoded: dict[str, str] = {}
    failures: dict[str, str] = {}
    for clip in clips:
        try:
            moments = _encode_clip(dataset, base, geometry, clip, kind)
        except DwmError as error:
            logger.warning("clip %s could not be encoded: %s", clip.clip_id, error)
            failures[clip.clip_id] = str(error)
            continue
        tensors |= {f"{clip.clip_id}.{role}": moment for role, moment in moments.items()}
        encoded[clip.clip_id] = clip_fingerprint(clip, kind)
    metadata = ShardMetadata(
        kind=kind,
        encoder_hash=base.description.encoder_hash,
        geometry=geometry,
        clips=encoded,
        failed={clip.clip_id: clip_fingerprint(clip, kind) for clip in clips if clip.clip_id in failures},
    )
    path = write_shard(dataset, base.description, metadata, tensors)
    return EncodeReport(path, tuple(encoded), failures)


def record_failures(dataset: Dataset, report: EncodeReport) -> None:
    """Give the clips of a chunk that could not be encoded ``failed`` rows with the reason, so that training goes on.

    Building the dataset again tries failed clips again.
    """
    failed = [dataset.clips.get(clip_id) for clip_id in report.failures]
    dataset.clips.upsert(
        clip.updated(status=ClipStatus.FAILED, reason=f"encoding: {report.failures[clip.clip_id]}", split=None)
        for clip in failed
    )


class LatentStore:
    """Cached latents of a dataset for one base and geometry.

    Args:
        dataset: the dataset.
        base: the base model.
        geometry: size and length.

    Raises:
        DwmError: the geometry does not suit the base; a shard is damaged, of another base or another size.
    """

    def __init__(self, dataset: Dataset, base: BaseDescription, geometry: ClipGeometry) -> None:
        geometry.check(base)
        self.dataset = dataset
        self.base = base
        self.geometry = geometry
        self._shards: dict[VideoRole, dict[str, Path]] = {role: {} for role in VideoRole}
        self._stale: set[str] = set()
        current = {kind: clip_fingerprints(dataset, kind) for kind in ShardKind}
        for path, shard in read_shards(dataset, base, geometry):
            for clip_id, fingerprint in shard.clips.items():
                if current[shard.kind].get(clip_id) == fingerprint:
                    for role in shard.kind.roles(ClipStatus.READY.value):
                        self._shards[role].setdefault(clip_id, path)
                else:
                    self._stale.add(clip_id)
        self._open = lru_cache(maxsize=_MAX_MAPPED_SHARDS)(MappedShard)
        self._poses = lru_cache(maxsize=_MAX_POSES)(self._load_poses)

    def clip_ids(self) -> list[str]:
        """Clips whose latents are here and up to date, sorted."""
        return sorted(self._shards[VideoRole.STATIC])

    def require(self, clip_ids: Iterable[str], role: VideoRole = VideoRole.STATIC) -> None:
        """Check that clips are encoded, before long work that needs them.

        Raises:
            DwmError: some are not; the message has their number and the first id.
        """
        wanted = list(clip_ids)
        missing = [clip_id for clip_id in wanted if clip_id not in self._shards[role]]
        if missing:
            raise self._missing_error(missing[0], role, f"{len(missing)} of {len(wanted)} clips, the first: ")

    def load(self, clip_id: str) -> ClipLatents:
        """Read a clip's latents.

        Raises:
            DwmError: the clip is not encoded, or its videos have changed since.
        """
        static, hands = (self.moments(clip_id, role) for role in (VideoRole.STATIC, VideoRole.HANDS))
        has_truth = f"{clip_id}.{VideoRole.INTERACTION}" in self._open(self._shards[VideoRole.STATIC][clip_id])
        return ClipLatents(clip_id, static, hands, self.moments(clip_id, VideoRole.INTERACTION) if has_truth else None)

    def moments(self, clip_id: str, role: VideoRole) -> torch.Tensor:
        """Read one latent of a clip: mean and log-variance, unscaled, float32 [2C, F, H, W].

        Raises:
            DwmError: the clip is not encoded, its videos have changed since, or it has no such video.
        """
        if clip_id not in self._shards[role]:
            raise self._missing_error(clip_id, role, "")
        shard = self._open(self._shards[role][clip_id])
        name = f"{clip_id}.{role}"
        if name not in shard:
            raise DwmError(f"clip {clip_id}: its latents have no {role} video; run `dwm encode` again")
        return shard.tensor(name)

    def hand_poses(self, clip_id: str) -> torch.Tensor:
        """Poses of both hands over the encoded frames, float32 [T, 104] (see `hand_poses`).

        Raises:
            DwmError: they are not known.
        """
        return self._poses(clip_id)

    def _load_poses(self, clip_id: str) -> torch.Tensor:
        path = self.dataset.clips.get(clip_id).hand_motion_path
        if path is None:
            raise DwmError(f"clip {clip_id}: has no hand_motion_path; its hand poses are unknown")
        return load_hand_poses(self.dataset.absolute(path), self.geometry.num_frames)

    def prompt_embedding(self, prompt: str) -> torch.Tensor:
        """Embedding of a prompt, float32 [tokens, dim]; ``""`` is the negative prompt of guidance.

        Raises:
            DwmError: the prompt is not encoded.
        """
        return load_prompt_embedding(self.dataset, self.base, prompt)

    def cached_prompt_embedding(self, prompt: str) -> torch.Tensor | None:
        """Embedding of a prompt, float32 [tokens, dim]; None where it is not encoded.

        Raises:
            DwmError: its file is damaged.
        """
        is_there = is_prompt_embedded(self.dataset, self.base, prompt)
        return load_prompt_embedding(self.dataset, self.base, prompt) if is_there else None

    def _missing_error(self, clip_id: str, role: VideoRole, how_many: str) -> DwmError:
        why = "its videos changed after encoding" if clip_id in self._stale else "not encoded"
        what, option = ("hand-mask latents", " --hand-masks") if role is VideoRole.HAND_MASK else ("latents", "")
        return DwmError(
            f"{self.dataset.root}: {how_many}clip {clip_id} has no {what} at {self.geometry} for "
            f"{self.base.latent_name} ({why}); run `dwm encode{option}` with the profile of this size"
        )


def _encode_clip(
    dataset: Dataset, base: DiffusionBase, geometry: ClipGeometry, clip: Clip, kind: ShardKind
) -> dict[str, torch.Tensor]:
    """Read and encode a clip's videos; float16 moments by role."""
    import torch

    from render.video import read_clip_video

    roles = kind.roles(clip.status.value)
    videos: list[Frames] = []
    for role in roles:
        relative = getattr(clip, role.column)
        if relative is None:
            raise DwmError(f"clip {clip.clip_id}: has no {role.column.removesuffix('_path')} video; build it again")
        frames = read_clip_video(dataset.absolute(relative), **geometry.model_dump())
        videos.append(mask_video(frames) if role is VideoRole.HAND_MASK else frames)
    moments = encode_frames(base, videos).to(torch.float16)
    if not bool(torch.isfinite(moments).all()):
        raise DwmError(f"clip {clip.clip_id}: its latents exceed float16; check the base model {base.path}")
    return {role.value: moment.contiguous() for role, moment in zip(roles, moments, strict=True)}


def _require_a_long_clip(dataset: Dataset, geometry: ClipGeometry) -> None:
    """Refuse a profile that no clip is long enough for, before it makes a ``failed`` row of every clip."""
    usable = ds.field("status").isin([ClipStatus.READY.value, ClipStatus.CONDITIONS_ONLY.value])
    longest = max(dataset.clips.read(["num_frames"], usable).column("num_frames").to_pylist(), default=None)
    if longest is not None and longest < geometry.num_frames:
        raise DwmError(
            f"{dataset.root}: no clip has {geometry.num_frames} frames, the longest has {longest}; choose a profile of "
            "fewer frames or build longer clips"
        )
