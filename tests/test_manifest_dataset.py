"""Dataset folders: made, opened, moved, hashed."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Source, Split
from tests.helpers_manifest import assert_one_line, clip


def test_dataset_is_made_once_and_opened_again(tmp_path: Path) -> None:
    first = Dataset.create_or_open(tmp_path / "d")
    info = (tmp_path / "d" / "dataset.json").read_bytes()
    first.clips.append([clip(1)])
    assert Dataset.create_or_open(tmp_path / "d").clips.count() == 1
    assert (tmp_path / "d" / "dataset.json").read_bytes() == info
    moved = (tmp_path / "d").rename(tmp_path / "moved")
    assert Dataset.open(moved).clips.keys() == {"clip-0001"}


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "no dataset"), ("{broken", "damaged"), ('{"schema_version": 99}', "upgrade dwm-pipeline")],
)
def test_folder_that_is_no_readable_dataset_is_refused(content: str | None, word: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DwmError) as error:
        Dataset.open(tmp_path)
    assert_one_line(error.value, word, str(tmp_path))


def test_paths_of_rows_are_relative_to_the_dataset(tmp_path: Path) -> None:
    dataset = Dataset.create_or_open(tmp_path / "d")
    folder = dataset.clip_folder(Source.TASTE_ROB, "c")
    assert dataset.relative(folder / "hands.mp4") == "clips/taste_rob/c/hands.mp4"
    assert dataset.absolute("clips/taste_rob/c/hands.mp4") == folder / "hands.mp4"
    assert dataset.relative(tmp_path / "run") == "../run"
    with pytest.raises(DwmError, match="movable"):
        dataset.relative(tmp_path.parent / "elsewhere")


def test_content_hash_depends_on_content_alone(tmp_path: Path) -> None:
    dataset = Dataset.create_or_open(tmp_path)
    dataset.clips.append([clip(1, output_hashes={"interaction_path": "x"}), clip(2), clip(3, status="failed")])
    both = dataset.content_hash()
    assert dataset.content_hash(["clip-0002", "clip-0001"]) == both
    assert dataset.content_hash(["clip-0001"]) != both
    dataset.clips.upsert([clip(2, split=Split.TEST, flags=("x",))])
    assert dataset.content_hash() == both
    dataset.clips.upsert([clip(1, output_hashes={"interaction_path": "y"})])
    assert dataset.content_hash() != both
    with pytest.raises(DwmError, match="absent"):
        dataset.content_hash(["absent"])
