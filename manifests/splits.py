"""Splits: which clips are for training, validation and test, and what every policy promises.

Only ready clips are split. A conditions-only clip (it has no ground truth and cannot be trained on) is in ``test``
when what it belongs to is, else in no split, so that it never makes a leak. Dropped and failed clips have no split.

The disjoint policies put whole *units* (scenes, or recordings, of one source) into a split by a hash of the seed and
the unit's name. A unit therefore keeps its split when other data is added. Units that share a near-duplicate group
count as one, under the smallest of their names. The one exception to the stability follows from that: a new clip that
looks like clips of two units merges them, and the unit with the larger name may move.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manifests.atomic import write_text
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.leaks import LeakCount, LeakLevel, audit_leaks
from manifests.official_lists import read_lists
from manifests.schema import ClipStatus, Split
from manifests.unions import Unions

logger = logging.getLogger(__name__)

SPLITS_FILE = "splits.json"
"""File of a dataset that says which policy made its splits."""


class SplitPolicy(StrEnum):
    """How clips are put into splits."""

    OFFICIAL = "official"
    """As the imported list files say; promises nothing about what the splits share but the clips."""
    SCENE_DISJOINT = "scene-disjoint"
    """No scene, recording or near-duplicate in two splits."""
    RECORDING_DISJOINT = "recording-disjoint"
    """No recording or near-duplicate in two splits."""
    IN_ORDER = "in-order"
    """For small given sets: recordings in list order (else by id), the first train, the last test. Not stable when
    data is added; no recording or near-duplicate in two splits."""


FORBIDDEN_LEAKS: dict[SplitPolicy, frozenset[LeakLevel]] = {
    SplitPolicy.OFFICIAL: frozenset({LeakLevel.CLIP}),
    SplitPolicy.SCENE_DISJOINT: frozenset(LeakLevel),
    SplitPolicy.RECORDING_DISJOINT: frozenset(LeakLevel) - {LeakLevel.SCENE},
    SplitPolicy.IN_ORDER: frozenset(LeakLevel) - {LeakLevel.SCENE},
}
"""Levels at which a policy promises that splits share nothing; a leak there is an error of ``dwm check``."""


class SplitSettings(BaseModel):
    """Settings of the policies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, description="Seed of the hash that places units.")
    train: float = Field(default=0.8, description="Fraction of units for training.", ge=0, le=1)
    validation: float = Field(default=0.1, description="Fraction of units for validation.", ge=0, le=1)
    test: float = Field(default=0.1, description="Fraction of units for test.", ge=0, le=1)
    ensure_every_split: bool = Field(
        default=False,
        description="Small datasets: fill a split that the hash left empty with the unit whose hash is nearest. Such "
        "a unit may move back when data is added.",
    )
    list_splits: dict[str, Split] = Field(
        default_factory=dict,
        description="Policy `official`: split of a list file whose name does not say it, by file name.",
    )

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"train + validation + test is {total:g}, it must be 1")
        return self

    def fraction(self, split: Split) -> float:
        """Fraction of the units that a split gets."""
        return {Split.TRAIN: self.train, Split.VALIDATION: self.validation, Split.TEST: self.test}[split]


class SplitDeclaration(BaseModel):
    """What ``splits.json`` holds: how the present splits were made."""

    model_config = ConfigDict(frozen=True)

    policy: SplitPolicy = Field(description="The policy.")
    settings: SplitSettings = Field(description="Its settings.")


@dataclass(frozen=True, kw_only=True)
class SplitCount:
    """Size of one split: ready clips, conditions-only clips, and the units (scenes, recordings) of the ready ones."""

    split: Split
    ready_clips: int
    conditions_only_clips: int
    units: int


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What `assign_splits` did.

    Attributes:
        policy: The policy.
        counts: Sizes, one entry a split.
        without_split: Clips that got no split (dropped, failed, unlisted, conditions-only outside test).
        changed: Clips whose split is another than before.
        leaks: What the splits share, one entry a level.
        notes: Sentences that a user should read: empty splits, ready clips in no list, listed clips that are missing.
    """

    policy: SplitPolicy
    counts: tuple[SplitCount, ...]
    without_split: int
    changed: int
    leaks: tuple[LeakCount, ...]
    notes: tuple[str, ...]


class Candidate(NamedTuple):
    """What the policies look at in a clip."""

    clip_id: str
    source: str
    scene_id: str
    recording_id: str
    near_duplicate_group: str | None
    official_path: str | None
    list_order: int | None
    status: str


def assign_splits(dataset: Dataset, policy: SplitPolicy, settings: SplitSettings | None = None) -> SplitReport:
    """Put every ready clip of a dataset into a split and remember how in ``splits.json``.

    Args:
        dataset: The dataset; its clips' ``split`` column is replaced in one atomic change.
        policy: The policy.
        settings: Seed, fractions and options.

    Raises:
        DwmError: policy ``official`` and no lists, a list whose name says no split, or a clip in two splits;
            ``ensure_every_split`` with fewer units than splits; the dataset cannot be written.
    """
    settings = settings or SplitSettings()
    table = dataset.clips.read(list(Candidate._fields))
    candidates = [Candidate(*values) for values in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    units = unit_names(candidates, policy)
    notes: list[str] = []
    if policy is SplitPolicy.OFFICIAL:
        lists = read_lists(dataset.lists_folder, settings.list_splits)
        notes.extend(_list_notes(candidates, lists))
        splits = {clip.clip_id: lists.get(clip.official_path or "") for clip in candidates}
    else:
        placed = place_units(candidates, units, policy, settings)
        splits = {clip.clip_id: placed.get(units[clip.clip_id]) for clip in candidates}
    final = {clip.clip_id: _allowed_split(clip, splits[clip.clip_id]) for clip in candidates}
    changed = dataset.clips.set_values("split", final)
    declaration = SplitDeclaration(policy=policy, settings=settings)
    write_text(dataset.root / SPLITS_FILE, declaration.model_dump_json(indent=2) + "\n")
    counts = _counts(candidates, units, final)
    notes.extend(_empty_notes(counts, policy, settings))
    for note in notes:
        logger.warning("%s: %s", dataset.root, note)
    return SplitReport(
        policy=policy,
        counts=counts,
        without_split=sum(split is None for split in final.values()),
        changed=changed,
        leaks=audit_leaks(dataset),
        notes=tuple(notes),
    )


def declared_splits(dataset: Dataset) -> SplitDeclaration | None:
    """How the splits of a dataset were made; None when nobody has split it.

    Raises:
        DwmError: ``splits.json`` is damaged.
    """
    path = dataset.root / SPLITS_FILE
    if not path.exists():
        return None
    try:
        return SplitDeclaration.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DwmError(f"{path}: damaged; run `dwm split` again") from error


def unit_names(candidates: Iterable[Candidate], policy: SplitPolicy) -> dict[str, str]:
    """Unit of every clip, by clip id: ``source:scene`` for `SplitPolicy.SCENE_DISJOINT`, else ``source:recording``.

    Units that share a near-duplicate group, and scenes that share a recording, are one, under the smallest name.
    """
    unions = Unions()
    own: dict[str, str] = {}
    first_with: dict[tuple[str, str], str] = {}
    for clip in candidates:
        name = clip.scene_id if policy is SplitPolicy.SCENE_DISJOINT else clip.recording_id
        unit = own[clip.clip_id] = f"{clip.source}:{name}"
        ties = [("recording", f"{clip.source}:{clip.recording_id}")]
        if clip.near_duplicate_group is not None and policy is not SplitPolicy.OFFICIAL:
            ties.append(("near_duplicate", clip.near_duplicate_group))
        for tie in ties:
            unions.join(unit, first_with.setdefault(tie, unit))
    return {clip_id: unions.find(unit) for clip_id, unit in own.items()}


def place_units(
    candidates: Sequence[Candidate], units: Mapping[str, str], policy: SplitPolicy, settings: SplitSettings
) -> dict[str, Split]:
    """Split of every unit.

    Args:
        candidates: Clips of any status; units without a ready or conditions-only clip are left out.
        units: Unit of every clip, from `unit_names`.
        policy: Any but ``official``.
        settings: Seed, fractions and options.

    Raises:
        DwmError: ``ensure_every_split`` with fewer units of ready clips than splits.
    """
    ready: dict[str, tuple[bool, int, str, str]] = {}
    others: set[str] = set()
    for clip in candidates:
        unit = units[clip.clip_id]
        if clip.status == ClipStatus.READY:
            order = (clip.list_order is None, clip.list_order or 0, clip.recording_id, clip.clip_id)
            ready[unit] = min(order, ready.get(unit, order))
        elif clip.status == ClipStatus.CONDITIONS_ONLY:
            others.add(unit)
    if policy is SplitPolicy.IN_ORDER:
        placed = _place_in_order(sorted(ready, key=ready.__getitem__), settings)
        return dict.fromkeys(others, Split.TEST) | placed
    hashes = {unit: unit_hash(unit, settings.seed) for unit in ready}
    placed = {unit: _split_at(value, settings) for unit, value in hashes.items()}
    if settings.ensure_every_split:
        _fill_empty_splits(placed, hashes, settings)
    return {unit: _split_at(unit_hash(unit, settings.seed), settings) for unit in others} | placed


def unit_hash(unit: str, seed: int) -> float:
    """Place of a unit in [0, 1): the same on every machine, whatever else is in the dataset."""
    digest = hashlib.sha256(json.dumps([seed, unit]).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _bounds(split: Split, settings: SplitSettings) -> tuple[float, float]:
    """The part of [0, 1) that a split owns."""
    lower = {
        Split.TRAIN: 0.0,
        Split.VALIDATION: settings.train,
        Split.TEST: settings.train + settings.validation,
    }[split]
    return lower, lower + settings.fraction(split)


def _split_at(value: float, settings: SplitSettings) -> Split:
    wanted = [split for split in Split if settings.fraction(split) > 0]
    return next((split for split in wanted if value < _bounds(split, settings)[1]), wanted[-1])


def _fill_empty_splits(placed: dict[str, Split], hashes: Mapping[str, float], settings: SplitSettings) -> None:
    """Move the unit with the nearest hash into every empty split, from splits that keep another."""
    wanted = [split for split in Split if settings.fraction(split) > 0]
    if len(placed) < len(wanted):
        raise DwmError(
            f"splits: {len(placed)} scenes or recordings with ready clips cannot fill {len(wanted)} splits; add clips "
            "or set the fraction of a split to 0"
        )
    for split in reversed(wanted):
        if split in placed.values():
            continue
        counts = {other: list(placed.values()).count(other) for other in Split}
        lower, upper = _bounds(split, settings)
        movable = [unit for unit, other in placed.items() if counts[other] > 1]
        nearest = min(movable, key=lambda unit: (max(lower - hashes[unit], hashes[unit] - upper), unit))
        placed[nearest] = split


def _place_in_order(ordered: Sequence[str], settings: SplitSettings) -> dict[str, Split]:
    """First units to training, last to test; from three units on every split that has a fraction gets one."""
    total = len(ordered)
    test = max(1, round(total * settings.test)) if settings.test > 0 and total >= 2 else 0
    validation = max(1, round(total * settings.validation)) if settings.validation > 0 and total >= 3 else 0
    train = max(total - test - validation, 0)
    splits = [Split.TRAIN] * train + [Split.VALIDATION] * validation + [Split.TEST] * test
    return dict(zip(ordered, splits[:total], strict=True))


def _list_notes(candidates: Sequence[Candidate], lists: Mapping[str, Split]) -> list[str]:
    paths = {clip.official_path for clip in candidates}
    unlisted = [c.clip_id for c in candidates if c.status == ClipStatus.READY and c.official_path not in lists]
    absent = [path for path in lists if path not in paths]
    notes = []
    if unlisted:
        notes.append(f"{len(unlisted)} ready clips are in no list and get no split (first: {min(unlisted)})")
    if absent:
        notes.append(f"{len(absent)} listed paths have no clip (first: {absent[0]})")
    return notes


def _allowed_split(clip: Candidate, split: Split | None) -> Split | None:
    if clip.status == ClipStatus.READY or (clip.status == ClipStatus.CONDITIONS_ONLY and split is Split.TEST):
        return split
    return None


def _counts(
    candidates: Sequence[Candidate], units: Mapping[str, str], final: Mapping[str, Split | None]
) -> tuple[SplitCount, ...]:
    counts = []
    for split in Split:
        inside = [clip for clip in candidates if final[clip.clip_id] is split]
        ready = [clip.clip_id for clip in inside if clip.status == ClipStatus.READY]
        counts.append(
            SplitCount(
                split=split,
                ready_clips=len(ready),
                conditions_only_clips=len(inside) - len(ready),
                units=len({units[clip_id] for clip_id in ready}),
            )
        )
    return tuple(counts)


def _empty_notes(counts: Sequence[SplitCount], policy: SplitPolicy, settings: SplitSettings) -> list[str]:
    total = sum(count.units for count in counts)
    remedy = {
        SplitPolicy.OFFICIAL: "no list is for it, or none of its clips is ready",
        SplitPolicy.IN_ORDER: "add clips",
    }.get(policy, "set ensure_every_split, use policy in-order, or add clips")
    return [
        f"split {count.split.value} is empty ({total} scenes or recordings with ready clips in all); {remedy}"
        for count in counts
        if count.ready_clips == 0 and settings.fraction(count.split) > 0
    ]
