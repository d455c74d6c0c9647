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
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manifests.atomic import write_text
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.leaks import LeakLevel, LeakReport, audit_leaks
from manifests.official_lists import read_lists
from manifests.schema import ClipStatus, Split
from manifests.split_units import unit_names

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
"""Levels at which a policy promises that splits share nothing, unless `SplitSettings.may_share` says otherwise."""

KEPT_LEVELS: dict[SplitPolicy, tuple[LeakLevel, ...]] = {
    policy: tuple(level for level in LeakLevel if level in levels - {LeakLevel.CLIP})
    for policy, levels in FORBIDDEN_LEAKS.items()
}
"""Levels whose clips a policy puts into one split; copies of a video under two names it does not know of."""

SPLIT_COLUMNS = (
    "clip_id",
    "source",
    "scene_id",
    "recording_id",
    "near_duplicate_group",
    "official_path",
    "list_order",
    "status",
)
"""Columns of the clips table that the policies look at."""


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

    may_share: tuple[LeakLevel, ...] | None = Field(
        default=None,
        description="Levels at which splits may share something; a leak at any other fails the audit. None: what the "
        "policy allows.",
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

    @property
    def forbidden(self) -> tuple[LeakLevel, ...]:
        """Levels at which the splits must share nothing, from the gravest."""
        return forbidden_levels(self.policy, self.settings.may_share)


def forbidden_levels(policy: SplitPolicy, may_share: Collection[LeakLevel] | None) -> tuple[LeakLevel, ...]:
    """Levels at which splits must share nothing, from the gravest: the policy's, unless others are given."""
    if may_share is None:
        return tuple(level for level in LeakLevel if level in FORBIDDEN_LEAKS[policy])
    return tuple(level for level in LeakLevel if level not in may_share)


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
        leaks: What the splits share, one entry a level, and what they must not share.
        notes: Sentences that a user should read: empty splits, ready clips in no list, listed clips that are missing.
    """

    policy: SplitPolicy
    counts: tuple[SplitCount, ...]
    without_split: int
    changed: int
    leaks: LeakReport
    notes: tuple[str, ...]


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
    declaration = SplitDeclaration(policy=policy, settings=settings or SplitSettings())
    settings = declaration.settings
    clips = dataset.clips.read(SPLIT_COLUMNS)
    units = policy_units(clips, policy)
    notes: list[str] = []
    if policy is SplitPolicy.OFFICIAL:
        lists = read_lists(dataset.lists_folder, settings.list_splits)
        notes.extend(_list_notes(clips, lists))
        splits = _looked_up(clips.column("official_path"), lists)
    else:
        splits = _looked_up(units, place_units(clips, units, policy, settings))
    splits = _allowed_splits(clips.column("status"), splits)
    changed = dataset.clips.set_column("split", clips.column("clip_id").combine_chunks(), splits)
    write_text(dataset.root / SPLITS_FILE, declaration.model_dump_json(indent=2) + "\n")
    counts = _counts(clips.column("status"), units, splits)
    notes.extend(_empty_notes(counts, policy, settings))
    for note in notes:
        logger.warning("%s: %s", dataset.root, note)
    return SplitReport(
        policy=policy,
        counts=counts,
        without_split=splits.null_count,
        changed=changed,
        leaks=leak_report(dataset, declaration),
        notes=tuple(notes),
    )


def leak_report(dataset: Dataset, declaration: SplitDeclaration) -> LeakReport:
    """What the splits of a dataset share, against what was declared.

    Raises:
        DwmError: the manifest cannot be read.
    """
    return LeakReport(
        dataset=dataset.root.name,
        policy=declaration.policy.value,
        forbidden=declaration.forbidden,
        kept=KEPT_LEVELS[declaration.policy],
        counts=audit_leaks(dataset),
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


def policy_units(clips: pa.Table, policy: SplitPolicy) -> pa.Array:
    """Unit of every clip [N]: a scene for `SplitPolicy.SCENE_DISJOINT`, else a recording; see `unit_names`."""
    by = "scene_id" if policy is SplitPolicy.SCENE_DISJOINT else "recording_id"
    return unit_names(clips, by=by, with_alike=policy is not SplitPolicy.OFFICIAL)


def place_units(clips: pa.Table, units: pa.Array, policy: SplitPolicy, settings: SplitSettings) -> dict[str, Split]:
    """Split of every unit.

    Args:
        clips: `SPLIT_COLUMNS` of N clips of any status; units without a ready or conditions-only clip are left out.
        units: Unit of every clip [N], from `policy_units`.
        policy: Any but ``official``.
        settings: Seed, fractions and options.

    Raises:
        DwmError: ``ensure_every_split`` with fewer units of ready clips than splits.
    """
    status = clips.column("status")
    is_ready = pc.equal(status, ClipStatus.READY.value)
    others = pc.unique(units.filter(pc.equal(status, ClipStatus.CONDITIONS_ONLY.value))).to_pylist()
    if policy is SplitPolicy.IN_ORDER:
        keys = [("list_order", "ascending"), ("recording_id", "ascending"), ("clip_id", "ascending")]
        order = pc.sort_indices(clips.filter(is_ready), sort_keys=keys)
        ordered = pc.unique(units.filter(is_ready).take(order)).to_pylist()
        return dict.fromkeys(others, Split.TEST) | _place_in_order(ordered, settings)
    hashes = {unit: unit_hash(unit, settings.seed) for unit in pc.unique(units.filter(is_ready)).to_pylist()}
    placed = _splits_at(hashes, settings)
    if settings.ensure_every_split:
        _fill_empty_splits(placed, hashes, settings)
    return _splits_at({unit: unit_hash(unit, settings.seed) for unit in others}, settings) | placed


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


def _splits_at(hashes: Mapping[str, float], settings: SplitSettings) -> dict[str, Split]:
    """Split that owns the place of each unit."""
    wanted = [split for split in Split if settings.fraction(split) > 0]
    ends = [_bounds(split, settings)[1] for split in wanted]
    return {unit: wanted[min(bisect_right(ends, place), len(ends) - 1)] for unit, place in hashes.items()}


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


def _list_notes(clips: pa.Table, lists: Mapping[str, Split]) -> list[str]:
    paths = clips.column("official_path")
    listed = pa.array(list(lists), pa.string())
    is_ready = pc.equal(clips.column("status"), ClipStatus.READY.value)
    unlisted = clips.column("clip_id").filter(pc.and_not(is_ready, pc.is_in(paths, value_set=listed)))
    absent = listed.filter(pc.invert(pc.is_in(listed, value_set=paths.combine_chunks())))
    notes = []
    if len(unlisted):
        notes.append(f"{len(unlisted)} ready clips are in no list and get no split (first: {pc.min(unlisted)})")
    if len(absent):
        notes.append(f"{len(absent)} listed paths have no clip (first: {absent[0]})")
    return notes


def _looked_up(names: pa.Array | pa.ChunkedArray, splits: Mapping[str, Split]) -> pa.Array:
    """Split of each name [N]; null for names without one."""
    positions = pc.index_in(names, value_set=pa.array(list(splits), pa.string()))
    found = pa.array([split.value for split in splits.values()], pa.string()).take(positions)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _allowed_splits(status: pa.ChunkedArray, splits: pa.Array) -> pa.Array:
    """Splits [N] of the clips that may have theirs, null for the others."""
    is_ready = pc.equal(status, ClipStatus.READY.value)
    has_conditions = pc.equal(status, ClipStatus.CONDITIONS_ONLY.value)
    allowed = pc.or_(is_ready, pc.and_(has_conditions, pc.equal(splits, Split.TEST.value)))
    return pc.if_else(allowed, splits, None).combine_chunks()


def _counts(status: pa.ChunkedArray, units: pa.Array, splits: pa.Array) -> tuple[SplitCount, ...]:
    is_ready = pc.equal(status, ClipStatus.READY.value)
    counts = []
    for split in Split:
        inside = pc.equal(splits, split.value)
        ready = pc.and_(inside, is_ready)
        ready_clips = pc.sum(ready).as_py() or 0
        counts.append(
            SplitCount(
                split=split,
                ready_clips=ready_clips,
                conditions_only_clips=(pc.sum(inside).as_py() or 0) - ready_clips,
                units=pc.count_distinct(units.filter(ready.combine_chunks()), mode="only_valid").as_py(),
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
