"""Opening, filtering and changing a clip table of 1,000,000 rows.

Run ``python benchmarks/bench_manifest.py --json``. The table is built with Arrow in a temporary folder; every figure
is measured in a fresh process. The last line is a JSON object with ``open_filter_1m_s`` (opening the dataset,
filtering with a projection, and counting; median) and ``peak_rss_mb`` (of that process, imports included), and with
``manifest_1m_s`` (appending 10,000 clips, splitting and auditing; median) and ``manifest_peak_rss_mb`` (of that
process).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from manifests.columns import arrow_schema
from manifests.dataset import Dataset
from manifests.leaks import LeakLevel, audit_leaks
from manifests.parts import PartChange
from manifests.schema import Clip, ClipStatus, Source, Split, utc_now
from manifests.splits import SplitPolicy, assign_splits
from manifests.store import MAX_PART_ROWS

COLUMNS = ("clip_id", "scene_id", "interaction_path", "static_path", "hands_path", "prompt")
"""What a benchmark run reads of its clips."""

APPENDED = 10_000
"""Clips that a build adds to the large table."""

CLIPS_OF_RECORDING = 26
"""As in TRUMANS: 13,721 clips of 522 recordings."""

RECORDINGS_OF_SCENE = 9
"""As in TRUMANS: 522 recordings in 59 scenes."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Results; times in seconds, memory in MB (10^6 bytes)."""

    rows: int
    disk_mb: float
    open_filter_1m_s: float
    open_filter_cpu_s: float
    peak_rss_mb: float
    append_one_s: float
    upsert_one_s: float
    count_rows: int
    append_10k_s: float
    split_s: float
    audit_s: float
    manifest_1m_s: float
    manifest_cpu_s: float
    manifest_peak_rss_mb: float


def synthetic_part(start: int, count: int, generator: np.random.Generator) -> pa.Table:
    """``count`` clips with ids that look like hashes, realistic paths and prompts; sorted by id."""
    ids = np.sort(generator.integers(0, 2**63, count, dtype=np.uint64))
    names = np.array([f"{value:016x}" for value in ids])
    place = start + np.arange(count)
    recording = place // CLIPS_OF_RECORDING
    looks_alike = generator.random(count) < 0.05
    columns: dict[str, object] = {
        "clip_id": names,
        "source": np.where(recording % 5 == 0, Source.TASTE_ROB.value, Source.TRUMANS.value),
        "scene_id": np.char.add("scene-", (recording // RECORDINGS_OF_SCENE).astype(str)),
        "recording_id": np.char.add("recording-", recording.astype(str)),
        "start_frame": generator.integers(0, 9000, count),
        "num_frames": np.full(count, 49),
        "fps": np.full(count, 8.0),
        "width": np.full(count, 720),
        "height": np.full(count, 480),
        "prompt": [f"In a room a person lifts object {value % 997} with both hands and puts it down." for value in ids],
        "near_duplicate_group": [
            f"group-{number}" if alike else None for number, alike in zip(recording, looks_alike, strict=True)
        ],
        "split": generator.choice([split.value for split in Split], count, p=[0.8, 0.1, 0.1]),
        "status": generator.choice([ClipStatus.READY.value, ClipStatus.DROPPED.value], count, p=[0.95, 0.05]),
        "created_at": [utc_now()] * count,
    }
    for role in ("interaction", "static", "hands"):
        columns[f"{role}_path"] = [f"clips/trumans/{name}/{role}.mp4" for name in names]
    columns["output_hashes"] = [[("interaction_path", name * 4)] for name in names]
    schema = arrow_schema(Clip)
    arrays = [
        pa.array(columns[field.name], type=field.type) if field.name in columns else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def build(root: Path, rows: int) -> None:
    """A dataset with ``rows`` clips in parts of the size that compaction makes."""
    generator = np.random.default_rng(0)
    dataset = Dataset.create_or_open(root)
    with dataset.clips.parts.writing():
        dataset.clips.parts.change(
            PartChange(None, synthetic_part(start, min(MAX_PART_ROWS, rows - start), generator))
            for start in range(0, rows, MAX_PART_ROWS)
        )


def open_and_filter(root: Path) -> dict[str, float]:
    """Measured in a process of its own: open, filter with a projection, count."""
    wall, cpu = time.perf_counter(), time.process_time()
    clips = Dataset.open(root).clips
    where = (
        (ds.field("status") == ClipStatus.READY.value)
        & (ds.field("source") == Source.TRUMANS.value)
        & (ds.field("split") == Split.TEST.value)
    )
    table = clips.read(COLUMNS, where)
    total = clips.count(where)
    elapsed, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    assert table.num_rows == total
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"seconds": elapsed, "cpu_s": cpu_s, "peak_rss_mb": peak_mb, "rows": total}


def change(root: Path) -> dict[str, float]:
    """Measured in a process of its own: append one row, then replace it."""
    clips = Dataset.open(root).clips
    clip = Clip(clip_id="new", source=Source.TRUMANS, scene_id="s", recording_id="r", status=ClipStatus.READY)
    start = time.perf_counter()
    clips.append([clip])
    appended = time.perf_counter()
    some = next(clips.rows(where=ds.field("start_frame") == 4500))
    located = time.perf_counter()
    clips.upsert([some.updated(prompt=f"{some.prompt} Changed.")])
    changed = time.perf_counter()
    clips.delete(["new"])
    return {"append": appended - start, "upsert": changed - located}


def work(root: Path) -> dict[str, float]:
    """Measured in a process of its own: what a build does with the manifest: append, split, audit."""
    dataset = Dataset.open(root)
    clips = [
        Clip(
            clip_id=f"new-{number:05d}",
            source=Source.TRUMANS,
            scene_id=f"scene-{number % 500}",
            recording_id=f"new-recording-{number % 500}",
            status=ClipStatus.READY,
        )
        for number in range(APPENDED)
    ]
    start, cpu = time.perf_counter(), time.process_time()
    dataset.clips.append(clips)
    appended = time.perf_counter()
    assign_splits(dataset, SplitPolicy.SCENE_DISJOINT)
    split = time.perf_counter()
    leaks = audit_leaks(dataset)
    audited, cpu_s = time.perf_counter(), time.process_time() - cpu
    assert not any(leak.shared for leak in leaks if leak.level is not LeakLevel.CLIP)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {
        "append": appended - start,
        "split": split - appended,
        "audit": audited - split,
        "cpu_s": cpu_s,
        "peak_rss_mb": peak_mb,
    }


def measure_work(rows: int, repeats: int) -> dict[str, float]:
    """Append, split and audit, each time on a new table of ``rows`` clips: medians, and the highest peak memory."""
    steps = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder), rows)
            steps.append(_in_fresh_process("work", Path(folder)))
    names = ("append", "split", "audit")
    medians = {name: round(statistics.median(step[name] for step in steps), 3) for name in names}
    return {
        "append_10k_s": medians["append"],
        "split_s": medians["split"],
        "audit_s": medians["audit"],
        "manifest_1m_s": round(statistics.median(sum(step[name] for name in names) for step in steps), 3),
        "manifest_cpu_s": round(statistics.median(step["cpu_s"] for step in steps), 3),
        "manifest_peak_rss_mb": round(max(step["peak_rss_mb"] for step in steps), 1),
    }


def _in_fresh_process(step: str, root: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", step, "--root", str(root)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return measured


def measure(rows: int, repeats: int) -> Figures:
    """Build the table and measure everything on it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(root, rows)
        size = sum(path.stat().st_size for path in root.rglob("*.parquet"))
        reads = [_in_fresh_process("filter", root) for _ in range(repeats)]
        changes = [_in_fresh_process("change", root) for _ in range(repeats)]
    return Figures(
        rows=rows,
        disk_mb=round(size / 1e6, 1),
        open_filter_1m_s=round(statistics.median(read["seconds"] for read in reads), 3),
        open_filter_cpu_s=round(statistics.median(read["cpu_s"] for read in reads), 3),
        peak_rss_mb=round(max(read["peak_rss_mb"] for read in reads), 1),
        append_one_s=round(statistics.median(step["append"] for step in changes), 3),
        upsert_one_s=round(statistics.median(step["upsert"] for step in changes), 3),
        count_rows=int(reads[0]["rows"]),
        **measure_work(rows, min(repeats, 3)),
    )


STEPS: dict[str, Callable[[Path], dict[str, float]]] = {"filter": open_and_filter, "change": change, "work": work}
"""What is measured in processes of their own, by name."""


def main() -> None:
    """Measure and print a table; with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table")
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes a figure")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        print(json.dumps(STEPS[arguments.step](arguments.root)))
        return
    figures = asdict(measure(arguments.rows, arguments.repeats))
    for name, value in figures.items():
        print(f"{name:<20} {value:>14,}")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
