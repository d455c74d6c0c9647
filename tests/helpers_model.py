"""Small clips and encoded datasets for the model's tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dwm_model.base_model import BaseModel
from dwm_model.geometry import ClipGeometry
from dwm_model.latents import encode_shard, plan_encoding
from dwm_model.prompts import encode_prompts
from manifests.dataset import Dataset
from manifests.hashing import hash_file
from manifests.schema import Clip, ClipStatus, Source, Split
from render.video import write_video

GEOMETRY = ClipGeometry(width=48, height=32, num_frames=9)


def frames_of(seed: int, role: str = "interaction", num_frames: int = GEOMETRY.num_frames) -> NDArray[np.uint8]:
    """A smooth picture (black for hands) over which a square moves (not in the static video), [T, 32, 48, 3]."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 255, (3, 4, 3)).astype(np.uint8)
    picture = np.asarray(cv2.resize(coarse, (48, 32), interpolation=cv2.INTER_LINEAR), np.uint8)
    colour = generator.integers(0, 255, 3)
    frames = np.repeat((0 * picture if role == "hands" else picture)[None], num_frames, axis=0)
    if role != "static":
        for index, frame in enumerate(frames):
            left = index * 24 // num_frames
            frame[8:20, left : left + 12] = colour
    return frames


def add_clip(
    dataset: Dataset,
    clip_id: str,
    *,
    seed: int = 0,
    split: Split | None = None,
    status: ClipStatus = ClipStatus.READY,
    prompt: str = "",
) -> Clip:
    """Write a clip's videos and its row."""
    folder = dataset.clip_folder(Source.SYNTHETIC, clip_id)
    roles = ("interaction", "static", "hands") if status is ClipStatus.READY else ("static", "hands")
    paths = {f"{role}_path": folder / f"{role}.mp4" for role in roles}
    for role, path in zip(roles, paths.values(), strict=True):
        write_video(path, frames_of(seed, role), 8.0)
    clip = Clip(
        clip_id=clip_id,
        source=Source.SYNTHETIC,
        scene_id=f"scene-{clip_id}",
        recording_id=f"recording-{clip_id}",
        num_frames=GEOMETRY.num_frames,
        fps=8.0,
        width=GEOMETRY.width,
        height=GEOMETRY.height,
        prompt=prompt or f"My right hand pushes the box number {seed}.",
        split=split,
        status=status,
        output_hashes={column: hash_file(path) for column, path in paths.items()},
        **{column: dataset.relative(path) for column, path in paths.items()},
    )
    dataset.clips.upsert([clip])
    return clip


def base_with_dropout(base: Path, folder: Path, share: float = 0.3) -> Path:
    """A copy of a base whose transformer drops activations in training."""
    shutil.copytree(base, folder)
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dropout": share}))
    return folder


def encode_all(dataset: Dataset, base: BaseModel, shard_size: int = 2) -> None:
    """Encode every clip and prompt of a dataset."""
    for chunk in plan_encoding(dataset, base.description, GEOMETRY, shard_size):
        encode_shard(dataset, base, GEOMETRY, chunk)
    encode_prompts(dataset, base)
