"""Frozen benchmarks: the same things give the same hash, other things are never mixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifests.benchmarks import BenchmarkSettings, freeze, load, require_same
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Split
from tests.helpers_manifest import assert_one_line, clip

SETTINGS = BenchmarkSettings(width=96, height=64, num_frames=17, seeds=(0, 1))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = Dataset.create_or_open(tmp_path)
    made.clips.append(
        [
            clip(1, split=Split.TEST, output_hashes={"interaction_path": "x"}),
            clip(2, split=Split.TEST),
            clip(3, split=Split.TRAIN),
            clip(4, split=Split.TEST, status="conditions_only", reason="no ground truth"),
        ]
    )
    return made


def test_freezing_the_same_again_gives_the_same_benchmark(dataset: Dataset) -> None:
    first = freeze(dataset, "test", ["clip-0002", "clip-0001"], SETTINGS)
    file = dataset.benchmarks_path.read_bytes()
    assert freeze(dataset, "test", ["clip-0001", "clip-0002"], SETTINGS) == first
    assert dataset.benchmarks_path.read_bytes() == file
    assert load(dataset, "test") == first
    assert (first.width, first.height, first.num_frames, first.seeds) == (96, 64, 17, (0, 1))


def test_a_split_is_frozen_as_its_ready_clips(dataset: Dataset) -> None:
    assert freeze(dataset, "test", Split.TEST, SETTINGS).clip_ids == ("clip-0001", "clip-0002")
    with pytest.raises(DwmError) as error:
        freeze(dataset, "other", Split.VALIDATION, SETTINGS)
    assert_one_line(error.value, "validation has no ready clips")


def test_hash_covers_clips_settings_and_content_but_not_the_name(dataset: Dataset) -> None:
    both = freeze(dataset, "a", Split.TEST, SETTINGS)
    assert freeze(dataset, "b", Split.TEST, SETTINGS).hash == both.hash
    fewer = freeze(dataset, "c", ["clip-0001"], SETTINGS)
    seeds = freeze(dataset, "d", Split.TEST, SETTINGS.model_copy(update={"seeds": (0,)}))
    dataset.clips.upsert([clip(1, split=Split.TEST, output_hashes={"interaction_path": "other"})])
    content = freeze(dataset, "e", Split.TEST, SETTINGS)
    assert len({both.hash, fewer.hash, seeds.hash, content.hash}) == 4


def test_other_content_under_the_same_name_is_refused(dataset: Dataset) -> None:
    freeze(dataset, "test", Split.TEST, SETTINGS)
    with pytest.raises(DwmError) as error:
        freeze(dataset, "test", ["clip-0001"], SETTINGS)
    assert_one_line(error.value, "'test'", "other clips", "new name")
    with pytest.raises(DwmError, match="other settings"):
        freeze(dataset, "test", Split.TEST, SETTINGS.model_copy(update={"width": 720}))


def test_benchmark_whose_clips_have_changed_is_not_loaded(dataset: Dataset) -> None:
    freeze(dataset, "test", Split.TEST, SETTINGS)
    dataset.clips.upsert([clip(1, split=Split.TEST, output_hashes={"interaction_path": "other"})])
    with pytest.raises(DwmError) as error:
        load(dataset, "test")
    assert_one_line(error.value, "'test'", "other content")


def test_unknown_and_unready_clips_cannot_be_frozen(dataset: Dataset) -> None:
    for clip_id in ("clip-0004", "absent"):
        with pytest.raises(DwmError) as error:
            freeze(dataset, "test", ["clip-0001", clip_id], SETTINGS)
        assert_one_line(error.value, clip_id)
    with pytest.raises(DwmError, match="no clips"):
        freeze(dataset, "test", [], SETTINGS)


def test_benchmark_edited_by_hand_is_refused(dataset: Dataset) -> None:
    freeze(dataset, "test", Split.TEST, SETTINGS)
    content = json.loads(dataset.benchmarks_path.read_text())
    content["benchmarks"][0]["clip_ids"] = ["clip-0001"]
    dataset.benchmarks_path.write_text(json.dumps(content))
    with pytest.raises(DwmError) as error:
        load(dataset, "test")
    assert_one_line(error.value, "benchmarks.json", "edited by hand")


def test_unknown_benchmark_names_the_known_ones(dataset: Dataset) -> None:
    with pytest.raises(DwmError, match="none is frozen"):
        load(dataset, "absent")
    freeze(dataset, "test", Split.TEST, SETTINGS)
    with pytest.raises(DwmError, match="known: test"):
        load(dataset, "absent")


def test_results_of_different_benchmarks_are_refused() -> None:
    assert require_same({"a.json": "x", "b.json": "x"}) == "x"
    with pytest.raises(DwmError) as error:
        require_same({"a.json": "x", "b.json": "y"})
    assert_one_line(error.value, "a.json", "b.json")
    with pytest.raises(DwmError, match="none given"):
        require_same({})
