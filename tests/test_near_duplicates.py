"""Clips that look alike get one group, and splits keep the group together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manifests.dataset import Dataset
from manifests.leaks import LeakLevel, audit_leaks
from manifests.near_duplicates import NearDuplicateSettings, group_near_duplicates, near_duplicate_groups
from manifests.schema import Clip, ClipStatus, Source, Split
from manifests.splits import SplitPolicy, SplitSettings, assign_splits

SETTINGS = NearDuplicateSettings()


def flipped(value: int, bits: int) -> str:
    return f"{value ^ ((1 << bits) - 1):016x}"


def test_alike_first_frames_with_alike_prompts_are_one_group() -> None:
    base = 0x0123456789ABCDEF
    ids = ["a", "b", "c", "d", "e"]
    hashes = [flipped(base, 0), flipped(base, 6), flipped(base, 12), flipped(base, 20), flipped(base, 0)]
    prompts = ["I open the red box.", "I open the red box!", "I open the box", "I open the red box.", "I pour tea."]
    groups = near_duplicate_groups(ids, hashes, prompts, SETTINGS)
    assert groups == {"a": "a", "b": "a", "c": "a"}  # c is near b, though not a; d is far; e does something else


def test_the_order_of_the_clips_does_not_matter() -> None:
    random = np.random.default_rng(0)
    hashes = [f"{int(value):016x}" for value in random.integers(0, 2**62, 30)]
    hashes += [flipped(int(value, 16), 3) for value in hashes[:10]]
    ids = [f"clip{index:02d}" for index in range(40)]
    order = random.permutation(40)
    groups = near_duplicate_groups(ids, hashes, [""] * 40, SETTINGS)
    shuffled = near_duplicate_groups([ids[i] for i in order], [hashes[i] for i in order], [""] * 40, SETTINGS)
    assert groups == shuffled
    assert len(groups) == 20


def clip(index: int, first_frame_hash: str | None, prompt: str = "I open the box.") -> Clip:
    return Clip(
        clip_id=f"clip{index:02d}",
        source=Source.TASTE_ROB,
        scene_id=f"scene{index}",
        recording_id=f"recording{index}",
        status=ClipStatus.READY,
        prompt=prompt,
        first_frame_hash=first_frame_hash,
    )


def test_splits_keep_near_duplicates_together(tmp_path: Path) -> None:
    dataset = Dataset.create_or_open(tmp_path / "dataset")
    random = np.random.default_rng(1)
    hashes = [f"{int(value):016x}" for value in random.integers(0, 2**62, 20)]
    pairs = [clip(index, hashes[index]) for index in range(20)]
    pairs += [clip(20 + index, flipped(int(hashes[index], 16), 2)) for index in range(20)]
    dataset.clips.append([*pairs, clip(40, None)])
    settings = SplitSettings(train=0.4, validation=0.3, test=0.3)

    def parted() -> int:
        assign_splits(dataset, SplitPolicy.SCENE_DISJOINT, settings)
        splits = {row.clip_id: row.split for row in dataset.clips.rows()}
        assert set(splits.values()) == set(Split)
        return sum(splits[f"clip{index:02d}"] != splits[f"clip{20 + index:02d}"] for index in range(20))

    assert parted() > 0  # scenes alone do not keep them together
    report = group_near_duplicates(dataset)
    assert (report.groups, report.clips, report.changed) == (20, 40, 40)
    assert parted() == 0
    leaks = {leak.level: leak.shared for leak in audit_leaks(dataset)}
    assert leaks[LeakLevel.NEAR_DUPLICATE] == 0
    assert group_near_duplicates(dataset).changed == 0
    dataset.clips.upsert([dataset.clips.get("clip05").updated(prompt="Something else entirely happens here")])
    assert group_near_duplicates(dataset).changed == 2
    assert dataset.clips.get("clip25").near_duplicate_group is None
