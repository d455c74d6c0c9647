"""Cached latents: videos encoded once, as posterior mean and log-variance, in sharded safetensors files.

A clip's tensors are ``<clip_id>.interaction``, ``.static`` and ``.hands``, float16 [2C, F, H, W] (mean, then
log-variance); clips without ground truth have no ``interaction``. Shards lie in
``latents/<base name>-<hash8>/<W>x<H>x<T>/shard-<hash>.safetensors``; a shard is whole or absent. Its one metadata entry
tells geometry, base hash, and a fingerprint of each clip's video files, so that latents of a changed video, another
base or another size are never used. Encoding each clip once saves a quarter of a training step at full size.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dwm_model.base_model import BaseDescription
from dwm_model.geometry import ClipGeometry
from dwm_model.prompts import is_prompt_embedded, load_prompt_embedding
from manifests.atomic import atomic_path, is_temporary
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import short_id
from manifests.schema import Clip, ClipStatus

if TYPE_CHECKING:
    import torch

    from dwm_model.base_model import BaseModel as DiffusionBase
    from render.framing import Frames

__all__ = [
    "ClipGeometry",
    "ClipLatents",
    "EncodeReport",
    "LatentStore",
    "encode_frames",
    "encode_shard",
    "plan_encoding",
    "posterior_mean",
    "sample_posterior",
]

logger = logging.getLogger(__name__)

LATENT_SCHEMA_VERSION = 1
"""Raised when the layout of shards changes; other versions are refused."""

_METADATA_KEY = "dwm_latents"
_VIDEO_ROLES = ("interaction", "static", "hands")
_REMEDY = "delete it and run `dwm encode` again"
_MAX_OPEN_SHARDS = 64


class ShardMetadata(BaseModel):
    """What a shard says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=LATENT_SCHEMA_VERSION, description="Layout of the shard.")
    base_hash: str = Field(description="Hash of the base model whose autoencoder encoded it.")
    geometry: ClipGeometry = Field(description="Size and length of the encoded videos.")
    clips: dict[str, str] = Field(description="Fingerprint of the video files of each encoded clip.")
    failed: dict[str, str] = Field(description="Fingerprint of each clip of this chunk that could not be read.")


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


def plan_encoding(
    dataset: Dataset, base: BaseDescription, geometry: ClipGeometry, shard_size: int = 16
) -> list[list[str]]:
    """Chunks of clips that are still to be encoded; each becomes a shard.

    The chunks do not depend on what an earlier, interrupted run has done: whole shards only ever take whole chunks
    away, and clips that failed are planned again in chunks of their own, so that resuming ends in the same files.

    Args:
        dataset: the dataset; its ready and conditions-only clips are encoded.
        base: the base model.
        geometry: size and length of the encoded clips.
        shard_size: clips a shard.

    Returns:
        Lists of clip ids, sorted.

    Raises:
        DwmError: the geometry does not suit the base or is longer than every clip, or a shard is damaged.
    """
    geometry.check(base)
    _require_a_long_clip(dataset, geometry)
    wanted = _fingerprints(dataset)
    done: set[str] = set()
    failed: list[list[str]] = []
    for _, shard in _read_shards(dataset, base, geometry):
        done.update(clip for clip, fingerprint in shard.clips.items() if wanted.get(clip) == fingerprint)
        failed.append(sorted(clip for clip, fingerprint in shard.failed.items() if wanted.get(clip) == fingerprint))
    retries = sorted({tuple(clip for clip in chunk if clip not in done) for chunk in failed} - {()})
    mentioned = done.union(*retries)
    fresh = sorted(clip for clip in wanted if clip not in mentioned)
    chunks = [fresh[start : start + shard_size] for start in range(0, len(fresh), shard_size)]
    return chunks + [list(chunk) for chunk in retries]


def encode_shard(
    dataset: Dataset, base: DiffusionBase, geometry: ClipGeometry, clip_ids: Sequence[str]
) -> EncodeReport:
    """Encode a chunk of clips into one shard: the first ``num_frames`` frames, resized to the geometry.

    Args:
        dataset: the dataset.
        base: base model; only its autoencoder is loaded.
        geometry: size and length.
        clip_ids: a chunk of `plan_encoding`.

    Returns:
        The shard and what went into it; unreadable clips are reported, not raised.

    Raises:
        DwmError: a clip is not in the manifest, or the shard cannot be written.
    """
    from safetensors.torch import save

    geometry.check(base.description)
    clips = [dataset.clips.get(clip_id) for clip_id in sorted(clip_ids)]
    tensors: dict[str, torch.Tensor] = {}
    encoded: dict[str, str] = {}
    failures: dict[str, str] = {}
    for clip in clips:
        try:
            moments = _encode_clip(dataset, base, geometry, clip)
        except DwmError as error:
            logger.warning("clip %s could not be encoded: %s", clip.clip_id, error)
            failures[clip.clip_id] = str(error)
            continue
        tensors |= {f"{clip.clip_id}.{role}": moment for role, moment in moments.items()}
        encoded[clip.clip_id] = clip_fingerprint(clip)
    metadata = ShardMetadata(
        base_hash=base.base_hash,
        geometry=geometry,
        clips=encoded,
        failed={clip.clip_id: clip_fingerprint(clip) for clip in clips if clip.clip_id in failures},
    )
    name = short_id(*(part for clip in clips for part in (clip.clip_id, clip_fingerprint(clip))))
    path = _geometry_folder(dataset, base.description, geometry) / f"shard-{name}.safetensors"
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, {_METADATA_KEY: metadata.model_dump_json()}))
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


def clip_fingerprint(clip: Clip) -> str:
    """Digest of what a clip's latents depend on besides base and geometry: which videos it has, and their hashes."""
    return _fingerprint(clip.status.value, clip.output_hashes)


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
        current = _fingerprints(dataset)
        self._shards: dict[str, Path] = {}
        self._stale: set[str] = set()
        for path, shard in _read_shards(dataset, base, geometry):
            for clip_id, fingerprint in shard.clips.items():
                if current.get(clip_id) == fingerprint:
                    self._shards.setdefault(clip_id, path)
                else:
                    self._stale.add(clip_id)
        self._open = lru_cache(maxsize=_MAX_OPEN_SHARDS)(_open_shard)

    def clip_ids(self) -> list[str]:
        """Clips whose latents are here and up to date, sorted."""
        return sorted(self._shards)

    def require(self, clip_ids: Iterable[str]) -> None:
        """Check that clips are encoded, before long work that needs them.

        Raises:
            DwmError: some are not; the message has their number and the first id.
        """
        wanted = list(clip_ids)
        missing = [clip_id for clip_id in wanted if clip_id not in self._shards]
        if missing:
            raise self._missing_error(missing[0], f"{len(missing)} of {len(wanted)} clips, the first: ")

    def load(self, clip_id: str) -> ClipLatents:
        """Read a clip's latents.

        Raises:
            DwmError: the clip is not encoded, or its videos have changed since.
        """
        if clip_id not in self._shards:
            raise self._missing_error(clip_id, "")
        path = self._shards[clip_id]
        shard = self._open(path)
        names = set(shard.keys())
        read = {
            role: shard.get_tensor(f"{clip_id}.{role}").float() for role in _VIDEO_ROLES if f"{clip_id}.{role}" in names
        }
        return ClipLatents(clip_id, read["static"], read["hands"], read.get("interaction"))

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

    def _missing_error(self, clip_id: str, how_many: str) -> DwmError:
        why = "its videos changed after encoding" if clip_id in self._stale else "not encoded"
        return DwmError(
            f"{self.dataset.root}: {how_many}clip {clip_id} has no latents at {self.geometry} for base "
            f"{self.base.latent_name} ({why}); run `dwm encode` with the profile of this size"
        )


def _encode_clip(dataset: Dataset, base: DiffusionBase, geometry: ClipGeometry, clip: Clip) -> dict[str, torch.Tensor]:
    """Read and encode a clip's videos; float16 moments by role."""
    import torch

    from render.video import read_clip_video

    roles = _roles(clip.status.value)
    videos: list[Frames] = []
    for role in roles:
        relative = getattr(clip, f"{role}_path")
        if relative is None:
            raise DwmError(f"clip {clip.clip_id}: has no {role} video; build it again")
        videos.append(
            read_clip_video(
                dataset.absolute(relative),
                width=geometry.width,
                height=geometry.height,
                num_frames=geometry.num_frames,
            )
        )
    moments = encode_frames(base, videos).to(torch.float16)
    if not bool(torch.isfinite(moments).all()):
        raise DwmError(f"clip {clip.clip_id}: its latents exceed float16; check the base model {base.path}")
    return {role: moment.contiguous() for role, moment in zip(roles, moments, strict=True)}


def _roles(status: str) -> tuple[str, ...]:
    """Videos that are encoded: ground truth only of ready clips."""
    return _VIDEO_ROLES if status == ClipStatus.READY.value else _VIDEO_ROLES[1:]


def _fingerprint(status: str, output_hashes: dict[str, str]) -> str:
    return short_id(*(part for role in _roles(status) for part in (role, output_hashes.get(f"{role}_path"))))


def _require_a_long_clip(dataset: Dataset, geometry: ClipGeometry) -> None:
    """Refuse a profile that no clip is long enough for, before it makes a ``failed`` row of every clip."""
    usable = ds.field("status").isin([ClipStatus.READY.value, ClipStatus.CONDITIONS_ONLY.value])
    longest = max(dataset.clips.read(["num_frames"], usable).column("num_frames").to_pylist(), default=None)
    if longest is not None and longest < geometry.num_frames:
        raise DwmError(
            f"{dataset.root}: no clip has {geometry.num_frames} frames, the longest has {longest}; choose a profile of "
            "fewer frames or build longer clips"
        )


def _fingerprints(dataset: Dataset) -> dict[str, str]:
    """Fingerprint of every clip that can be encoded."""
    usable = ds.field("status").isin([ClipStatus.READY.value, ClipStatus.CONDITIONS_ONLY.value])
    table = dataset.clips.read(["clip_id", "status", "output_hashes"], usable)
    columns = (table.column(name).to_pylist() for name in ("clip_id", "status", "output_hashes"))
    return {clip_id: _fingerprint(status, dict(hashes or {})) for clip_id, status, hashes in zip(*columns, strict=True)}


def _geometry_folder(dataset: Dataset, base: BaseDescription, geometry: ClipGeometry) -> Path:
    return dataset.latents_folder / base.latent_name / str(geometry)


def _read_shards(dataset: Dataset, base: BaseDescription, geometry: ClipGeometry) -> list[tuple[Path, ShardMetadata]]:
    """All shards with their metadata, checked against base and geometry, sorted by file name."""
    folder = _geometry_folder(dataset, base, geometry)
    paths = sorted(path for path in folder.glob("shard-*.safetensors") if not is_temporary(path))
    return [(path, _read_shard(path, base, geometry)) for path in paths]


def _open_shard(path: Path) -> Any:
    """Open a shard; its tensors stay on disk until they are asked for."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise DwmError(f"{path}: damaged shard of {size} bytes ({error}); {_REMEDY}") from error


def _read_shard(path: Path, base: BaseDescription, geometry: ClipGeometry) -> ShardMetadata:
    """Read a shard's metadata and check it, tensor by tensor, without reading the tensors' bytes."""
    shard = _open_shard(path)
    try:
        metadata = ShardMetadata.model_validate_json((shard.metadata() or {}).get(_METADATA_KEY, ""))
    except ValidationError as error:
        raise DwmError(f"{path}: no latent shard of version {LATENT_SCHEMA_VERSION}; {_REMEDY}") from error
    if metadata.schema_version != LATENT_SCHEMA_VERSION:
        raise DwmError(f"{path}: layout version {metadata.schema_version}, not {LATENT_SCHEMA_VERSION}; {_REMEDY}")
    if metadata.base_hash != base.base_hash:
        raise DwmError(f"{path}: encoded with base {metadata.base_hash[:8]}, not {base.base_hash[:8]}; {_REMEDY}")
    if metadata.geometry != geometry:
        raise DwmError(f"{path}: encoded at {metadata.geometry}, not {geometry}; {_REMEDY}")
    expected = geometry.moments_shape(base)
    names = set(shard.keys())
    for clip_id in metadata.clips:
        if not {f"{clip_id}.static", f"{clip_id}.hands"} <= names:
            raise DwmError(f"{path}: tensors of clip {clip_id} are missing; {_REMEDY}")
    for name in names:
        shape = tuple(shard.get_slice(name).get_shape())
        if shape != expected:
            raise DwmError(f"{path}: tensor {name} is {list(shape)}, {geometry} needs {list(expected)}; {_REMEDY}")
    return metadata
