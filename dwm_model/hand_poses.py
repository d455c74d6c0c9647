"""Hand poses as numbers a frame, for the conditionings that take parameters in place of pictures (paper section 4.3).

A frame has 104 numbers: for the left hand, then the right, 45 finger angles, 3 of the wrist's orientation and 3 of its
position (MANO's parameters, radians and metres in the camera's frame: 102 in all), then two flags, 1 where the left
and the right hand are visible. A hand that is not visible has zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

from manifests.dataset import Dataset
from manifests.errors import DwmError
from render.arrays import read_npz

if TYPE_CHECKING:
    import torch

POSE_NUMBERS = 102
"""Numbers of both hands in a frame."""

POSE_FEATURES = POSE_NUMBERS + 2
"""Numbers of a frame with the two flags."""

_HAND_NUMBERS = POSE_NUMBERS // 2
_ARRAYS = ("pose", "orientation", "translation")


def load_hand_poses(path: Path, num_frames: int) -> torch.Tensor:
    """Read the poses of a clip's first ``num_frames`` frames from its ``hand_motion_path`` file, float32 [T, 104].

    Where a side has several entries in a frame (two people), the one with the highest score counts.

    Raises:
        DwmError: the file is missing or broken, or a hand's pose is not known (NaN), as some estimators leave it.
    """
    import torch

    arrays = read_npz(path, required=("frame", "is_right", "score", *_ARRAYS))
    frame, is_right = arrays["frame"].astype(np.int64), arrays["is_right"].astype(np.int64)
    values = np.concatenate([arrays[name].astype(np.float32).reshape(len(frame), -1) for name in _ARRAYS], axis=1)
    if values.shape[1] != _HAND_NUMBERS:
        raise DwmError(f"{path}: an entry has {values.shape[1]} pose numbers, not {_HAND_NUMBERS}; make the file again")
    used = (frame >= 0) & (frame < num_frames)
    unknown = int((~np.isfinite(values[used])).any(axis=1).sum())
    if unknown:
        raise DwmError(
            f"{path}: {unknown} of {int(used.sum())} hands have no pose parameters; estimate them again with a model "
            "that gives them"
        )
    poses = _fill(frame[used], is_right[used], arrays["score"].astype(np.float32)[used], values[used], num_frames)
    return torch.from_numpy(poses)


def _fill(
    frame: NDArray[np.int64],
    is_right: NDArray[np.int64],
    score: NDArray[np.float32],
    values: NDArray[np.float32],
    num_frames: int,
) -> NDArray[np.float32]:
    """Put entries in their places, the best score last so that it stays."""
    poses = np.zeros((num_frames, POSE_FEATURES), np.float32)
    sides = poses[:, :POSE_NUMBERS].reshape(num_frames, 2, _HAND_NUMBERS)
    for index in np.argsort(score, kind="stable"):
        sides[frame[index], is_right[index]] = values[index]
        poses[frame[index], POSE_NUMBERS + is_right[index]] = 1.0
    return poses


def clips_without_poses(dataset: Dataset, clip_ids: Sequence[str]) -> dict[str, str]:
    """Clips among ``clip_ids`` whose hand poses are not known, with the reason of each."""
    wanted = ds.field("clip_id").isin(list(clip_ids))
    table = dataset.clips.read(["clip_id", "hand_motion_path", "num_frames"], wanted)
    reasons: dict[str, str] = {}
    columns = (table.column(name).to_pylist() for name in ("clip_id", "hand_motion_path", "num_frames"))
    for clip_id, path, num_frames in zip(*columns, strict=True):
        if path is None:
            reasons[clip_id] = "it has no hand_motion_path: its hand poses are unknown"
            continue
        try:
            load_hand_poses(dataset.absolute(path), num_frames)
        except DwmError as error:
            reasons[clip_id] = str(error)
    return dict(sorted(reasons.items()))
