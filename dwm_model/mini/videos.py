"""Videos of a dataset as one array a role, read from the disk as they are needed: what an autoencoder learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

from dwm_model.clip_order import stable_seed
from dwm_model.geometry import ClipGeometry
from dwm_model.latent_shards import VideoRole
from manifests.atomic import atomic_path
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import short_id
from manifests.schema import Clip, ClipStatus, Split
from render.video import read_clip_video

if TYPE_CHECKING:
    import torch

    from render.framing import Frames

ROLES = (VideoRole.INTERACTION, VideoRole.STATIC, VideoRole.HANDS)
"""The videos of a triplet."""


@dataclass(frozen=True)
class VideoSet:
    """Videos of some clips at one size.

    Attributes:
        clip_ids: N clips, sorted.
        frames: uint8 RGB [N, T, H, W, 3] of each role, mapped from files.
    """

    clip_ids: tuple[str, ...]
    frames: Mapping[VideoRole, NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.clip_ids)

    def whole(self, role: VideoRole, limit: int | None = None) -> list[VideoCrop]:
        """Whole videos of a role: of all clips, or of evenly spread ones, about ``limit``."""
        every = 1 if limit is None else max(1, len(self) // limit)
        length = self.frames[role].shape[1]
        return [VideoCrop(clip, role, 0, length) for clip in range(0, len(self), every)]

    def batch(self, chosen: Sequence[VideoCrop]) -> torch.Tensor:
        """Chosen pieces of videos as a network takes them, float32 [B, 3, T, H, W] in [-1, 1]."""
        import torch

        pieces = []
        for crop in chosen:
            frames = self.frames[crop.role][crop.clip, crop.start : crop.start + crop.length]
            frames = frames[::-1] if crop.reversed_in_time else frames
            pieces.append(frames[:, :, ::-1] if crop.mirrored else frames)
        pixels = torch.from_numpy(np.stack(pieces)).permute(0, 4, 1, 2, 3)
        return pixels.float() / 127.5 - 1.0


@dataclass(frozen=True)
class VideoCrop:
    """A piece of a video: some neighbouring frames, perhaps mirrored left to right or played backwards."""

    clip: int
    role: VideoRole
    start: int
    length: int
    mirrored: bool = False
    reversed_in_time: bool = False


def draw_crops(
    videos: VideoSet, shares: Mapping[VideoRole, float], length: int, count: int, seed: int
) -> list[VideoCrop]:
    """Draw pieces of videos; the same seed draws the same.

    Args:
        videos: where from.
        shares: how often each role is drawn.
        length: frames a piece.
        count: pieces.
        seed: of the draw.
    """
    random = np.random.default_rng(stable_seed("crops", seed))
    roles = sorted(shares)
    weights = np.array([shares[role] for role in roles])
    chosen = []
    for _ in range(count):
        role = roles[int(random.choice(len(roles), p=weights / weights.sum()))]
        clip = int(random.integers(len(videos)))
        start = int(random.integers(videos.frames[role].shape[1] - length + 1))
        mirrored, backwards = (bool(flag) for flag in random.random(2) < 0.5)
        chosen.append(VideoCrop(clip, role, start, length, mirrored, backwards))
    return chosen


def read_videos(dataset: Dataset, split: Split, geometry: ClipGeometry, cache: Path) -> VideoSet:
    """All videos of a split's ready clips, from a cache that is made when absent or of other clips.

    Args:
        dataset: the dataset.
        split: which clips.
        geometry: size and length.
        cache: folder of the arrays.

    Raises:
        DwmError: the split has no ready clip, a video cannot be read, or the cache cannot be written.
    """
    where = (ds.field("status") == ClipStatus.READY.value) & (ds.field("split") == split.value)
    clips = sorted(dataset.clips.rows(where), key=lambda clip: clip.clip_id)
    if not clips:
        raise DwmError(
            f"{dataset.root}: no ready clip in the {split.value} split; run `dwm split`, or build more clips"
        )
    name = short_id(str(geometry), *(f"{clip.clip_id}{sorted(clip.output_hashes.items())}" for clip in clips))
    frames = {
        role: _cached(cache / f"{split.value}-{name}-{role.value}.npy", dataset, clips, role, geometry)
        for role in ROLES
    }
    return VideoSet(tuple(clip.clip_id for clip in clips), frames)


def _cached(
    path: Path, dataset: Dataset, clips: list[Clip], role: VideoRole, geometry: ClipGeometry
) -> NDArray[np.uint8]:
    shape = (len(clips), geometry.num_frames, geometry.height, geometry.width, 3)
    if not path.exists():
        with atomic_path(path) as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            for index, clip in enumerate(clips):
                array[index] = _read(dataset, clip, role, geometry)
            array.flush()
    found: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    if found.shape != shape:
        raise DwmError(f"{path}: holds {found.shape}, not {shape}; remove it, it will be made again")
    return found


def _read(dataset: Dataset, clip: Clip, role: VideoRole, geometry: ClipGeometry) -> Frames:
    relative = getattr(clip, role.column)
    if relative is None:
        raise DwmError(f"clip {clip.clip_id}: has no {role.value} video; build it again")
    return read_clip_video(dataset.absolute(relative), **geometry.model_dump())
