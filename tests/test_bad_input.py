"""Bad input, full and read-only disks, and Ctrl-C, as a user of the command line meets them.

Every case ends in one line that names the file, the value and the remedy, or in a failed row with the reason; nothing
is lost, and the next run continues.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from dwm_model.tiny import make_tiny_base
from manifests.columns import VERSION_KEY
from manifests.dataset import Dataset
from manifests.schema import Clip, ClipStatus, GenerationStatus, RunStatus
from render.video import write_video
from tests.helpers_cli import CLIPS, Pipeline, done, dwm, refused, small_disk, whole_pipeline
from tests.helpers_video import hands_of_moving_box, write_triplet

pytest_plugins = ("tests.fixtures_model",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> dict[str, Pipeline]:
    return whole_pipeline(tmp_path_factory.mktemp("pipelines"), tiny_base)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def corrupt(path: Path) -> None:
    """Overwrite the pictures, but not the index at the file's start."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = b"\xff" * (len(data) - start)
    path.write_bytes(data)


# Raw files


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda take: corrupt(take / "videos/00000.mp4"), "videos/00000.mp4"),
        (lambda take: truncate(take / "videos_static/00000.mp4"), "videos_static/00000.mp4: truncated"),
        (lambda take: (take / "videos_hands/00000.mp4").write_bytes(b"text"), "videos_hands/00000.mp4: not a video"),
        (lambda take: (take / "prompts_rewrite/00000.txt").unlink(), "prompts_rewrite/00000.txt"),
        (
            lambda take: write_video(take / "videos_hands/00000.mp4", hands_of_moving_box(12), 8),
            "hands video has 12 frames, interaction video has 17",
        ),
    ],
    ids=["corrupted", "truncated", "no video", "missing prompt", "12 frames beside 17"],
)  # fmt: skip
def test_a_bad_triplet_is_a_failed_row_the_others_go_on_and_a_mended_one_is_taken(
    tmp_path: Path, tiny_base: Path, damage: Callable[[Path], None], words: str
) -> None:
    pipeline = Pipeline(tmp_path, tiny_base)
    for index in range(2):
        write_triplet(pipeline.raw / f"take_{index}", f"{index:05d}", num_frames=17)
    shutil.copytree(pipeline.raw / "take_0", tmp_path / "good")
    damage(pipeline.raw / "take_0")
    outcome = dwm(*pipeline.stage("build"))
    assert outcome.code == 1
    assert outcome.out.startswith("1 ready, 0 without ground truth, 0 unchanged, 1 failed")
    failed, ready = pipeline.clips()
    assert (failed.status, ready.status) == (ClipStatus.FAILED, ClipStatus.READY)
    assert failed.reason is not None
    assert words in failed.reason
    assert f"failed: {failed.reason}" in outcome.out.splitlines()
    assert failed.reason in done("explain", pipeline.dataset, failed.clip_id).out
    shutil.copytree(tmp_path / "good", pipeline.raw / "take_0", dirs_exist_ok=True)
    assert done(*pipeline.stage("build")).out.startswith("1 ready, 0 without ground truth, 1 unchanged, 0 failed")


@pytest.mark.parametrize("command", ["build", "demo"])
def test_an_empty_folder_or_one_of_another_layout_says_what_was_looked_for(tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other/photos").mkdir(parents=True)
    (tmp_path / "other/photos/a.mp4").write_bytes(b"x")
    target = ["build", "official", "--dataset"] if command == "build" else ["demo", "--out"]
    for name in ("empty", "other"):
        line = refused(*target, tmp_path / "made", "--raw", tmp_path / name)
        assert f"{tmp_path / name}: no clips in the official layout" in line
        assert "<sample>/videos_hands/<stem>.mp4" in line
    assert "no such folder" in refused(*target, tmp_path / "made", "--raw", tmp_path / "absent")
    assert not (tmp_path / "made").exists()


def test_a_folder_that_may_not_be_read_is_one_line(whole: dict[str, Pipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    line = refused(*whole["build"].stage("build"))
    assert f"{whole['build'].raw}: Permission denied; check that the file may be read" in line


# Dataset and manifest


@pytest.mark.parametrize("command", ["split", "check", "gc", "explain", "encode", "train", "benchmark", "generate"])
def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path, tiny_base: Path, command: str) -> None:
    (tmp_path / "a_file").write_text("x")
    more = {
        "explain": ["x"],
        "encode": ["--base", tiny_base],
        "train": ["--base", tiny_base, "--run", tmp_path / "run"],
        "benchmark": ["--base", tiny_base, "--run", tmp_path / "run", "--out", tmp_path / "out"],
        "generate": ["--base", tiny_base, "--run", tmp_path / "run"],
    }.get(command, [])
    for folder in (tmp_path, tmp_path / "absent", tmp_path / "a_file"):
        assert f"error: {folder}: no dataset here" in refused(command, folder, *more)
    assert not (tmp_path / "run").exists()


def duplicate(pipeline: Pipeline) -> str:
    part = next((pipeline.dataset / "manifest/clips").glob("*.parquet"))
    shutil.copyfile(part, part.with_name("copied.parquet"))
    return "copied.parquet"


def newer_part(pipeline: Pipeline) -> str:
    part = next((pipeline.dataset / "manifest/clips").glob("*.parquet"))
    table = pq.read_table(part)
    newer = table.replace_schema_metadata({**(table.schema.metadata or {}), VERSION_KEY: b"99"})
    pq.write_table(newer, part)
    return "99"


def newer_dataset(pipeline: Pipeline) -> str:
    path = pipeline.dataset / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    return "dataset.json: schema version 99"


@pytest.mark.parametrize("damage", [duplicate, newer_part, newer_dataset])
def test_a_manifest_that_cannot_be_trusted_is_refused_by_every_stage_and_left_alone(
    whole: dict[str, Pipeline], tmp_path: Path, damage: Callable[[Pipeline], str]
) -> None:
    pipeline = whole["end"].copied_to(tmp_path)
    clip_id = pipeline.clips()[0].clip_id
    words = damage(pipeline)
    before = {path: path.read_bytes() for path in (pipeline.dataset / "manifest").rglob("*.parquet")}
    generate = ["generate", pipeline.dataset, "--base", pipeline.base, "--run", pipeline.run]
    for command in (
        *(pipeline.stage(stage) for stage in ("split", "encode", "train", "benchmark")),
        ["explain", pipeline.dataset, clip_id],
        ["export", "official", pipeline.dataset, "--out", tmp_path / "exported"],
        ["gc", pipeline.dataset, "--delete"],
        generate,
    ):
        assert words in refused(*command), command
    outcome = dwm("check", pipeline.dataset)
    assert outcome.code == 1
    assert words in outcome.out + outcome.err
    assert {path: path.read_bytes() for path in (pipeline.dataset / "manifest").rglob("*.parquet")} == before


def rewrite_shard(path: Path, change: Callable[[dict[str, object], dict[str, str]], None]) -> None:
    with safe_open(path, framework="pt") as opened:
        metadata = dict(opened.metadata())
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # a handle, not a mapping
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def smaller(tensors: dict[str, object], _metadata: dict[str, str]) -> None:
    name = min(tensors)
    tensors[name] = tensors[name][..., :4].contiguous()  # type: ignore[index]


def other_base(_tensors: dict[str, object], metadata: dict[str, str]) -> None:
    said = json.loads(metadata["dwm_latents"])
    metadata["dwm_latents"] = json.dumps(said | {"encoder_hash": "f" * 64})


def other_size(_tensors: dict[str, object], metadata: dict[str, str]) -> None:
    said = json.loads(metadata["dwm_latents"])
    metadata["dwm_latents"] = json.dumps(said | {"geometry": {"width": 48, "height": 32, "num_frames": 9}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (smaller, r"needs [32, 5, 8, 12]"),
        (other_base, "encoded with encoders ffffffff, not "),
        (other_size, "encoded at 48x32x9, not 96x64x17"),
    ],
)
def test_a_wrong_latent_shard_is_refused_and_encoding_again_heals_it(
    whole: dict[str, Pipeline], tmp_path: Path, change: Callable[..., None], words: str
) -> None:
    pipeline = whole["train"].copied_to(tmp_path)
    shard = min(pipeline.dataset.glob("latents/*/*/shard-*.safetensors"))
    good = shard.read_bytes()
    rewrite_shard(shard, change)
    for stage in ("encode", "train"):
        line = refused(*pipeline.stage(stage))
        assert str(shard) in line
        assert words in line
        assert "delete it and run `dwm encode` again" in line
    shard.unlink()
    done(*pipeline.stage("encode"))
    assert shard.read_bytes() == good
    done(*pipeline.stage("train"))


def test_a_video_that_broke_after_the_import_is_a_failed_row_and_the_others_are_encoded(
    whole: dict[str, Pipeline], tmp_path: Path
) -> None:
    pipeline = whole["encode"].copied_to(tmp_path)
    broken = pipeline.clips()[0]
    truncate(pipeline.dataset / str(broken.static_path))
    outcome = dwm(*pipeline.stage("encode"))
    assert outcome.code == 1
    assert f"encoded {CLIPS - 1} clips" in outcome.out
    row = Dataset.open(pipeline.dataset).clips.get(broken.clip_id)
    assert row.status is ClipStatus.FAILED
    assert row.reason is not None
    assert "static.mp4: truncated" in row.reason
    assert dwm("check", pipeline.dataset).code == 1
    done(*pipeline.stage("build"))  # tries the failed clip again
    done(*pipeline.stage("split"))
    done(*pipeline.stage("encode"))
    assert all(clip.status is ClipStatus.READY for clip in pipeline.clips())
    done(*pipeline.stage("train"))


def test_a_profile_longer_than_every_clip_is_refused_before_a_row_changes(
    whole: dict[str, Pipeline], tmp_path: Path
) -> None:
    pipeline = whole["train"].copied_to(tmp_path)
    before = pipeline.state()
    line = refused(*pipeline.stage("encode"), "--profile", "paper")
    assert "no clip has 49 frames, the longest has 17; choose a profile of fewer frames" in line
    assert pipeline.state() == before


def test_a_video_that_broke_before_the_benchmark_is_a_failed_generation_with_the_reason(
    whole: dict[str, Pipeline], tmp_path: Path
) -> None:
    pipeline = whole["benchmark"].copied_to(tmp_path)
    (clip,) = (clip for clip in pipeline.clips() if clip.split == "test")
    video = pipeline.dataset / str(clip.interaction_path)
    good = video.read_bytes()
    truncate(video)
    outcome = dwm(*pipeline.stage("benchmark"))
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("3 videos failed; the page and `dwm explain` say why")
    rows = list(Dataset.open(pipeline.dataset).generations.rows())
    assert {row.status for row in rows} == {GenerationStatus.FAILED}
    assert all(row.reason and "interaction.mp4: truncated" in row.reason for row in rows)
    video.write_bytes(good)
    done(*pipeline.stage("benchmark"))
    assert pipeline.state() == whole["end"].state()


# Base models and runs


def break_base(base: Path, part: str, **changes: object) -> None:
    path = base / part / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "removed"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "no such folder; give a base model in the diffusers layout, or a hub id"),
        (lambda base: shutil.rmtree(base / "vae"), "vae: missing"),
        (lambda base: break_base(base, "transformer", in_channels=17), "in_channels is 17"),
        (lambda base: break_base(base, "transformer", patch_size_t=3), "patch_size_t is 3; known are"),
        (lambda base: break_base(base, "vae", latent_channels="removed"), "'latent_channels' is in neither"),
        (lambda base: (base / "vae/config.json").write_text("{"), "vae/config.json: not readable as JSON"),
    ],
    ids=["absent", "part missing", "no inpainting", "unknown family", "key missing", "no JSON"],
)  # fmt: skip
def test_a_base_that_cannot_be_used_is_named(
    whole: dict[str, Pipeline], tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    pipeline = Pipeline(whole["end"].root, shutil.copytree(whole["end"].base, tmp_path / "base"))
    damage(pipeline.base)
    for stage in ("encode", "train", "benchmark"):
        line = refused(*pipeline.stage(stage))
        assert str(pipeline.base) in line
        assert words in line


def test_a_run_that_was_trained_on_another_base_is_refused(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    pipeline = whole["end"].copied_to(tmp_path / "copy")
    pipeline.base = make_tiny_base(tmp_path / "other", seed=9)
    done(*pipeline.stage("encode"))
    assert f"{pipeline.run}: the run's base model differ" in refused(*pipeline.stage("train"))
    for command in (
        pipeline.stage("benchmark"),
        ["generate", pipeline.dataset, "--base", pipeline.base, "--run", pipeline.run],
    ):
        line = refused(*command)
        assert f"{pipeline.run}: trained on base tiny" in line
        assert "give the base that it was trained on" in line


def test_a_folder_without_a_run_or_with_a_damaged_one_is_named(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    pipeline = whole["benchmark"].copied_to(tmp_path)
    (pipeline.run / "run.json").write_text("{}")
    for command in (pipeline.stage("train"), pipeline.stage("benchmark")):
        assert f"{pipeline.run / 'run.json'}: damaged" in refused(*command)
    shutil.rmtree(pipeline.run)
    assert f"{pipeline.run} holds no training run" in refused(*pipeline.stage("benchmark"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("encode", "--profile", "huge"), "profile 'huge': unknown; choose one of paper, mini"),
        (("benchmark", "--methods", "DWM,magic"), "method 'magic': unknown; choose from static copy, CVX SDEdit, DWM"),
    ],
)
def test_an_unknown_name_is_bad_usage(whole: dict[str, Pipeline], more: tuple[str, ...], words: str) -> None:
    stage, *options = more
    assert words in refused(*whole["end"].stage(stage), *options, code=2)


def test_an_unknown_preset_policy_or_demo_profile_is_bad_usage(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    pipeline = whole["end"]
    train = ["train", pipeline.dataset, "--base", pipeline.base, "--run", tmp_path / "run", "--preset", "huge"]
    assert "training preset 'huge': unknown; choose one of paper, mini, tiny" in refused(*train, code=2)
    assert "profile 'huge': unknown" in refused("demo", "--out", tmp_path / "demo", "--profile", "huge", code=2)
    assert list(tmp_path.iterdir()) == []
    outcome = dwm("split", pipeline.dataset, "--policy", "by-colour")
    assert outcome.code == 2
    assert "'by-colour'" in outcome.err
    assert "'scene-disjoint'" in outcome.err


# Disks


WRITING_STAGES = ("build", "encode", "train", "benchmark")


@pytest.mark.parametrize("stage", WRITING_STAGES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def test_a_disk_that_refuses_at_any_write_is_one_line_and_the_next_run_ends_in_the_same(
    whole: dict[str, Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, code: int
) -> None:
    real_fsync = os.fsync
    words = {errno.ENOSPC: "the disk is full; free some space", errno.EROFS: "no permission to write here"}[code]
    after = {"build": "split", "encode": "train", "train": "benchmark", "benchmark": "end"}[stage]
    pipeline = whole[stage].copied_to(tmp_path)
    for allowed in (0, 7):
        calls = itertools.count()

        def fsync(descriptor: int, calls: itertools.count[int] = calls, allowed: int = allowed) -> None:
            if next(calls) >= allowed:
                raise OSError(code, os.strerror(code))
            real_fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            line = refused(*pipeline.stage(stage))
        assert str(tmp_path) in line
        assert words in line
        assert pipeline.leftovers() == []
    done(*pipeline.stage(stage))
    assert pipeline.state() == whole[after].state()


def test_a_journal_on_a_full_disk_fails_the_run_with_the_reason_and_the_next_run_completes_it(
    whole: dict[str, Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = whole["train"].copied_to(tmp_path)
    real_open = Path.open

    def open_unless_appending(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "a" and path.name == "losses.jsonl":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_open(path, mode, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_unless_appending)
        assert f"{pipeline.run / 'losses.jsonl'}: the disk is full" in refused(*pipeline.stage("train"))
    (run,) = Dataset.open(pipeline.dataset).runs.rows()
    assert run.status is RunStatus.FAILED
    assert run.reason is not None
    assert "the disk is full" in run.reason
    done(*pipeline.stage("train"))
    assert pipeline.state() == whole["benchmark"].state()


@pytest.mark.slow
@pytest.mark.parametrize("stage", WRITING_STAGES)
def test_a_disk_that_is_really_full_or_read_only_is_one_line_and_the_next_run_continues(
    whole: dict[str, Pipeline], tmp_path: Path, stage: str
) -> None:
    after = {"build": "split", "encode": "train", "train": "benchmark", "benchmark": "end"}[stage]
    disk = tmp_path / "disk"
    with small_disk(disk, 64) as is_mounted:
        if not is_mounted:
            pytest.skip("this process may not mount a small disk")
        pipeline = whole[stage].copied_to(disk / "pipeline")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        line = refused(*pipeline.stage(stage))
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert "no permission to write here; choose another output folder" in line
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 40 * 1024))
        line = refused(*pipeline.stage(stage))
        assert "the disk is full; free some space and run the same command again, it continues" in line
        assert str(disk) in line
        ballast.unlink()
        assert pipeline.leftovers() == []
        done(*pipeline.stage(stage))
        assert pipeline.state() == whole[after].state()


def test_a_base_on_a_full_disk_is_absent_and_one_line(tmp_path: Path) -> None:
    from manifests.errors import DwmError

    with small_disk(tmp_path / "disk", 1) as is_mounted:
        if not is_mounted:
            pytest.skip("this process may not mount a small disk")
        with pytest.raises(DwmError, match="base: the disk is full"):
            make_tiny_base(tmp_path / "disk/base")
        assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize("stage", ["build", "train", "benchmark"])
def test_an_output_folder_below_a_file_is_named(whole: dict[str, Pipeline], tmp_path: Path, stage: str) -> None:
    (tmp_path / "a_file").write_text("x")
    pipeline = whole["end"].copied_to(tmp_path / "copy")
    pipeline.report = tmp_path / "a_file/out"
    if stage == "build":
        pipeline.dataset = tmp_path / "a_file/out"
    if stage == "train":
        pipeline.run = tmp_path / "a_file/out"
    line = refused(*pipeline.stage(stage))
    assert f"{tmp_path}/a_file/out" in line
    assert "could not be written" in line
    assert (tmp_path / "a_file").read_text() == "x"


# Ctrl-C


def finished(folder: Path, pattern: str) -> int:
    return sum(not path.name.startswith(".") for path in folder.glob(pattern))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "after", "pattern"),
    [
        ("build", "split", "dataset/clips/*/*/static.mp4"),
        ("encode", "train", "dataset/latents/**/shard-*"),
        ("train", "benchmark", "run/losses.jsonl"),
        ("benchmark", "end", "dataset/generations/**/*.mp4"),
    ],
)
def test_ctrl_c_ends_a_stage_with_one_line_and_the_next_run_completes_it(
    whole: dict[str, Pipeline], tmp_path: Path, stage: str, after: str, pattern: str
) -> None:
    pipeline = whole[stage].copied_to(tmp_path)
    process = pipeline.start(stage)
    while process.poll() is None and finished(tmp_path, pattern) == 0:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out.splitlines()[1:]) == (130, []), (out, err)
    (line,) = err.splitlines()
    assert "run the same command again to continue" in line
    assert pipeline.leftovers() == []
    done(*pipeline.stage(stage))
    assert pipeline.state() == whole[after].state()


# The whole DAG


def no_prefect_server(command: list[str], out: Path) -> subprocess.CompletedProcess[str]:
    """Run `dwm demo` as a user does: a process of its own, with a temporary API."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "demo", "--out", str(out), *command],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.mark.slow
def test_demo_on_too_few_clips_says_so_before_the_long_work(tmp_path: Path) -> None:
    for index in range(2):
        write_triplet(tmp_path / "raw" / f"take_{index}", f"{index:05d}", num_frames=17)
    result = no_prefect_server(["--raw", str(tmp_path / "raw")], tmp_path / "out")
    assert (result.returncode, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert line == (
        f"error: {tmp_path}/out/dataset: 2 ready clips, too few: none for validation; "
        "give at least three whole triplets"
    )
    assert len(result.stderr.splitlines()) < 20
    assert not (tmp_path / "out/run").exists()


@pytest.mark.slow
def test_ctrl_c_of_a_terminal_ends_the_demo_soon_with_a_checkpoint(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to every process of the command: also to Prefect's temporary API and to the trainer."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
    raw, out = whole["build"].raw, tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "demo", "--raw", str(raw), "--out", str(out), "--steps", "90"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    losses = out / "run/losses.jsonl"
    while process.poll() is None and not (losses.exists() and losses.stat().st_size):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted: what was finished is kept; run the same command again to continue" in err.splitlines()
    (checkpoint,) = (out / "run/checkpoints").iterdir()
    steps = len(losses.read_text().splitlines())
    assert checkpoint.name == f"step-{steps:06d}"
    assert 0 < steps < 90
    clips = list(Dataset.open(out / "dataset").clips.rows())
    assert all(isinstance(clip, Clip) and clip.status is ClipStatus.READY for clip in clips)
