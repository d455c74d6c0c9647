"""Frozen benchmarks: hashed lists of clips with settings, so that only like is put beside like in a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Self

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manifests.atomic import write_text
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import hash_json
from manifests.locks import exclusive_lock
from manifests.schema import ClipStatus, Split, utc_now


class BenchmarkSettings(BaseModel):
    """How the clips of a benchmark are generated and compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(description="Width of the generated videos, pixels.", gt=0)
    height: int = Field(description="Height of the generated videos, pixels.", gt=0)
    num_frames: int = Field(description="Frames of the generated videos.", gt=0)
    seeds: tuple[int, ...] = Field(
        default=(0,), description="Seeds of the initial noise: one video each.", min_length=1
    )


class FrozenBenchmark(BenchmarkSettings):
    """A list of clips with settings that never changes; `hash` says what a result was measured on."""

    name: str = Field(description="Name; not part of the hash.", min_length=1)
    clip_ids: tuple[str, ...] = Field(description="The clips, sorted.", min_length=1)
    content_hash: str = Field(description="`Dataset.content_hash` of the clips when the benchmark was frozen.")
    created_at: datetime = Field(default_factory=utc_now, description="When it was frozen, UTC; not part of the hash.")
    hash: str = Field(default="", description="Hash of clips, content and settings; computed when empty.")

    @property
    def settings(self) -> BenchmarkSettings:
        """Size, length and seeds alone."""
        return BenchmarkSettings(width=self.width, height=self.height, num_frames=self.num_frames, seeds=self.seeds)

    @model_validator(mode="after")
    def _hash_fits(self) -> Self:
        expected = hash_json([list(self.clip_ids), self.content_hash, self.settings.model_dump(mode="json")])
        if not self.hash:
            object.__setattr__(self, "hash", expected)  # the model is frozen for everybody else
        elif self.hash != expected:
            raise ValueError(f"benchmark '{self.name}' does not fit its hash: it was edited by hand")
        return self


class _BenchmarkFile(BaseModel):
    """What ``benchmarks.json`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmarks: tuple[FrozenBenchmark, ...] = ()


def freeze(dataset: Dataset, name: str, clips: Split | Iterable[str], settings: BenchmarkSettings) -> FrozenBenchmark:
    """Freeze a benchmark, or return the one of this name if it has the same clips, content and settings.

    Args:
        dataset: The dataset; ``benchmarks.json`` is written in it.
        name: Name of the benchmark.
        clips: Clip ids, or a split: all its ready clips.
        settings: Size, length and seeds.

    Raises:
        DwmError: the name belongs to another benchmark; there are no clips; a clip is not ready or unknown.
    """
    if isinstance(clips, Split):
        clip_ids = dataset.clips.keys(
            (ds.field("split") == clips.value) & (ds.field("status") == ClipStatus.READY.value)
        )
        if not clip_ids:
            raise DwmError(
                f"{dataset.root}: split {clips.value} has no ready clips; run `dwm split` or choose another split"
            )
    else:
        clip_ids = set(clips)
        _require_ready(dataset, name, clip_ids)
    benchmark = FrozenBenchmark(
        name=name,
        clip_ids=tuple(sorted(clip_ids)),
        **settings.model_dump(),
        content_hash=dataset.content_hash(clip_ids),
    )
    with exclusive_lock(dataset.root / ".benchmarks.lock"):
        existing = {known.name: known for known in frozen(dataset)}
        if name in existing:
            if existing[name].hash != benchmark.hash:
                raise DwmError(
                    f"{dataset.benchmarks_path}: benchmark '{name}' is frozen with "
                    f"{_difference(existing[name], benchmark)}; freeze under a new name"
                )
            return existing[name]
        _write(dataset, [*existing.values(), benchmark])
    return benchmark


def load_or_freeze(dataset: Dataset, name: str, split: Split, settings: BenchmarkSettings) -> FrozenBenchmark:
    """The benchmark frozen under this name, whatever was added to the split since; frozen now when there is none.

    Args:
        dataset: The dataset.
        name: Name of the benchmark.
        split: The clips where nothing is frozen yet; the frozen ones must still be in it.
        settings: Size, length and seeds where nothing is frozen yet.

    Raises:
        DwmError: as `load` and `freeze`; a frozen clip is in another split now, so that a run may have learned it.
    """
    if name not in {known.name for known in frozen(dataset)}:
        return freeze(dataset, name, split, settings)
    benchmark = load(dataset, name)
    moved = set(benchmark.clip_ids) - dataset.clips.keys(ds.field("split") == split.value)
    if moved:
        raise DwmError(
            f"{dataset.benchmarks_path}: clip '{min(moved)}' of benchmark '{name}' is not in split {split.value} any "
            f"more ({len(moved)} such clips); freeze a benchmark under a new name, or split as before"
        )
    return benchmark


def frozen(dataset: Dataset) -> tuple[FrozenBenchmark, ...]:
    """All frozen benchmarks of a dataset, by name.

    Raises:
        DwmError: the file is damaged.
    """
    path = dataset.benchmarks_path
    if not path.exists():
        return ()
    try:
        return _BenchmarkFile.model_validate_json(path.read_bytes()).benchmarks
    except ValidationError as error:
        raise DwmError(f"{path}: damaged: {error.errors()[0]['msg']}; restore it from a copy, or remove it") from error


def load(dataset: Dataset, name: str) -> FrozenBenchmark:
    """The frozen benchmark of this name, after checking that its clips are still those that were frozen.

    Raises:
        DwmError: no such benchmark; ``benchmarks.json`` is damaged or was edited; a clip is gone or has other content.
    """
    benchmarks = {benchmark.name: benchmark for benchmark in frozen(dataset)}
    if name not in benchmarks:
        known = ", ".join(sorted(benchmarks)) or "none is frozen"
        raise DwmError(f"{dataset.benchmarks_path}: no benchmark '{name}'; known: {known}")
    benchmark = benchmarks[name]
    if dataset.content_hash(benchmark.clip_ids) != benchmark.content_hash:
        raise DwmError(
            f"{dataset.benchmarks_path}: clips of benchmark '{name}' have other content than when it was frozen; "
            "restore them or freeze under a new name"
        )
    return benchmark


def require_same(hashes: Mapping[str, str]) -> str:
    """The one benchmark hash that all results share.

    Args:
        hashes: Benchmark hash of each result, by what the user calls it (a file, a method).

    Raises:
        DwmError: results of different benchmarks, or none at all.
    """
    if not hashes:
        raise DwmError("results: none given; run `dwm benchmark` first")
    (first_name, first_hash), *others = sorted(hashes.items())
    for name, value in others:
        if value != first_hash:
            raise DwmError(
                f"{name}: measured on benchmark {value[:12]}, but {first_name} on {first_hash[:12]}; results of "
                "different benchmarks are never put in one table, measure both on one"
            )
    return first_hash


def _require_ready(dataset: Dataset, name: str, clip_ids: set[str]) -> None:
    if not clip_ids:
        raise DwmError(f"{dataset.root}: benchmark '{name}' has no clips; name at least one")
    ready = dataset.clips.keys(
        ds.field("clip_id").isin(sorted(clip_ids)) & (ds.field("status") == ClipStatus.READY.value)
    )
    if unusable := clip_ids - ready:
        raise DwmError(
            f"{dataset.root}: clip '{min(unusable)}' of benchmark '{name}' is unknown or not ready "
            f"({len(unusable)} such clips); leave it out"
        )


def _difference(old: FrozenBenchmark, new: FrozenBenchmark) -> str:
    if old.clip_ids != new.clip_ids:
        return f"other clips ({len(old.clip_ids)}, now {len(new.clip_ids)})"
    if old.settings != new.settings:
        return f"other settings ({old.settings!r})"
    return "other content of the same clips"


def _write(dataset: Dataset, benchmarks: Iterable[FrozenBenchmark]) -> None:
    file = _BenchmarkFile(benchmarks=tuple(sorted(benchmarks, key=lambda benchmark: benchmark.name)))
    write_text(dataset.benchmarks_path, file.model_dump_json(indent=2) + "\n")
