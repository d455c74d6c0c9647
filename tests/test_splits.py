"""Splits: what each policy promises, stability when data is added, official lists, leaks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.columns import arrow_schema
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.leaks import LeakLevel, audit_leaks
from manifests.official_lists import list_split, read_lists
from manifests.schema import Clip, ClipStatus, Split
from manifests.splits import (
    FORBIDDEN_LEAKS,
    SPLIT_COLUMNS,
    SplitPolicy,
    SplitReport,
    SplitSettings,
    assign_splits,
    declared_splits,
    place_units,
    policy_units,
    unit_hash,
)
from tests.helpers_manifest import assert_one_line, clip

PUBLISHED_LISTS = Path(__file__).parents[2] / "shared" / "data" / "official_splits"
DISJOINT = [SplitPolicy.SCENE_DISJOINT, SplitPolicy.RECORDING_DISJOINT, SplitPolicy.IN_ORDER]
HASHED = [SplitPolicy.SCENE_DISJOINT, SplitPolicy.RECORDING_DISJOINT]


class Candidate(NamedTuple):
    """What the policies look at in a clip: a row of `SPLIT_COLUMNS`."""

    clip_id: str
    source: str
    scene_id: str
    recording_id: str
    near_duplicate_group: str | None
    official_path: str | None
    list_order: int | None
    status: str


def candidate_table(candidates: Sequence[Candidate]) -> pa.Table:
    schema = arrow_schema(Clip)
    columns = [pa.array([getattr(one, name) for one in candidates], schema.field(name).type) for name in SPLIT_COLUMNS]
    return pa.table(columns, names=list(SPLIT_COLUMNS))


def candidate(number: int, scene: int, recording: int, group: int | None, *, source: str = "trumans") -> Candidate:
    return Candidate(
        clip_id=f"c{number:03d}",
        source=source,
        scene_id=f"s{scene}",
        recording_id=f"r{recording}",
        near_duplicate_group=None if group is None else f"g{group}",
        official_path=None,
        list_order=None,
        status="ready",
    )


@st.composite
def clip_sets(draw: st.DrawFn, *, groups: bool) -> list[Candidate]:
    """Clips of a few scenes and recordings, with or without near-duplicate groups."""
    group = st.none() | st.integers(0, 4) if groups else st.none()
    rows = draw(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 25), group), min_size=1, max_size=40))
    return [candidate(number, scene, recording, near) for number, (scene, recording, near) in enumerate(rows)]


def splits_of(candidates: list[Candidate], policy: SplitPolicy, chosen: SplitSettings) -> dict[str, Split]:
    clips = candidate_table(candidates)
    units = policy_units(clips, policy)
    placed = place_units(clips, units, policy, chosen)
    return {one.clip_id: placed[unit] for one, unit in zip(candidates, units.to_pylist(), strict=True)}


@given(candidates=clip_sets(groups=True), policy=st.sampled_from(DISJOINT), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_nothing_that_a_policy_forbids_is_in_two_splits(
    candidates: list[Candidate], policy: SplitPolicy, seed: int
) -> None:
    splits = splits_of(candidates, policy, SplitSettings(seed=seed, train=0.5, validation=0.25, test=0.25))
    levels = {
        LeakLevel.NEAR_DUPLICATE: lambda one: one.near_duplicate_group,
        LeakLevel.RECORDING: lambda one: one.recording_id,
        LeakLevel.SCENE: lambda one: one.scene_id,
    }
    for level in levels.keys() & FORBIDDEN_LEAKS[policy]:
        seen: dict[str, Split] = {}
        for one in candidates:
            name = levels[level](one)
            assert name is None or seen.setdefault(name, splits[one.clip_id]) is splits[one.clip_id]


@given(candidates=clip_sets(groups=False), policy=st.sampled_from(HASHED), data=st.data())
@settings(max_examples=60, deadline=None)
def test_adding_clips_moves_none_of_the_old_ones(
    candidates: list[Candidate], policy: SplitPolicy, data: st.DataObject
) -> None:
    if policy is SplitPolicy.SCENE_DISJOINT:  # a recording lies in one scene
        candidates = [one._replace(recording_id=f"{one.scene_id}-{one.recording_id}") for one in candidates]
    old = data.draw(st.lists(st.sampled_from(candidates), min_size=1, unique=True))
    before = splits_of(old, policy, SplitSettings())
    after = splits_of(candidates, policy, SplitSettings())
    assert before == {clip_id: after[clip_id] for clip_id in before}


@given(candidates=clip_sets(groups=True), policy=st.sampled_from(DISJOINT), data=st.data())
@settings(max_examples=30, deadline=None)
def test_order_of_the_rows_does_not_matter(
    candidates: list[Candidate], policy: SplitPolicy, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(candidates))
    assert splits_of(candidates, policy, SplitSettings()) == splits_of(shuffled, policy, SplitSettings())


def test_hash_puts_about_the_asked_fraction_into_each_split() -> None:
    candidates = [candidate(number, number, number, None) for number in range(2000)]
    splits = list(splits_of(candidates, SplitPolicy.SCENE_DISJOINT, SplitSettings(seed=3)).values())
    assert 0.77 < splits.count(Split.TRAIN) / 2000 < 0.83
    assert 0.08 < splits.count(Split.VALIDATION) / 2000 < 0.12
    assert 0.08 < splits.count(Split.TEST) / 2000 < 0.12


def test_place_of_a_unit_is_the_same_in_every_version() -> None:
    assert unit_hash("trumans:kitchen", 0) == pytest.approx(0.43565, abs=1e-5)
    assert unit_hash("trumans:kitchen", 1) != unit_hash("trumans:kitchen", 0)


def test_equal_names_of_two_sources_are_two_units() -> None:
    candidates = [candidate(0, 1, 1, None), candidate(1, 1, 1, None, source="aria")]
    assert policy_units(candidate_table(candidates), SplitPolicy.SCENE_DISJOINT).to_pylist() == [
        "trumans:s1",
        "aria:s1",
    ]


def dataset_of(tmp_path: Path, clips: list[Clip]) -> Dataset:
    dataset = Dataset.create_or_open(tmp_path / "dataset")
    dataset.clips.append(clips)
    return dataset


def leaks_of(report: SplitReport) -> dict[LeakLevel, int]:
    return {leak.level: leak.shared for leak in report.leaks.counts}


def test_three_given_clips_are_trained_validated_and_tested_in_order(tmp_path: Path) -> None:
    names = ["00013", "00039", "00055"]
    dataset = dataset_of(
        tmp_path, [clip(9 - n, recording_id=name, scene_id=name, list_order=n) for n, name in enumerate(names)]
    )
    report = assign_splits(dataset, SplitPolicy.IN_ORDER)
    by_order = {row.list_order: row.split for row in dataset.clips.rows()}
    assert by_order == {0: Split.TRAIN, 1: Split.VALIDATION, 2: Split.TEST}
    assert [count.ready_clips for count in report.counts] == [1, 1, 1]
    assert report.notes == ()


def test_in_order_without_a_list_goes_by_recording_id(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [clip(n, recording_id=f"take-{9 - n}") for n in range(5)])
    assign_splits(dataset, SplitPolicy.IN_ORDER)
    by_recording = {row.recording_id: row.split for row in dataset.clips.rows()}
    assert [by_recording[f"take-{n}"] for n in range(5, 10)] == [*[Split.TRAIN] * 3, Split.VALIDATION, Split.TEST]


@pytest.mark.parametrize(("count", "expected"), [(1, [1, 0, 0]), (2, [1, 0, 1])])
def test_too_few_given_clips_leave_splits_empty_and_say_so(count: int, expected: list[int], tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [clip(n, recording_id=f"take-{n}") for n in range(count)])
    report = assign_splits(dataset, SplitPolicy.IN_ORDER)
    assert [each.ready_clips for each in report.counts] == expected
    assert any("validation is empty" in note for note in report.notes)


def test_empty_split_is_reported_or_filled_when_asked(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [clip(n, scene_id=f"s{n // 3}", recording_id=f"r{n}") for n in range(12)])
    report = assign_splits(dataset, SplitPolicy.SCENE_DISJOINT)
    assert [count.ready_clips for count in report.counts] == [12, 0, 0]
    assert len(report.notes) == 2
    assert_one_line(DwmError(report.notes[0]), "validation is empty", "4 scenes", "ensure_every_split")
    filled = assign_splits(dataset, SplitPolicy.SCENE_DISJOINT, SplitSettings(ensure_every_split=True))
    assert all(count.ready_clips for count in filled.counts)
    assert filled.notes == ()
    assert set(leaks_of(filled).values()) == {0}


def test_fewer_scenes_than_splits_cannot_be_ensured(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [clip(1), clip(2)])
    with pytest.raises(DwmError) as error:
        assign_splits(dataset, SplitPolicy.SCENE_DISJOINT, SplitSettings(ensure_every_split=True))
    assert_one_line(error.value, "cannot fill 3 splits")


def test_only_usable_clips_get_a_split(tmp_path: Path) -> None:
    test_only = SplitSettings(train=0, validation=0, test=1)
    train_only = SplitSettings(train=1, validation=0, test=0)
    dataset = dataset_of(tmp_path, [clip(n, status=status, reason="r") for n, status in enumerate(ClipStatus)])
    assign_splits(dataset, SplitPolicy.SCENE_DISJOINT, test_only)
    splits = {row.status: row.split for row in dataset.clips.rows()}
    assert splits == {"ready": Split.TEST, "conditions_only": Split.TEST, "dropped": None, "failed": None}
    report = assign_splits(dataset, SplitPolicy.SCENE_DISJOINT, train_only)
    splits = {row.status: row.split for row in dataset.clips.rows()}
    assert splits == {"ready": Split.TRAIN, "conditions_only": None, "dropped": None, "failed": None}
    assert report.without_split == 3


def test_a_clip_that_fails_later_loses_its_split(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [clip(1)])
    assign_splits(dataset, SplitPolicy.SCENE_DISJOINT)
    dataset.clips.upsert([dataset.clips.get("clip-0001").updated(status="failed", reason="broken")])
    assert assign_splits(dataset, SplitPolicy.SCENE_DISJOINT).changed == 1
    assert dataset.clips.get("clip-0001").split is None


def test_fractions_must_sum_to_one() -> None:
    with pytest.raises(ValueError, match="must be 1"):
        SplitSettings(train=0.8, validation=0.3)


def test_declaration_is_kept_in_the_dataset(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [clip(1)])
    assert declared_splits(dataset) is None
    assign_splits(dataset, SplitPolicy.RECORDING_DISJOINT, SplitSettings(seed=7))
    declaration = declared_splits(dataset)
    assert declaration is not None
    assert (declaration.policy, declaration.settings.seed) == (SplitPolicy.RECORDING_DISJOINT, 7)


def write_lists(dataset: Dataset, **lists: str) -> None:
    dataset.lists_folder.mkdir()
    for name, text in lists.items():
        (dataset.lists_folder / f"{name}.txt").write_text(text)


def test_official_split_follows_the_lists(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [clip(n, official_path=f"a/videos/{n}.mp4") for n in range(4)])
    write_lists(
        dataset,
        trumans_train="a/videos/0.mp4\na/videos/1.mp4\n",
        x_val="a/videos/2.mp4\r\n",
        x_test="a/videos/9.mp4\n\n",
    )
    report = assign_splits(dataset, SplitPolicy.OFFICIAL)
    assert [row.split for row in dataset.clips.rows()] == [Split.TRAIN, Split.TRAIN, Split.VALIDATION, None]
    assert any("1 ready clips are in no list" in note and "clip-0003" in note for note in report.notes)
    assert any("1 listed paths have no clip" in note and "a/videos/9.mp4" in note for note in report.notes)
    assert any("test is empty" in note for note in report.notes)
    assert leaks_of(report)[LeakLevel.SCENE] == 1


def test_clip_in_lists_of_two_splits_is_refused(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [clip(1, official_path="a.mp4")])
    write_lists(dataset, x_train="a.mp4\n", x_test="a.mp4\n")
    with pytest.raises(DwmError) as error:
        assign_splits(dataset, SplitPolicy.OFFICIAL)
    assert_one_line(error.value, "a.mp4", "x_train.txt", "x_test.txt")
    assert dataset.clips.get("clip-0001").split is None


@pytest.mark.parametrize("name", ["all.txt", "train_and_test.txt"])
def test_list_whose_name_says_no_one_split_needs_a_mapping(name: str) -> None:
    with pytest.raises(DwmError, match="list_splits"):
        list_split(name, {})
    assert list_split(name, {name: Split.TEST}) is Split.TEST


def test_official_policy_without_lists_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DwmError) as error:
        assign_splits(dataset_of(tmp_path, [clip(1)]), SplitPolicy.OFFICIAL)
    assert_one_line(error.value, "no list files", "scene-disjoint")


def test_published_lists_hold_the_published_numbers() -> None:
    if not PUBLISHED_LISTS.is_dir():
        pytest.skip("the published lists (../shared/data/official_splits) are not on this machine")
    splits = list(read_lists(PUBLISHED_LISTS, {}).values())
    assert (splits.count(Split.TRAIN), splits.count(Split.TEST)) == (13_721 + 3_289, 48 + 48)


def test_published_trumans_split_leaks_scenes_but_no_recordings(tmp_path: Path) -> None:
    if not PUBLISHED_LISTS.is_dir():
        pytest.skip("the published lists (../shared/data/official_splits) are not on this machine")
    dataset = Dataset.create_or_open(tmp_path)
    dataset.lists_folder.mkdir()
    lines = []
    for name in ("trumans_train.txt", "trumans_test.txt"):
        text = (PUBLISHED_LISTS / name).read_text()
        (dataset.lists_folder / name).write_text(text)
        lines.extend(text.split())
    parts = [line.split("/") for line in lines]
    dataset.clips.append(
        clip(number, official_path=line, scene_id=folders[-4], recording_id=folders[-3])
        for number, (line, folders) in enumerate(zip(lines, parts, strict=True))
    )
    leaks = leaks_of(assign_splits(dataset, SplitPolicy.OFFICIAL))
    assert leaks[LeakLevel.SCENE] == 18
    assert leaks[LeakLevel.RECORDING] == 0


def test_audit_counts_what_splits_share_at_every_level(tmp_path: Path) -> None:
    same_video = {"output_hashes": {"interaction_path": "x"}}
    dataset = dataset_of(
        tmp_path,
        [
            clip(1, split=Split.TRAIN, scene_id="s", recording_id="r", near_duplicate_group="g", **same_video),
            clip(2, split=Split.TEST, scene_id="s", recording_id="r", near_duplicate_group="g", **same_video),
            clip(3, split=Split.TRAIN, scene_id="s", recording_id="other"),
            clip(4, scene_id="s", recording_id="other"),
        ],
    )
    leaks = {leak.level: leak for leak in audit_leaks(dataset)}
    assert {level: leak.shared for level, leak in leaks.items()} == dict.fromkeys(LeakLevel, 1)
    assert leaks[LeakLevel.SCENE].clips == 3
    assert leaks[LeakLevel.RECORDING].examples == ("synthetic:r",)
