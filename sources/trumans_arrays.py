"""The concatenated ``*.npy`` arrays of the TRUMANS release: 3.8 million frames, one motion segment after another.

They are memory-mapped; only the rows of a segment are read. ``seg_name.npy`` says which rows belong to a segment,
``frame_id.npy`` which frame of the segment a row is.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from manifests.restricted_pickle import read_npy
from sources.trumans import ActionInterval
from sources.trumans_files import RELEASE_REMEDY

Ints = npt.NDArray[np.int64]

SEGMENT_NAMES = "seg_name.npy"
FRAME_IDS = "frame_id.npy"
SCENE_FLAGS = "scene_flag.npy"
SCENE_LIST = "scene_list.npy"
OBJECT_FLAGS = "object_flag.npy"
OBJECT_LIST = "object_list.npy"
BAD_FRAMES = "bad_frames.npy"
ACTION_LABELS = "action_label.npy"
BODY_ARRAYS = {
    "body_pose": "human_pose.npy",
    "global_orient": "human_orient.npy",
    "transl": "human_transl.npy",
    "left_hand_pose": "left_hand_pose.npy",
    "right_hand_pose": "right_hand_pose.npy",
    "betas": "betas.npy",
}
"""File of each SMPL-X array."""

INTERACTIONS = (
    "lie down",
    "squat",
    "use the mouse",
    "use the keyboard",
    "use the laptop",
    "use the phone",
    "read the book",
    "drink from the bottle",
    "write with the pen",
    "handle the vase",
)
"""The ten classes of ``action_label.npy``, by number, as actions."""

_CHUNK = 200_000
"""Rows of ``seg_name.npy`` compared at once (it holds some hundred megabytes of text)."""


@dataclass(frozen=True)
class Segment:
    """Rows ``start`` up to ``end`` (exclusive) of the concatenated arrays."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


class FrameArrays:
    """The arrays of a release folder; any of them may be absent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: dict[str, npt.NDArray[Any]] = {}

    def has(self, file_name: str) -> bool:
        """Whether the folder holds this array."""
        return (self.root / file_name).is_file()

    @cached_property
    def segments(self) -> dict[str, Segment]:
        """Rows of each segment, in the arrays' order; empty without ``seg_name.npy``.

        Raises:
            DwmError: the array is not one name a frame, or a segment's rows lie apart.
        """
        if not self.has(SEGMENT_NAMES):
            return {}
        path, names = self.root / SEGMENT_NAMES, self._array(SEGMENT_NAMES)
        if names.ndim != 1 or names.dtype.kind not in "UO":
            raise DwmError(f"{path}: is {names.dtype} {names.shape}, not one name a frame; {RELEASE_REMEDY}")
        borders = [0] if len(names) else []
        for start in range(0, len(names), _CHUNK):
            rows = names[start : start + _CHUNK + 1]  # one row more: a change may fall between two chunks
            borders += (np.flatnonzero(rows[1:] != rows[:-1]) + start + 1).tolist()
        segments: dict[str, Segment] = {}
        for start, end in itertools.pairwise([*borders, len(names)]):
            name = str(names[start])
            if name in segments:
                raise DwmError(
                    f"{path}: the frames of '{name}' lie apart (rows {segments[name].start} and {start}); "
                    f"{RELEASE_REMEDY}"
                )
            segments[name] = Segment(start, end)
        return segments

    def rows(self, file_name: str, name: str) -> npt.NDArray[Any]:
        """The rows of a segment in one array.

        Raises:
            DwmError: the array is missing, broken or has another length than ``seg_name.npy``.
        """
        segment, total = self.segments[name], len(self._array(SEGMENT_NAMES))
        array = self._array(file_name)
        if array.ndim == 0 or len(array) != total:
            raise DwmError(
                f"{self.root / file_name}: has shape {array.shape} but {SEGMENT_NAMES} names {total} frames; "
                f"{RELEASE_REMEDY}"
            )
        result: npt.NDArray[Any] = array[segment.start : segment.end]
        return result

    def scene_id(self, name: str) -> str:
        """Scene of a segment.

        Raises:
            DwmError: an array is missing or wrong, or the segment lies in several scenes.
        """
        flags = np.unique(self.rows(SCENE_FLAGS, name))
        scenes = self._array(SCENE_LIST)
        if len(flags) != 1 or not 0 <= int(flags[0]) < len(scenes):
            raise DwmError(
                f"{self.root / SCENE_FLAGS}: '{name}' has the scenes {flags[:5].tolist()}, "
                f"not one of the {len(scenes)} in {SCENE_LIST}; {RELEASE_REMEDY}"
            )
        return str(scenes[int(flags[0])]).removesuffix(".npy")

    def frame_ids(self, name: str) -> Ints:
        """[rows] source frame of each row of a segment; the rows' own order without ``frame_id.npy``."""
        if not self.has(FRAME_IDS):
            return np.arange(len(self.segments[name]))
        return np.asarray(self.rows(FRAME_IDS, name), dtype=np.int64)

    def bad_frames(self, name: str) -> frozenset[int]:
        """Source frames of a segment that ``bad_frames.npy`` lists, as rows of the concatenated arrays.

        Raises:
            DwmError: an array is broken.
        """
        segment = self.segments.get(name)
        if segment is None:
            return frozenset()
        first, last = np.searchsorted(self._bad_rows, [segment.start, segment.end])
        if first == last:
            return frozenset()
        return frozenset(self.frame_ids(name)[self._bad_rows[first:last] - segment.start].tolist())

    def flagged_objects(self, name: str) -> list[str]:
        """Names of the objects that ``object_flag.npy`` marks as present anywhere in a segment; none without it.

        Raises:
            DwmError: an array is broken, or the two do not fit.
        """
        if name not in self.segments or not (self.has(OBJECT_FLAGS) and self.has(OBJECT_LIST)):
            return []
        flags, names = self.rows(OBJECT_FLAGS, name), self._array(OBJECT_LIST)
        if flags.ndim != 2 or names.ndim != 1 or flags.shape[1] != len(names):
            raise DwmError(
                f"{self.root / OBJECT_FLAGS}: has rows of {flags.shape[1:]} objects but {OBJECT_LIST} names "
                f"{names.shape}; {RELEASE_REMEDY}"
            )
        return [str(names[index]).removesuffix(".npy") for index in np.flatnonzero((flags >= 0).any(axis=0))]

    def labelled_actions(self, name: str) -> tuple[ActionInterval, ...]:
        """Runs of a class in ``action_label.npy``: class numbers (-1: none), or one column a class.

        Raises:
            DwmError: the array has another shape or other classes.
        """
        labels, count = self.rows(ACTION_LABELS, name), len(INTERACTIONS)
        if labels.ndim == 2 and labels.shape[1] == count:
            classes = np.where(labels.max(axis=1) > 0, labels.argmax(axis=1), -1)
        elif labels.ndim == 1 and labels.dtype.kind in "iuf" and bool(((labels >= -1) & (labels < count)).all()):
            classes = labels.astype(np.int64)
        else:
            raise DwmError(
                f"{self.root / ACTION_LABELS}: has rows of shape {labels.shape[1:]} for '{name}', "
                f"not one of {count} classes a frame; {RELEASE_REMEDY}"
            )
        frames = self.frame_ids(name)
        borders = [0, *(np.flatnonzero(np.diff(classes)) + 1), len(classes)]
        return tuple(
            ActionInterval(int(frames[start]), int(frames[end - 1]) + 1, INTERACTIONS[int(classes[start])])
            for start, end in itertools.pairwise(borders)
            if classes[start] >= 0
        )

    @cached_property
    def _bad_rows(self) -> Ints:
        if not self.has(BAD_FRAMES):
            return np.zeros(0, np.int64)
        rows = self._array(BAD_FRAMES)
        if rows.size and rows.dtype.kind not in "iu":
            raise DwmError(
                f"{self.root / BAD_FRAMES}: is {rows.dtype} {rows.shape}, not a list of frame numbers; {RELEASE_REMEDY}"
            )
        return np.unique(rows.astype(np.int64))

    def _array(self, file_name: str) -> npt.NDArray[Any]:
        if file_name not in self._open:
            self._open[file_name] = read_npy(self.root / file_name, remedy=RELEASE_REMEDY)
        return self._open[file_name]
