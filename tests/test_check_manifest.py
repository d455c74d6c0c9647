"""Checks, explanations and garbage collection of a dataset, without media."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.check import Problem, check_manifest
from manifests.columns import VERSION_KEY, rows_to_table
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.explain import explain_clip, resolve_clip_id
from manifests.garbage import collect
from manifests.schema import Clip, Generation, Run, RunStatus, Source, Split
from manifests.splits import SplitPolicy, assign_splits
from tests.helpers_manifest import MADE_AT, assert_one_line, clip, part_files

ROLES = ("interaction_path", "static_path", "hands_path")


def built_clip(dataset: Dataset, number: int, **changes: object) -> Clip:
    """A ready clip whose three files are on disk (any bytes do: nothing here opens them)."""
    row = clip(number, **changes)
    paths, hashes = {}, {}
    for role in ROLES:
        file = dataset.clip_folder(row.source, row.clip_id) / f"{role.removesuffix('_path')}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"{row.clip_id} {role}".encode())
        paths[role] = dataset.relative(file)
        hashes[role] = hashlib.sha256(file.read_bytes()).hexdigest()
    return row.updated(**paths, output_hashes=hashes)


def generation(number: int, **changes: object) -> Generation:
    values = {
        "generation_id": f"generation-{number}",
        "clip_id": "clip-0001",
        "method": "DWM",
        "seed": number,
        "status": "ready",
        "path": f"generations/{number}.mp4",
        "created_at": MADE_AT,
    }
    return Generation.model_validate(values | changes)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = Dataset.create_or_open(tmp_path / "dataset")
    made.clips.append([built_clip(made, number) for number in (1, 2)])
    made.clips.append([clip(3, status="failed", reason="the interaction video is truncated")])
    made.generations.append([generation(1)])
    made.generations_folder.mkdir()
    (made.generations_folder / "1.mp4").write_bytes(b"video")
    return made


def only(dataset: Dataset, **options: bool) -> Problem:
    problems = check_manifest(dataset, **options)
    assert len(problems) == 1, problems
    assert_one_line(DwmError(problems[0].message))
    return problems[0]


def test_sound_dataset_has_no_problems(dataset: Dataset) -> None:
    assert check_manifest(dataset, verify_hashes=True) == []


def test_copied_table_file_is_found_by_its_doubled_ids(dataset: Dataset) -> None:
    part = part_files(dataset.clips)[0]
    shutil.copyfile(part, part.with_name("zz-copy.parquet"))
    problems = [problem for problem in check_manifest(dataset) if problem.code == "duplicate-id"]
    keys = pq.read_table(part, columns=["clip_id"]).column("clip_id").to_pylist()
    assert [problem.clip_id for problem in problems] == keys
    assert all("zz-copy.parquet" in problem.message and problem.is_error for problem in problems)


def test_file_that_a_row_names_but_is_not_there(dataset: Dataset) -> None:
    dataset.absolute("clips/synthetic/clip-0001/hands.mp4").unlink()
    problem = only(dataset)
    assert (problem.code, problem.clip_id, problem.is_error) == ("missing-file", "clip-0001", True)
    assert problem.path == "clips/synthetic/clip-0001/hands.mp4"


def test_file_without_bytes(dataset: Dataset) -> None:
    dataset.absolute("clips/synthetic/clip-0001/hands.mp4").write_bytes(b"")
    assert only(dataset).code == "empty-file"


def test_changed_bytes_are_found_when_hashes_are_verified(dataset: Dataset) -> None:
    dataset.absolute("clips/synthetic/clip-0002/static.mp4").write_bytes(b"other")
    assert check_manifest(dataset) == []
    problem = only(dataset, verify_hashes=True)
    assert (problem.code, problem.clip_id) == ("changed-file", "clip-0002")


def test_file_that_no_row_names_is_a_flag(dataset: Dataset) -> None:
    dataset.absolute("clips/synthetic/clip-0001/notes.txt").write_text("x")
    problem = only(dataset)
    assert (problem.code, problem.path, problem.is_error) == (
        "dangling-file",
        "clips/synthetic/clip-0001/notes.txt",
        False,
    )


def test_unfinished_file_is_a_flag(dataset: Dataset) -> None:
    dataset.absolute("clips/synthetic/clip-0001/.hands.tmp-0.mp4").write_text("x")
    problem = only(dataset)
    assert (problem.code, problem.is_error) == ("unfinished-file", False)


@pytest.mark.parametrize("path", ["/data/hands.mp4", "../hands.mp4", "C:\\hands.mp4"])
def test_paths_out_of_the_dataset_are_errors(path: str, dataset: Dataset) -> None:
    dataset.clips.append([built_clip(dataset, 4)])
    dataset.clips.upsert([dataset.clips.get("clip-0004").updated(hands_path=path)])
    problems = [problem for problem in check_manifest(dataset) if problem.is_error]
    assert [(problem.code, problem.path) for problem in problems] == [("outside-path", path)]


def test_ready_clip_without_all_videos_and_failed_clip_without_a_reason(dataset: Dataset) -> None:
    incomplete = built_clip(dataset, 4).updated(hands_path=None, status="ready")
    dataset.absolute("clips/synthetic/clip-0004/hands.mp4").unlink()
    dataset.clips.append([incomplete, clip(5, status="dropped")])
    assert [(problem.code, problem.clip_id) for problem in check_manifest(dataset)] == [
        ("missing-path", "clip-0004"),
        ("missing-reason", "clip-0005"),
    ]


def test_conditions_only_clip_needs_no_interaction_video(dataset: Dataset) -> None:
    row = built_clip(dataset, 4).updated(interaction_path=None, status="conditions_only", reason="a plan")
    dataset.absolute("clips/synthetic/clip-0004/interaction.mp4").unlink()
    dataset.clips.append([row])
    assert check_manifest(dataset) == []


def test_generations_without_clip_or_file(dataset: Dataset) -> None:
    dataset.generations.append(
        [generation(2, clip_id="gone", path="generations/1.mp4"), generation(3), generation(4, path=None)]
    )
    found = {(problem.code, problem.clip_id) for problem in check_manifest(dataset)}
    assert found == {("unknown-clip", "gone"), ("missing-file", "clip-0001"), ("missing-path", "clip-0001")}


def test_table_file_of_a_newer_version_or_damaged_is_reported_not_raised(dataset: Dataset) -> None:
    newer = rows_to_table(Clip, [clip(9)]).replace_schema_metadata({VERSION_KEY: "99"})
    pq.write_table(newer, dataset.clips.parts.folder / "newer.parquet")
    (dataset.runs.parts.folder).mkdir(parents=True)
    (dataset.runs.parts.folder / "broken.parquet").write_bytes(b"broken")
    problems = check_manifest(dataset)
    assert [(problem.code, problem.path) for problem in problems] == [
        ("damaged-table", "manifest/runs/broken.parquet"),
        ("newer-schema", "manifest/clips/newer.parquet"),
    ]


def test_leak_above_the_declared_level_is_an_error_and_below_a_flag(dataset: Dataset) -> None:
    assign_splits(dataset, SplitPolicy.RECORDING_DISJOINT)
    first = dataset.clips.get("clip-0001")
    other = Split.TEST if first.split is not Split.TEST else Split.TRAIN
    dataset.clips.upsert([dataset.clips.get("clip-0002").updated(split=other)])
    leaks = [problem for problem in check_manifest(dataset) if problem.code == "split-leak"]
    levels = {("level recording" in leak.message, leak.is_error) for leak in leaks}
    assert levels == {(True, True), (False, False)}


# --- explanations


def test_explanation_holds_what_is_known_in_reading_order(dataset: Dataset) -> None:
    row = built_clip(dataset, 4, prompt="Lift the cup.\nPut it down.", object_motion_m=0.25, faces_blurred=False)
    dataset.clips.append([row.updated(flags=("shaky",), split="test", num_frames=17, width=96, height=64, fps=8.0)])
    dataset.generations.append([generation(5, clip_id="clip-0004", psnr=21.5, checkpoint_step=10)])
    dataset.absolute("clips/synthetic/clip-0004/hands.mp4").unlink()
    text = str(explain_clip(dataset, "clip-0004"))
    words = [
        "Clip clip-0004: ready",
        "test",
        "shaky",
        "synthetic",
        "room",
        "96x64 pixels, 17 frames, 8 frames a second",
        "interaction.mp4 (26 bytes)",
        "hands.mp4 (MISSING)",
        "0.25",
        "Put it down.",
        "output interaction",
        "Generated videos: 1",
        "PSNR 21.5",
    ]
    places = [text.find(word) for word in words]
    assert -1 not in places, words[places.index(-1)]
    assert places == sorted(places)
    assert "faces blurred" in text


def test_explanation_of_a_failed_clip_says_why(dataset: Dataset) -> None:
    text = str(explain_clip(dataset, "clip-0003"))
    assert "failed" in text.splitlines()[0]
    assert "the interaction video is truncated" in text


def test_unambiguous_beginning_of_an_id_is_enough(dataset: Dataset) -> None:
    dataset.clips.append([clip(1).updated(clip_id="abc1"), clip(1).updated(clip_id="abc12")])
    assert resolve_clip_id(dataset, "abc12") == "abc12"
    assert resolve_clip_id(dataset, "abc1") == "abc1"
    with pytest.raises(DwmError) as error:
        resolve_clip_id(dataset, "ab")
    assert_one_line(error.value, "abc1, abc12", "more characters")


@pytest.mark.parametrize("asked", ["clip-0009", "clap-0001", "", "zzz"])
def test_unknown_id_is_refused_with_near_ones_where_there_are(asked: str, dataset: Dataset) -> None:
    with pytest.raises(DwmError) as error:
        resolve_clip_id(dataset, asked)
    assert_one_line(error.value, f"clip '{asked}'")
    if asked.startswith("c"):
        assert "clip-0001" in str(error.value)


# --- garbage


def write_shard(path: Path, *names: str) -> None:
    """A safetensors file of empty tensors."""
    header = json.dumps({name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in names}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def litter(dataset: Dataset) -> dict[str, int]:
    """Put garbage into a dataset; its paths with their sizes."""
    orphan = dataset.clip_folder(Source.ARIA, "gone")
    orphan.mkdir(parents=True)
    (orphan / "hands.mp4").write_bytes(b"12345")
    (orphan / "static.mp4").write_bytes(b"123")
    dataset.absolute("clips/synthetic/clip-0001/notes.txt").write_bytes(b"1")
    dataset.absolute("clips/synthetic/clip-0001/.hands.tmp-0.mp4").write_bytes(b"12")
    unfinished = dataset.absolute("latents/.base.tmp-1")
    unfinished.mkdir(parents=True)
    (unfinished / "shard-0.safetensors").write_bytes(b"123")
    (dataset.generations_folder / "old.mp4").write_bytes(b"1234")
    write_shard(dataset.latents_folder / "base" / "shard-1.safetensors", "gone.hands")
    write_shard(dataset.latents_folder / "base" / "shard-2.safetensors", "gone.hands", "clip-0001.hands")
    (dataset.latents_folder / "base" / "shard-3.safetensors").write_bytes(b"damaged!!")
    shard_size = (dataset.latents_folder / "base" / "shard-1.safetensors").stat().st_size
    return {
        "clips/aria/gone": 8,
        "clips/synthetic/clip-0001/notes.txt": 1,
        "clips/synthetic/clip-0001/.hands.tmp-0.mp4": 2,
        "latents/.base.tmp-1": 3,
        "generations/old.mp4": 4,
        "latents/base/shard-1.safetensors": shard_size,
        "latents/base/shard-3.safetensors": 9,
    }


def all_files(dataset: Dataset) -> set[str]:
    """Files of the dataset without the locks of its tables, which readers make."""
    files = (path for path in dataset.root.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(dataset.root).as_posix() for path in files}


def test_garbage_is_listed_with_sizes_and_stays_in_a_dry_run(dataset: Dataset) -> None:
    expected = litter(dataset)
    before = all_files(dataset)
    report = collect(dataset, min_age_s=0)
    assert {item.path: item.size for item in report.items} == expected
    assert report.size == sum(expected.values())
    assert not report.removed
    assert all_files(dataset) == before


def test_garbage_is_removed_and_nothing_else(dataset: Dataset) -> None:
    before = all_files(dataset)
    litter(dataset)
    assert collect(dataset, dry_run=False, min_age_s=0).removed
    assert all_files(dataset) - before == {"latents/base/shard-2.safetensors"}
    assert before <= all_files(dataset)
    assert check_manifest(dataset, verify_hashes=True) == []
    assert collect(dataset, min_age_s=0).items == ()


def test_checkpoints_that_no_row_of_a_finished_run_names_are_garbage(dataset: Dataset) -> None:
    facts = {"base_hash": "b", "dataset_hash": "d", "config_json": "{}"}
    done, running = dataset.root.parent / "done", dataset.root / "running"
    for folder in (done, running):
        for step in (100, 200, 300):
            (folder / f"checkpoints/step-{step:06d}/adapter").mkdir(parents=True)
            (folder / f"checkpoints/step-{step:06d}/adapter/weights.safetensors").write_bytes(b"1234567")
    dataset.runs.append([
        Run(run_id="a", run_path="../done", checkpoints=(300,), status=RunStatus.COMPLETED, **facts),
        Run(run_id="b", run_path="../done", checkpoints=(200,), status=RunStatus.FAILED, **facts),
        Run(run_id="c", run_path="running", checkpoints=(), status=RunStatus.RUNNING, **facts),
    ])  # fmt: skip
    report = collect(dataset, min_age_s=0)
    assert [(item.path, item.size) for item in report.items] == [("../done/checkpoints/step-000100", 7)]
    collect(dataset, dry_run=False, min_age_s=0)
    assert sorted(path.name for path in (done / "checkpoints").iterdir()) == ["step-000200", "step-000300"]
    assert len(list((running / "checkpoints").iterdir())) == 3


def test_what_changed_a_moment_ago_is_left_to_a_running_build(dataset: Dataset) -> None:
    expected = litter(dataset)
    report = collect(dataset, dry_run=False)
    assert (report.items, report.kept_recent) == ((), len(expected))
    old = dataset.absolute("generations/old.mp4")
    os.utime(old, (0, 0))
    assert [item.path for item in collect(dataset, dry_run=False).items] == ["generations/old.mp4"]
    assert not old.exists()
