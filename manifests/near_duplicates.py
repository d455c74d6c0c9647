"""Clips that look alike: their first frames have nearly the same fingerprint and their prompts say much the same.

Such clips share a `near_duplicate_group`, which splits keep together (`manifests/splits.py`). The groups follow from
the rows alone, so they do not depend on the order in which clips were built.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field

from manifests.dataset import Dataset
from manifests.schema import ClipStatus
from manifests.unions import Unions


class NearDuplicateSettings(BaseModel):
    """When two clips look alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bits: int = Field(default=6, ge=0, le=32, description="Most bits of 64 in which their first frames may differ.")
    min_words: float = Field(
        default=0.5, ge=0, le=1, description="Least share of words that their prompts have in common (Jaccard)."
    )


@dataclass(frozen=True)
class NearDuplicateReport:
    """What `group_near_duplicates` found: groups, the clips in them, and clips whose group is another than before."""

    groups: int
    clips: int
    changed: int


def group_near_duplicates(dataset: Dataset, settings: NearDuplicateSettings | None = None) -> NearDuplicateReport:
    """Give clips that look alike a common `near_duplicate_group`, which bears the smallest of their ids.

    Only usable clips with a `first_frame_hash` are compared; groups that other sources gave are left alone. Clips are
    compared each with each, 64 bits at a time: about ten seconds for a hundred thousand clips.

    Raises:
        DwmError: the manifest cannot be read or written.
    """
    settings = settings or NearDuplicateSettings()
    usable = ds.field("status").isin([ClipStatus.READY.value, ClipStatus.CONDITIONS_ONLY.value])
    columns = ["clip_id", "first_frame_hash", "prompt", "near_duplicate_group"]
    table = dataset.clips.read(columns, where=usable & ds.field("first_frame_hash").is_valid())
    ids, hashes, prompts, _ = (table.column(name).to_pylist() for name in columns)
    groups = near_duplicate_groups(ids, hashes, prompts, settings)
    changed = dataset.clips.set_values("near_duplicate_group", {clip_id: groups.get(clip_id) for clip_id in ids})
    return NearDuplicateReport(groups=len(set(groups.values())), clips=len(groups), changed=changed)


def near_duplicate_groups(
    ids: Sequence[str], hashes: Sequence[str], prompts: Sequence[str], settings: NearDuplicateSettings
) -> dict[str, str]:
    """Group of every clip that looks like another one, by clip id; a group's name is the smallest id in it."""
    values = np.array([int(value, 16) for value in hashes], np.uint64)
    words = [_words(prompt) for prompt in prompts]
    unions = Unions()
    grouped: set[str] = set()
    for index in range(len(ids)):
        for other in _near(values, index, settings.max_bits):
            if _share(words[index], words[other]) >= settings.min_words:
                unions.join(ids[index], ids[other])
                grouped |= {ids[index], ids[other]}
    return {clip_id: unions.find(clip_id) for clip_id in sorted(grouped)}


def _near(values: npt.NDArray[np.uint64], index: int, max_bits: int) -> list[int]:
    """Later entries whose bits differ in at most ``max_bits`` places."""
    distances = np.bitwise_count(values[index + 1 :] ^ values[index])
    return [int(found) + index + 1 for found in np.flatnonzero(distances <= max_bits)]


def _words(prompt: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", prompt.lower()))


def _share(first: frozenset[str], second: frozenset[str]) -> float:
    """Words in common as a share of all words; two empty prompts say the same."""
    return len(first & second) / len(first | second) if first or second else 1.0
