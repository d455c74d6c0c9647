"""Shards: the files of cached latents, checked against base, geometry and the clips' videos before they are used.

Shards lie in ``latents/encoders-<hash8>/<W>x<H>x<T>/shard-<hash>.safetensors``; a shard is whole or absent. Its one
metadata entry tells what kind of videos it holds, geometry, base hash, and a fingerprint of each clip's video files, so
that latents of a changed video, another base or another size are never used.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dwm_model.geometry import ClipGeometry
from manifests.atomic import atomic_path, is_temporary
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import short_id
from manifests.schema import Clip, ClipStatus

if TYPE_CHECKING:
    import torch

    from dwm_model.base_model import BaseDescription

LATENT_SCHEMA_VERSION = 2
"""Raised when the layout of shards changes; other versions are refused."""

_METADATA_KEY = "dwm_latents"
_REMEDY = "delete it and run `dwm encode` again"


class VideoRole(StrEnum):
    """What a cached latent shows; the tensor of a clip is called ``<clip_id>.<role>``."""

    INTERACTION = "interaction"
    STATIC = "static"
    HANDS = "hands"
    HAND_MASK = "hand_mask"

    @property
    def column(self) -> str:
        """Column of the video it is made from: silhouettes come from the hand video."""
        return "hands_path" if self is VideoRole.HAND_MASK else f"{self.value}_path"


class ShardKind(StrEnum):
    """Which videos of its clips a shard holds."""

    VIDEOS = "videos"
    HAND_MASKS = "hand_masks"

    def roles(self, status: str) -> tuple[VideoRole, ...]:
        """Roles of a clip in a shard of this kind: ground truth only of ready clips."""
        if self is ShardKind.HAND_MASKS:
            return (VideoRole.HAND_MASK,)
        conditions = (VideoRole.STATIC, VideoRole.HANDS)
        return (VideoRole.INTERACTION, *conditions) if status == ClipStatus.READY.value else conditions


class ShardMetadata(BaseModel):
    """What a shard says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=LATENT_SCHEMA_VERSION, description="Layout of the shard.")
    kind: ShardKind = Field(default=ShardKind.VIDEOS, description="Which videos of its clips it holds.")
    encoder_hash: str = Field(description="Hash of the encoders of the base that encoded it.")
    geometry: ClipGeometry = Field(description="Size and length of the encoded videos.")
    clips: dict[str, str] = Field(description="Fingerprint of the video files of each encoded clip.")
    failed: dict[str, str] = Field(description="Fingerprint of each clip of this chunk that could not be read.")


def clip_fingerprint(clip: Clip, kind: ShardKind) -> str:
    """Digest of what a clip's latents depend on besides base and geometry: which videos it has, and their hashes."""
    return _fingerprint(clip.status.value, clip.output_hashes, kind)


def clip_fingerprints(dataset: Dataset, kind: ShardKind) -> dict[str, str]:
    """Fingerprint of every clip that can be encoded."""
    usable = ds.field("status").isin([ClipStatus.READY.value, ClipStatus.CONDITIONS_ONLY.value])
    table = dataset.clips.read(["clip_id", "status", "output_hashes"], usable)
    columns = (table.column(name).to_pylist() for name in ("clip_id", "status", "output_hashes"))
    return {
        clip_id: _fingerprint(status, dict(hashes or {}), kind)
        for clip_id, status, hashes in zip(*columns, strict=True)
    }


def _fingerprint(status: str, output_hashes: dict[str, str], kind: ShardKind) -> str:
    return short_id(*(part for role in kind.roles(status) for part in (role.value, output_hashes.get(role.column))))


def write_shard(
    dataset: Dataset,
    base: BaseDescription,
    metadata: ShardMetadata,
    tensors: dict[str, torch.Tensor],
) -> Path:
    """Write a shard; its name comes from kind, clips and fingerprints, so that the same content has the same name.

    Raises:
        DwmError: it cannot be written.
    """
    from safetensors.torch import save

    content = {**metadata.clips, **metadata.failed}
    kind = () if metadata.kind is ShardKind.VIDEOS else (metadata.kind.value,)
    name = short_id(*kind, *(part for clip_id in sorted(content) for part in (clip_id, content[clip_id])))
    path = _geometry_folder(dataset, base, metadata.geometry) / f"shard-{name}.safetensors"
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, {_METADATA_KEY: metadata.model_dump_json()}))
    return path


def read_shards(dataset: Dataset, base: BaseDescription, geometry: ClipGeometry) -> list[tuple[Path, ShardMetadata]]:
    """All shards with their metadata, checked against base and geometry, sorted by file name.

    Raises:
        DwmError: a shard is damaged, of another base or another size.
    """
    folder = _geometry_folder(dataset, base, geometry)
    paths = sorted(path for path in folder.glob("shard-*.safetensors") if not is_temporary(path))
    return [(path, _read_shard(path, base, geometry)) for path in paths]


def open_shard(path: Path) -> Any:
    """Open a shard; its tensors stay on disk until they are asked for.

    Raises:
        DwmError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise DwmError(f"{path}: damaged shard of {size} bytes ({error}); {_REMEDY}") from error


def _geometry_folder(dataset: Dataset, base: BaseDescription, geometry: ClipGeometry) -> Path:
    return dataset.latents_folder / base.latent_name / str(geometry)


def _read_shard(path: Path, base: BaseDescription, geometry: ClipGeometry) -> ShardMetadata:
    """Read a shard's metadata and check it, tensor by tensor, without reading the tensors' bytes."""
    shard = open_shard(path)
    try:
        metadata = ShardMetadata.model_validate_json((shard.metadata() or {}).get(_METADATA_KEY, ""))
    except ValidationError as error:
        raise DwmError(f"{path}: no latent shard of version {LATENT_SCHEMA_VERSION}; {_REMEDY}") from error
    if metadata.schema_version != LATENT_SCHEMA_VERSION:
        raise DwmError(f"{path}: layout version {metadata.schema_version}, not {LATENT_SCHEMA_VERSION}; {_REMEDY}")
    if metadata.encoder_hash != base.encoder_hash:
        wanted = base.encoder_hash[:8]
        raise DwmError(f"{path}: encoded with encoders {metadata.encoder_hash[:8]}, not {wanted}; {_REMEDY}")
    if metadata.geometry != geometry:
        raise DwmError(f"{path}: encoded at {metadata.geometry}, not {geometry}; {_REMEDY}")
    expected = geometry.moments_shape(base)
    names = set(shard.keys())
    always = metadata.kind.roles(ClipStatus.CONDITIONS_ONLY.value)
    for clip_id in metadata.clips:
        if not {f"{clip_id}.{role}" for role in always} <= names:
            raise DwmError(f"{path}: tensors of clip {clip_id} are missing; {_REMEDY}")
    for name in names:
        shape = tuple(shard.get_slice(name).get_shape())
        if shape != expected:
            raise DwmError(f"{path}: tensor {name} is {list(shape)}, {geometry} needs {list(expected)}; {_REMEDY}")
    return metadata
