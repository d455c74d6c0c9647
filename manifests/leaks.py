"""Leaks between splits: what the clips of two splits share, at four levels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from manifests.dataset import Dataset

_EXAMPLES = 3


class LeakLevel(StrEnum):
    """What two splits may share, from the gravest."""

    CLIP = "clip"
    """The same interaction video, byte for byte, under two clip ids."""
    NEAR_DUPLICATE = "near_duplicate"
    """Clips that look alike (`near_duplicate_group`)."""
    RECORDING = "recording"
    """Clips cut from one recording."""
    SCENE = "scene"
    """Clips that show one scene."""


@dataclass(frozen=True, kw_only=True)
class LeakCount:
    """What the splits share at one level.

    Attributes:
        level: The level.
        shared: Number of videos, groups, recordings or scenes with clips in more than one split.
        clips: Number of clips in them.
        examples: The first few of the shared names, sorted; recordings and scenes as ``source:name``.
    """

    level: LeakLevel
    shared: int
    clips: int
    examples: tuple[str, ...]


def audit_leaks(dataset: Dataset) -> tuple[LeakCount, ...]:
    """Count what the splits of a dataset share, one `LeakCount` a level.

    For scale: in the published TRUMANS lists every test scene also occurs in training, and no test recording does.

    Raises:
        DwmError: the manifest cannot be read.
    """
    columns = ["source", "scene_id", "recording_id", "near_duplicate_group", "output_hashes", "split"]
    table = dataset.clips.read(columns, where=ds.field("split").is_valid())
    names = {
        LeakLevel.CLIP: pc.map_lookup(table.column("output_hashes"), "interaction_path", "first"),
        LeakLevel.NEAR_DUPLICATE: table.column("near_duplicate_group"),
        LeakLevel.RECORDING: _qualified(table, "recording_id"),
        LeakLevel.SCENE: _qualified(table, "scene_id"),
    }
    return tuple(_count(level, names[level], table.column("split")) for level in LeakLevel)


def _qualified(table: pa.Table, column: str) -> pa.ChunkedArray:
    """Names with their source before them: two sources may use the same name for different scenes."""
    return pc.binary_join_element_wise(table.column("source"), table.column(column), ":")


def _count(level: LeakLevel, names: pa.ChunkedArray, splits: pa.ChunkedArray) -> LeakCount:
    table = pa.table({"name": names, "split": splits}).filter(pc.is_valid(names))
    groups = table.group_by("name").aggregate([("split", "count_distinct"), ("split", "count")])
    shared = groups.filter(pc.greater(groups.column("split_count_distinct"), 1))
    examples = sorted(shared.column("name").to_pylist())[:_EXAMPLES]
    clips = pc.sum(shared.column("split_count")).as_py() or 0
    return LeakCount(level=level, shared=shared.num_rows, clips=clips, examples=tuple(examples))
