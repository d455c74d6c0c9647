"""Tables of the manifest: rows in, rows out, and files of other versions and programs."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from manifests import store
from manifests.columns import VERSION_KEY, arrow_schema, rows_to_table, table_to_rows
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.parts import write_part
from manifests.schema import TABLES, Clip, Generation, Review, Run, Source, Split
from tests.helpers_manifest import MADE_AT, assert_one_line, clip, clips_table, part_files, table_of_six


def test_every_field_of_a_row_survives_the_way_to_disk_and_back(tmp_path: Path) -> None:
    row = clip(
        1,
        group="real_dynamic",
        flags=("a", "b"),
        input_hashes={"z": "1", "a": "2"},
        object_motion_m=0.25,
        faces_blurred=False,
        review="accepted",
        review_at=MADE_AT,
        prompt="two\nlines ü",
        split=Split.TEST,
    )
    run = Run(
        run_id="r",
        run_path="../run",
        base_hash="b",
        dataset_hash="d",
        config_json="{}",
        checkpoints=(1, 20),
        metrics={"loss": 0.5},
        created_at=MADE_AT,
    )
    dataset = Dataset.create_or_open(tmp_path)
    dataset.clips.append([row])
    dataset.runs.append([run])
    assert dataset.clips.get("clip-0001") == row
    assert dataset.runs.get("r") == run


def test_rows_come_sorted_by_key_from_several_parts(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(5), clip(1)])
    table.append([clip(3)])
    assert [row.clip_id for row in table.rows()] == ["clip-0001", "clip-0003", "clip-0005"]
    assert table.read(["scene_id", "clip_id"]).column("clip_id").to_pylist() == ["clip-0001", "clip-0003", "clip-0005"]


def test_read_gives_only_the_named_columns_of_the_rows_that_fit(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1, split=Split.TEST), clip(2, split=Split.TRAIN), clip(3)])
    where = ds.field("split") == Split.TEST
    assert table.read(["prompt", "width"], where).column_names == ["prompt", "width"]
    assert table.keys(where) == {"clip-0001"}
    assert table.count(where) == 1
    assert table.count() == 3


def test_empty_table_reads_as_no_rows(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    assert table.count() == 0
    assert table.keys() == set()
    assert list(table.rows()) == []
    assert table.read(["prompt"]).column_names == ["prompt"]


def test_append_skips_what_is_there_whenever_it_was_made(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    assert table.append([clip(1), clip(2)]) == 2
    assert table.append([clip(2, created_at=datetime.now(UTC)), clip(3)]) == 1
    assert table.get("clip-0002").created_at == MADE_AT
    assert table.count() == 3


def test_append_of_other_content_under_a_known_key_is_refused_and_adds_nothing(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1)])
    with pytest.raises(DwmError) as error:
        table.append([clip(2), clip(1, prompt="other")])
    assert_one_line(error.value, "clip-0001", "upsert")
    assert table.keys() == {"clip-0001"}
    with pytest.raises(DwmError, match="two different rows"):
        table.append([clip(4), clip(4, prompt="other")])


def test_upsert_rewrites_only_the_parts_that_hold_a_changed_row(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    for start in (0, 10, 20):
        table.append(clip(number) for number in range(start, start + 3))
    before = set(part_files(table))
    table.upsert([clip(11, prompt="new"), clip(0, created_at=datetime.now(UTC))])
    after = set(part_files(table))
    assert len(before & after) == 2
    assert table.get("clip-0011").prompt == "new"
    assert table.count() == 9


def test_delete_counts_and_ignores_unknown_keys(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1), clip(2)])
    assert table.delete(["clip-0001", "absent"]) == 1
    assert table.delete(["clip-0001"]) == 0
    assert table.delete(["clip-0002"]) == 1
    assert table.count() == 0


def test_set_values_changes_one_column_of_the_named_rows(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1, split=Split.TRAIN), clip(2, split=Split.TRAIN)])
    table.append([clip(3)])
    untouched = part_files(table)
    assert table.set_values("split", {"clip-0001": Split.TRAIN, "clip-0003": None}) == 0
    assert part_files(table) == untouched
    assert table.set_values("split", {"clip-0001": None, "clip-0003": Split.TEST}) == 2
    assert [row.split for row in table.rows()] == [None, Split.TRAIN, Split.TEST]
    with pytest.raises(DwmError, match="absent"):
        table.set_values("split", {"absent": Split.TEST})


def test_set_values_takes_lists_maps_and_times(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1, flags=("dark",), output_hashes={"static_path": "x"}), clip(2)])
    table.append([clip(3, flags=("blurred",))])
    untouched = part_files(table)
    assert table.set_values("flags", {"clip-0001": ("dark",), "clip-0003": ["blurred"]}) == 0
    assert table.set_values("output_hashes", {"clip-0001": {"static_path": "x"}}) == 0
    assert part_files(table) == untouched
    assert table.set_values("flags", {"clip-0001": ("dark", "shaky"), "clip-0002": (), "clip-0003": ()}) == 2
    assert table.set_values("output_hashes", {"clip-0002": {"b": "2", "a": "1"}}) == 1
    assert table.set_values("review_at", {"clip-0002": MADE_AT}) == 1
    first, second, third = table.rows()
    assert (first.flags, second.flags, third.flags) == (("dark", "shaky"), (), ())
    assert (first.output_hashes, second.output_hashes) == ({"static_path": "x"}, {"a": "1", "b": "2"})
    assert (first.review_at, second.review_at) == (None, MADE_AT)


def test_set_values_names_how_many_keys_are_absent_and_changes_nothing(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1)])
    with pytest.raises(DwmError) as error:
        table.set_values("split", {"y": Split.TEST, "clip-0001": Split.TEST, "x": None})
    assert_one_line(error.value, "'x'", "2 such keys")
    assert table.get("clip-0001").split is None


def test_many_small_parts_are_merged_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_SMALL_PARTS", 4)
    monkeypatch.setattr(store, "MAX_PART_ROWS", 8)
    table = clips_table(tmp_path)
    for number in range(30):
        table.append([clip(number)])
    assert len(part_files(table)) < 30 / 2
    assert all(pq.read_metadata(path).num_rows <= 8 for path in part_files(table))
    assert [row.clip_id for row in table.rows()] == [f"clip-{number:04d}" for number in range(30)]
    table.compact()
    assert table.count() == 30


def test_get_of_an_unknown_key_names_it(tmp_path: Path) -> None:
    with pytest.raises(DwmError) as error:
        clips_table(tmp_path).get("absent")
    assert_one_line(error.value, "absent")


def test_rows_with_a_doubled_key_are_refused_and_the_files_named(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1), clip(2)])
    (original,) = part_files(table)
    shutil.copyfile(original, original.with_name("copied.parquet"))
    assert table.duplicate_keys() == ["clip-0001", "clip-0002"]
    with pytest.raises(DwmError) as error:
        list(table.rows())
    assert_one_line(error.value, "clip-0001", "copied.parquet", original.name)


def test_upsert_of_a_doubled_key_leaves_it_once(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1)])
    shutil.copyfile(part_files(table)[0], part_files(table)[0].with_name("copied.parquet"))
    table.upsert([clip(1, prompt="new")])
    assert [row.prompt for row in table.rows()] == ["new"]


def test_pandas_reads_the_folder_without_the_library(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(2), clip(1)])
    table.append([clip(3, flags=("x",))])
    table.upsert([clip(1, prompt="new")])
    frame = pd.read_parquet(table.parts.folder).set_index("clip_id").sort_index()
    assert list(frame.index) == ["clip-0001", "clip-0002", "clip-0003"]
    assert frame.loc["clip-0001", "prompt"] == "new"


def test_same_rows_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = clips_table(tmp_path / "a"), clips_table(tmp_path / "b")
    first.append([clip(1, input_hashes={"a": "1", "b": "2"}), clip(2)])
    second.append([clip(2), clip(1, input_hashes={"b": "2", "a": "1"})])
    assert part_files(first)[0].read_bytes() == part_files(second)[0].read_bytes()


@pytest.mark.parametrize("row_class", [Clip, Generation, Run])
def test_schema_documents_every_column(row_class: type[Clip | Generation | Run]) -> None:
    schema = arrow_schema(row_class)
    assert schema.names == list(row_class.model_fields)
    assert all(field.metadata[b"description"] for field in schema)
    assert TABLES[row_class.table_name] is row_class


def test_older_file_without_a_column_reads_as_its_default(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    old = rows_to_table(Clip, [clip(1)]).drop_columns(["frame_step", "flags", "split", "input_hashes"])
    table.parts.folder.mkdir(parents=True)
    write_part(table.parts.folder / "old.parquet", old)
    table.append([clip(2, frame_step=3, flags=("x",))])
    assert list(table.rows()) == [clip(1), clip(2, frame_step=3, flags=("x",))]
    assert table.keys(ds.field("frame_step") == 1) == {"clip-0001"}
    table.upsert([clip(1, prompt="new")])
    assert table.get("clip-0001") == clip(1, prompt="new")


def test_part_written_by_pandas_is_read(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1)])
    frame = pd.DataFrame(
        {"clip_id": ["p"], "source": ["aria"], "scene_id": ["s"], "recording_id": ["r"], "status": ["ready"]}
    )
    frame.to_parquet(table.parts.folder / "pandas.parquet")
    assert table.get("p").source is Source.ARIA
    assert table.count(ds.field("status") == "ready") == 2


def test_newer_schema_version_is_refused_in_one_line(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1)])
    newer = rows_to_table(Clip, [clip(2)]).replace_schema_metadata({VERSION_KEY: "99"})
    pq.write_table(newer, table.parts.folder / "newer.parquet")
    for use in (table.count, lambda: list(table.rows()), lambda: table.append([clip(3)])):
        with pytest.raises(DwmError) as error:
            use()
        assert_one_line(error.value, "newer.parquet", "99", "1", "upgrade dwm-pipeline")


def test_unknown_column_is_readable_but_never_lost_by_a_rewrite(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.parts.folder.mkdir(parents=True)
    extended = rows_to_table(Clip, [clip(1)]).append_column("later_column", pa.array(["x"]))
    write_part(table.parts.folder / "later.parquet", extended)
    assert table.get("clip-0001") == clip(1)
    with pytest.raises(DwmError) as error:
        table.upsert([clip(1, prompt="new")])
    assert_one_line(error.value, "later.parquet", "later_column")
    assert table.append([clip(2)]) == 1


def test_damaged_part_is_named(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append([clip(1)])
    part_files(table)[0].write_bytes(b"not parquet at all")
    with pytest.raises(DwmError) as error:
        table.count()
    assert_one_line(error.value, part_files(table)[0].name)


def test_row_that_does_not_fit_is_named_with_its_column(tmp_path: Path) -> None:
    bad = rows_to_table(Clip, [clip(1)])
    bad = bad.set_column(bad.schema.get_field_index("status"), bad.schema.field("status"), pa.array(["sleepy"]))
    with pytest.raises(DwmError) as error:
        list(table_to_rows(Clip, bad))
    assert_one_line(error.value, "clip-0001", "status", "sleepy")


def test_update_changes_the_fields_that_are_named_and_no_others(tmp_path: Path) -> None:
    table = table_of_six(tmp_path)
    table.set_values("split", {"clip-0004": Split.TEST})
    changed = table.update("clip-0004", review=Review.REJECTED, review_reason="blurred")
    assert (changed.split, changed.review, changed.review_reason) == (Split.TEST, Review.REJECTED, "blurred")
    assert table.get("clip-0004") == changed
    assert table.count() == 6
    with pytest.raises(DwmError) as caught:
        table.update("clip-0009", prompt="new")
    assert_one_line(caught.value, "no row with clip_id 'clip-0009'")
    assert table.count() == 6


def test_keys_are_found_in_parts_whatever_their_order_and_after_they_are_written_anew(tmp_path: Path) -> None:
    table = clips_table(tmp_path)
    table.append(clip(number) for number in range(0, 300, 2))
    part = part_files(table)[0]
    assert table.find("clip-0150") == clip(150)
    assert table.find("clip-0151") is None
    rows = pq.read_table(part)
    pq.write_table(rows.take(list(reversed(range(len(rows))))), part)  # somebody's own writer, not sorted
    assert table.find("clip-0150") == clip(150)
    assert table.find("clip-0298") == clip(298)
    pq.write_table(rows.slice(0, 10), part)
    assert table.find("clip-0018") == clip(18)
    assert table.find("clip-0150") is None
    shutil.copy(part, part.with_name("copied.parquet"))
    with pytest.raises(DwmError) as caught:
        table.find("clip-0018")
    assert_one_line(caught.value, "clip-0018", "occurs more than once", "copied.parquet")
