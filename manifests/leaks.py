"""Leaks between splits: what the clips of two splits share, at four levels, and whether they may."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.split_units import qualified_names

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


@dataclass(frozen=True, kw_only=True)
class LeakReport:
    """What the splits of a dataset share, against what its policy promises.

    Attributes:
        dataset: Name of the dataset folder.
        policy: Name of the policy.
        forbidden: Levels at which the splits must share nothing, from the gravest.
        kept: Levels that splitting again by the policy keeps free of leaks.
        counts: What the splits share, one entry a level.
    """

    dataset: str
    policy: str
    forbidden: tuple[LeakLevel, ...]
    kept: tuple[LeakLevel, ...]
    counts: tuple[LeakCount, ...]

    @property
    def exceeded(self) -> tuple[LeakCount, ...]:
        """Leaks at forbidden levels, from the gravest."""
        return tuple(count for count in self.counts if count.shared and count.level in self.forbidden)

    def verdict(self, count: LeakCount) -> str:
        """Whether a level's promise is kept."""
        if count.level not in self.forbidden:
            return "may share"
        return "BROKEN" if count.shared else "kept"

    def remedy(self, level: LeakLevel) -> str:
        """What ends a forbidden leak, or allows it."""
        if level in self.kept:
            return "run `dwm split` again"
        allow = f"or allow it with `dwm split --may-share {level.value}`"
        if level is LeakLevel.CLIP:
            return f"splitting again does not help: keep one of the copies, {allow}"
        return f"policy {self.policy} does not keep them together: choose a stricter one, {allow}"

    def cells(self) -> list[tuple[str, ...]]:
        """The table below `LEAK_TABLE_HEAD`, a row a level."""
        return [
            (
                count.level.value,
                str(count.shared),
                str(count.clips),
                self.verdict(count),
                ", ".join(count.examples),
            )
            for count in self.counts
        ]

    def lines(self) -> list[str]:
        """The table for people, with aligned columns."""
        rows = [LEAK_TABLE_HEAD, *self.cells()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(LEAK_TABLE_HEAD))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


LEAK_TABLE_HEAD = ("level", "shared", "clips", "promise", "examples")
"""Head of the table of `LeakReport.cells`."""


class LeakError(DwmError):
    """Splits share what their policy forbids.

    Attributes:
        report: The audit; its `LeakReport.lines` are the table.
    """

    def __init__(self, report: LeakReport) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        broken = "; ".join(
            f"{count.shared} at level {count.level.value} ({count.clips} clips, such as {count.examples[0]}; "
            f"{self.report.remedy(count.level)})"
            for count in self.report.exceeded
        )
        return f"{self.report.dataset}: splits share what policy {self.report.policy} forbids: {broken}"


def require_no_leak(report: LeakReport) -> None:
    """Stop a build whose splits share more than was declared.

    Raises:
        LeakError: they share something at a forbidden level; it carries the table.
    """
    if report.exceeded:
        raise LeakError(report)


def audit_leaks(dataset: Dataset) -> tuple[LeakCount, ...]:
    """Count what the splits of a dataset share, one `LeakCount` a level.

    For scale: in the published TRUMANS lists every test scene also occurs in training, and no test recording does.

    Raises:
        DwmError: the manifest cannot be read.
    """
    columns = ["source", "scene_id", "recording_id", "near_duplicate_group", "output_hashes", "split"]
    clips = dataset.clips.read(columns, where=ds.field("split").is_valid())
    names = {
        LeakLevel.CLIP: _values_of(clips.column("output_hashes"), "interaction_path"),
        LeakLevel.NEAR_DUPLICATE: clips.column("near_duplicate_group"),
        LeakLevel.RECORDING: qualified_names(clips, "recording_id"),
        LeakLevel.SCENE: qualified_names(clips, "scene_id"),
    }
    return tuple(_count(level, names[level], clips.column("split")) for level in LeakLevel)


def _values_of(maps: pa.ChunkedArray, key: str) -> pa.ChunkedArray:
    """Value of a key in each map [N], null where a map lacks it; several times as fast as `pc.map_lookup`."""
    return pa.chunked_array([_values_in_chunk(chunk, key) for chunk in maps.chunks], maps.type.item_type)


def _values_in_chunk(maps: pa.MapArray, key: str) -> pa.Array:
    offsets = maps.offsets.to_numpy()
    entries = slice(int(offsets[0]), int(offsets[-1]))
    is_wanted = pc.equal(maps.keys[entries], key)
    owners = np.repeat(np.arange(len(maps)), np.diff(offsets))[is_wanted.to_numpy(zero_copy_only=False)]
    places = np.full(len(maps), -1)
    places[owners] = np.arange(len(owners))
    return maps.items[entries].filter(is_wanted).take(pa.array(places, mask=places < 0))


def _count(level: LeakLevel, names: pa.ChunkedArray, splits: pa.ChunkedArray) -> LeakCount:
    if names.null_count:
        is_named = names.is_valid()
        names, splits = names.filter(is_named), splits.filter(is_named)
    named, split = (column.combine_chunks().dictionary_encode() for column in (names, splits))
    shape = len(named.dictionary), len(split.dictionary)
    pairs = named.indices.to_numpy().astype(np.int64) * shape[1] + split.indices.to_numpy()
    clips_in = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
    is_shared = (clips_in > 0).sum(axis=1) > 1
    return LeakCount(
        level=level,
        shared=int(is_shared.sum()),
        clips=int(clips_in[is_shared].sum()),
        examples=tuple(sorted(named.dictionary.filter(pa.array(is_shared)).to_pylist())[:_EXAMPLES]),
    )
