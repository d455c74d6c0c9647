"""Leaks between splits: what the audit counts, what may be shared, and how a build stops."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from manifests.check import check_manifest
from manifests.dataset import Dataset
from manifests.leaks import LeakError, LeakLevel, audit_leaks, require_no_leak
from manifests.schema import Clip, Split
from manifests.splits import (
    SplitDeclaration,
    SplitPolicy,
    SplitSettings,
    assign_splits,
    declared_splits,
    forbidden_levels,
    leak_report,
)
from tests.helpers_manifest import assert_one_line, clip

SAME_VIDEO = {"output_hashes": {"interaction_path": "same", "static_path": "x"}}


def dataset_of(tmp_path: Path, *clips: Clip) -> Dataset:
    dataset = Dataset.create_or_open(tmp_path / "dataset")
    dataset.clips.append(clips)
    return dataset


def copies_in_two_scenes(tmp_path: Path) -> Dataset:
    """Six clips of six scenes; the first and the last in list order show the same video."""
    others = [clip(n, scene_id=f"s{n}", recording_id=f"r{n}", list_order=n) for n in range(1, 5)]
    first = clip(0, scene_id="s0", recording_id="r0", list_order=0, **SAME_VIDEO)
    last = clip(5, scene_id="s5", recording_id="r5", list_order=5, **SAME_VIDEO)
    return dataset_of(tmp_path, first, *others, last)


def shared_at(dataset: Dataset) -> dict[LeakLevel, int]:
    return {count.level: count.shared for count in audit_leaks(dataset)}


@pytest.mark.parametrize(
    ("policy", "forbidden"),
    [
        (SplitPolicy.OFFICIAL, {"clip"}),
        (SplitPolicy.SCENE_DISJOINT, {"clip", "near_duplicate", "recording", "scene"}),
        (SplitPolicy.RECORDING_DISJOINT, {"clip", "near_duplicate", "recording"}),
        (SplitPolicy.IN_ORDER, {"clip", "near_duplicate", "recording"}),
    ],
)
def test_each_policy_declares_what_splits_must_not_share(policy: SplitPolicy, forbidden: set[str]) -> None:
    assert set(forbidden_levels(policy, None)) == forbidden
    assert set(forbidden_levels(policy, [])) == set(LeakLevel)
    assert LeakLevel.CLIP not in forbidden_levels(policy, [LeakLevel.CLIP])


def test_a_shared_video_counts_by_its_interaction_hash_alone(tmp_path: Path) -> None:
    hashes = [{}, {"static_path": "x"}, {"hands_path": "x", "interaction_path": "a"}, {"interaction_path": "a"}]
    splits = [Split.TRAIN, Split.TEST, Split.TRAIN, Split.TEST]
    rows = [
        clip(n, scene_id=f"s{n}", recording_id=f"r{n}", split=split, output_hashes=value)
        for n, (split, value) in enumerate(zip(splits, hashes, strict=True))
    ]
    assert shared_at(dataset_of(tmp_path, *rows)) == {level: int(level == "clip") for level in LeakLevel}


def test_audit_reads_maps_of_every_part_and_of_none(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    assert set(shared_at(dataset).values()) == {0}
    dataset.clips.append([clip(1, split=Split.TRAIN, **SAME_VIDEO)])
    dataset.clips.append([clip(2, split=Split.VALIDATION, scene_id="s", recording_id="r", **SAME_VIDEO)])
    (count,) = (count for count in audit_leaks(dataset) if count.shared)
    assert (count.level, count.shared, count.clips, count.examples) == (LeakLevel.CLIP, 1, 2, ("same",))


def test_a_leak_above_the_declared_level_stops_a_build_with_the_table(tmp_path: Path) -> None:
    report = assign_splits(copies_in_two_scenes(tmp_path), SplitPolicy.IN_ORDER).leaks
    with pytest.raises(LeakError) as error:
        require_no_leak(report)
    assert_one_line(error.value, "dataset", "in-order", "1 at level clip", "2 clips", "same", "--may-share clip")
    assert [line.split()[:4] for line in error.value.report.lines()] == [
        ["level", "shared", "clips", "promise"],
        ["clip", "1", "2", "BROKEN"],
        ["near_duplicate", "0", "0", "kept"],
        ["recording", "0", "0", "kept"],
        ["scene", "0", "0", "may"],
    ]
    again = copy.copy(error.value)  # made again from its arguments, as when a worker hands it over
    assert (str(again), again.report) == (str(error.value), report)


def test_what_may_be_shared_is_a_setting_and_is_remembered(tmp_path: Path) -> None:
    dataset = copies_in_two_scenes(tmp_path)
    settings = SplitSettings(may_share=(LeakLevel.CLIP, LeakLevel.SCENE))
    require_no_leak(assign_splits(dataset, SplitPolicy.IN_ORDER, settings).leaks)
    declaration = declared_splits(dataset)
    assert declaration is not None
    assert declaration.forbidden == (LeakLevel.NEAR_DUPLICATE, LeakLevel.RECORDING)
    assert [problem.is_error for problem in check_manifest(dataset) if problem.code == "split-leak"] == [False]
    stricter = SplitDeclaration(policy=SplitPolicy.OFFICIAL, settings=SplitSettings(may_share=()))
    assert [count.level for count in leak_report(dataset, stricter).exceeded] == [LeakLevel.CLIP]


def test_splits_file_of_before_the_setting_is_read() -> None:
    text = '{"policy": "recording-disjoint", "settings": {"seed": 7}}'
    assert LeakLevel.SCENE not in SplitDeclaration.model_validate_json(text).forbidden


@pytest.mark.parametrize(
    ("policy", "level", "words"),
    [
        (SplitPolicy.IN_ORDER, LeakLevel.CLIP, "keep one of the copies"),
        (SplitPolicy.IN_ORDER, LeakLevel.RECORDING, "run `dwm split` again"),
        (SplitPolicy.SCENE_DISJOINT, LeakLevel.SCENE, "run `dwm split` again"),
        (SplitPolicy.RECORDING_DISJOINT, LeakLevel.SCENE, "choose a stricter one"),
        (SplitPolicy.OFFICIAL, LeakLevel.RECORDING, "choose a stricter one"),
    ],
)
def test_advice_is_one_that_helps(policy: SplitPolicy, level: LeakLevel, words: str, tmp_path: Path) -> None:
    report = leak_report(dataset_of(tmp_path), SplitDeclaration(policy=policy, settings=SplitSettings()))
    assert words in report.remedy(level)
    assert ("run `dwm split` again" in report.remedy(level)) == (words == "run `dwm split` again")


def test_commands_end_with_one_and_show_the_table(tmp_path: Path) -> None:
    dataset = copies_in_two_scenes(tmp_path)
    split = ["split", str(dataset.root), "--policy", "in-order"]
    refused = CliRunner().invoke(app, split)
    assert refused.exit_code == 1
    assert "BROKEN" in refused.output
    assert "1 at level clip" in refused.output
    checked = CliRunner().invoke(app, ["check", str(dataset.root), "--no-media", "--json"])
    leaks = [problem for problem in json.loads(checked.stdout)["problems"] if problem["code"] == "split-leak"]
    assert checked.exit_code == 1
    assert [("keep one of the copies" in leak["message"], leak["is_error"]) for leak in leaks] == [(True, True)]
    allowed = CliRunner().invoke(app, [*split, "--may-share", "clip", "--may-share", "scene", "--json"])
    assert allowed.exit_code == 0
    assert json.loads(allowed.stdout)["leaks"]["forbidden"] == ["near_duplicate", "recording"]
