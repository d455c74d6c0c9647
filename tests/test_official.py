"""The official folder layout: import, export, and what becomes of bad input."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from manifests.check import check_manifest
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.garbage import collect
from manifests.schema import Clip, ClipStatus, Group, Source, Split
from render.arrays import write_npz
from render.video import write_video
from sources.official import (
    ImportPlan,
    ImportSettings,
    export_official,
    import_chunk,
    import_official,
    plan_import,
)
from sources.official_layout import list_lines, natural_key, scene_and_recording
from tests.helpers_video import (
    OFFICIAL_SPLITS,
    REAL_TRIPLETS,
    hands_of_moving_box,
    moving_box,
    noise,
    write_audio_only,
    write_triplet,
)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(dataset: Path) -> dict[str, Clip]:
    return {clip.official_path or "": clip for clip in Dataset.open(dataset).clips.rows()}


def only_row(dataset: Path) -> Clip:
    (clip,) = Dataset.open(dataset).clips.rows()
    return clip


def without_time(dataset: Path) -> list[dict[str, object]]:
    return [clip.model_dump(exclude={"created_at"}) for clip in Dataset.open(dataset).clips.rows()]


def test_round_trip_gives_the_same_bytes_and_lists(tmp_path: Path) -> None:
    raw, dataset, out = tmp_path / "raw", tmp_path / "dataset", tmp_path / "out"
    write_triplet(raw / "room a" / "first", "2", prompt=b"One.\r\nTwo.\r\n\r\n", raw_prompt=b"raw\ntext\n")
    write_triplet(raw / "room a" / "first", "10", prompt="Müsli, no newline".encode())
    write_triplet(raw / "room b" / "second", "00001", prompt=None, raw_prompt=b"\xef\xbb\xbfonly raw\n")
    (raw / "test.txt").write_bytes(
        b"# published\r\nroom b/second/videos/00001.mp4\r\n\r\nroom a/first/videos/2.mp4\r\nroom a/first/videos/10.mp4"
    )
    report = import_official(raw, dataset, lists=[raw / "test.txt"])
    assert (report.ready, report.failures, report.has_problems) == (3, (), False)
    clips = rows(dataset)
    assert clips["room a/first/videos/2.mp4"].prompt == "One.\nTwo."
    assert clips["room a/first/videos/2.mp4"].prompt_origin == "prompts_rewrite"
    assert clips["room b/second/videos/00001.mp4"].prompt == "only raw"
    assert [clips[line].list_order for line in list_lines(raw / "test.txt")] == [0, 1, 2]
    export = export_official(Dataset.open(dataset), out)
    assert export.clips == 3
    assert [(one.name, one.listed, one.exported) for one in export.lists] == [("test.txt", 3, 3)]
    assert tree(out) == tree(raw)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_TRIPLETS.is_dir(), reason="the real triplets are not on this machine")
def test_real_triplets_come_back_byte_for_byte(tmp_path: Path) -> None:
    report = import_official(REAL_TRIPLETS, tmp_path / "dataset")
    assert report.ready == 3
    clips = rows(tmp_path / "dataset")
    clip = clips["videos/00055.mp4"]
    assert (clip.num_frames, clip.fps, clip.width, clip.height) == (49, 8.0, 720, 480)
    assert (clip.scene_id, clip.recording_id, clip.group) == ("00055", "00055", Group.REAL_DYNAMIC)
    assert (clip.hand_visible_frames, clip.time_offset_frames, clip.flags) == (28, 0, ())
    assert clip.background_psnr_db == pytest.approx(22.45, abs=0.01)
    export_official(Dataset.open(tmp_path / "dataset"), tmp_path / "out")
    assert tree(tmp_path / "out") == tree(REAL_TRIPLETS)


def test_row_tells_where_its_files_are_and_what_they_hash_to(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a")
    import_official(tmp_path / "raw", tmp_path / "dataset")
    clip = only_row(tmp_path / "dataset")
    assert clip.source is Source.OFFICIAL
    assert clip.interaction_path == f"clips/official/{clip.clip_id}/interaction.mp4"
    assert set(clip.input_hashes) == {"interaction", "static", "hands", "prompts_rewrite"}
    assert clip.output_hashes["hands_path"] == clip.input_hashes["hands"]
    stored = tmp_path / "dataset" / clip.interaction_path
    assert stored.read_bytes() == (tmp_path / "raw/videos/a.mp4").read_bytes()
    assert stored.stat().st_nlink == 1
    assert clip.hand_visible_frames == 9


def test_importing_twice_changes_nothing(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a")
    first = import_official(tmp_path / "raw", tmp_path / "dataset")
    before = tree(tmp_path / "dataset")
    second = import_official(tmp_path / "raw", tmp_path / "dataset")
    assert (first.ready, second.ready, second.unchanged) == (1, 0, 1)
    assert tree(tmp_path / "dataset") == before


def test_half_copied_clip_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    """What a kill -9 leaves: some files whole, one unfinished, no row."""
    raw = tmp_path / "raw"
    write_triplet(raw, "a")
    import_official(raw, tmp_path / "whole")
    clip = only_row(tmp_path / "whole")
    killed = Dataset.create_or_open(tmp_path / "killed").clip_folder(clip.source, clip.clip_id)
    killed.mkdir(parents=True)
    shutil.copy(raw / "videos/a.mp4", killed / "interaction.mp4")
    (killed / "static.mp4").write_bytes(b"cut")
    (killed / ".hands.tmp-0.mp4").write_bytes(b"unfinished")
    report = import_official(raw, tmp_path / "killed")
    assert report.ready == 1
    (killed / ".hands.tmp-0.mp4").unlink()
    assert without_time(tmp_path / "killed") == without_time(tmp_path / "whole")
    assert tree(tmp_path / "killed/clips") == tree(tmp_path / "whole/clips")


def test_lost_file_of_a_ready_clip_is_restored(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a")
    import_official(tmp_path / "raw", tmp_path / "dataset")
    lost = tmp_path / "dataset" / str(only_row(tmp_path / "dataset").hands_path)
    lost.unlink()
    assert import_official(tmp_path / "raw", tmp_path / "dataset").ready == 1
    assert lost.is_file()


def test_changed_raw_file_is_a_conflict_until_refresh(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_triplet(raw, "a")
    import_official(raw, tmp_path / "dataset")
    before = only_row(tmp_path / "dataset")
    (raw / "prompts_rewrite/a.txt").write_bytes(b"I pull the box.")
    report = import_official(raw, tmp_path / "dataset")
    assert report.has_problems
    assert report.conflicts[0].reason == (
        "videos/a.mp4: prompts_rewrite changed since the import; refresh to take the new files"
    )
    assert only_row(tmp_path / "dataset") == before
    assert import_official(raw, tmp_path / "dataset", ImportSettings(refresh=True)).ready == 1
    assert only_row(tmp_path / "dataset").prompt == "I pull the box."


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: (raw / "videos_static/a.mp4").unlink(), "videos_static/a.mp4 is missing"),
        (lambda raw: (raw / "videos_hands/a.mp4").unlink(), "videos_hands/a.mp4 is missing"),
        (lambda raw: (raw / "prompts_rewrite/a.txt").unlink(), "prompts_rewrite/a.txt or prompts/a.txt is missing"),
        (lambda raw: (raw / "prompts_rewrite/a.txt").write_bytes(b" \n"), "prompts_rewrite/a.txt: the prompt is empty"),
        (lambda raw: (raw / "prompts_rewrite/a.txt").write_bytes(b"\xff\xfe"), "prompts_rewrite/a.txt: not UTF-8"),
        (lambda raw: _truncate(raw / "videos/a.mp4"), "videos/a.mp4: truncated"),
        (lambda raw: (raw / "videos_hands/a.mp4").write_bytes(b""), r"videos_hands/a.mp4: the file is empty \(0"),
        (lambda raw: write_audio_only(raw / "videos_static/a.mp4"), "videos_static/a.mp4: holds no video stream"),
        (
            lambda raw: write_video(raw / "videos_hands/a.mp4", hands_of_moving_box(12), 8),
            "videos_hands/a.mp4: hands video has 12 frames, interaction video has 9",
        ),
        (
            lambda raw: write_video(raw / "videos_static/a.mp4", moving_box(9, 32, 48), 8),
            "static video is 48x32, interaction video is 96x64",
        ),
        (
            lambda raw: write_video(raw / "videos_static/a.mp4", moving_box(9), 10),
            "static video has 10 frames a second, interaction video has 8",
        ),
    ],
)  # fmt: skip
def test_bad_member_becomes_a_failed_row_and_is_tried_again(tmp_path: Path, damage, reason: str) -> None:  # noqa: ANN001 - a lambda
    raw, dataset = tmp_path / "raw", tmp_path / "dataset"
    write_triplet(raw, "a")
    good = tree(raw)
    damage(raw)
    report = import_official(raw, dataset)
    clip = only_row(dataset)
    assert clip.status is ClipStatus.FAILED
    assert (clip.interaction_path, clip.num_frames) == (None, 0)
    assert clip.reason is not None
    assert re.search(reason, clip.reason), clip.reason
    assert str(tmp_path) not in clip.reason
    assert "\n" not in clip.reason
    assert report.has_problems
    assert report.failures[0].reason == clip.reason
    for name, data in good.items():
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / name).write_bytes(data)
    assert import_official(raw, dataset).ready == 1
    assert only_row(dataset).status is ClipStatus.READY


def test_without_interaction_video_a_clip_is_conditions_only(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_triplet(raw / "scene", "a")
    (raw / "scene/videos/a.mp4").unlink()
    report = import_official(raw, tmp_path / "dataset")
    clip = only_row(tmp_path / "dataset")
    assert (report.conditions_only, report.has_problems) == (1, False)
    assert (clip.status, clip.official_path, clip.num_frames) == (ClipStatus.CONDITIONS_ONLY, "scene/videos/a.mp4", 9)
    assert clip.reason is not None
    assert clip.reason.startswith("scene/videos/a.mp4 is missing")
    assert clip.hand_visible_frames == 9
    write_video(raw / "scene/videos/a.mp4", moving_box(9), 8)
    assert import_official(raw, tmp_path / "dataset").ready == 1


def test_empty_hand_video_is_flagged(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a")
    write_video(tmp_path / "raw/videos_hands/a.mp4", np.zeros((9, 64, 96, 3), np.uint8), 8)
    import_official(tmp_path / "raw", tmp_path / "dataset")
    clip = only_row(tmp_path / "dataset")
    assert clip.status is ClipStatus.READY
    assert clip.hand_visible_frames == 0
    assert clip.flags[0].startswith("empty_hands")


def test_sidecars_are_imported_checked_and_exported(tmp_path: Path) -> None:
    raw, dataset = tmp_path / "raw", tmp_path / "dataset"
    write_triplet(raw, "a")
    write_npz(raw / "cameras/a.npz", {"intrinsics": np.eye(3), "world_from_camera": np.tile(np.eye(4), (9, 1, 1))})
    write_npz(raw / "masks/a.npz", {"ids": np.zeros((9, 64, 96), np.uint8)})
    (raw / "metadata").mkdir()
    (raw / "metadata/a.json").write_text(
        '{"source": "synthetic", "group": "synthetic_dynamic", "scene_id": "s1", "recording_id": "r1"}'
    )
    assert import_official(raw, dataset).ready == 1
    clip = only_row(dataset)
    assert (clip.source, clip.group, clip.scene_id, clip.recording_id) == (
        Source.SYNTHETIC,
        Group.SYNTHETIC_DYNAMIC,
        "s1",
        "r1",
    )
    assert clip.camera_path == f"clips/synthetic/{clip.clip_id}/camera.npz"
    export_official(Dataset.open(dataset), tmp_path / "out")
    assert tree(tmp_path / "out") == tree(raw)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cameras/a.npz", {"intrinsics": np.eye(3), "world_from_camera": np.ones((8, 4, 4))}, r"\(8, 4, 4\), exp"),
        ("masks/a.npz", {"id": np.zeros(3)}, "lacks the arrays ids"),
        ("metadata/a.json", b'{"scene": "x"}', "metadata/a.json: scene"),
        ("metadata/a.json", b"{", "metadata/a.json"),
    ],
)  # fmt: skip
def test_bad_sidecar_becomes_a_failed_row(tmp_path: Path, name: str, content: object, reason: str) -> None:
    raw = tmp_path / "raw"
    write_triplet(raw, "a")
    (raw / name).parent.mkdir()
    if isinstance(content, bytes):
        (raw / name).write_bytes(content)
    else:
        write_npz(raw / name, content)  # type: ignore[arg-type]
    import_official(raw, tmp_path / "dataset")
    assert re.search(reason, str(only_row(tmp_path / "dataset").reason))


def test_generated_clip_never_gets_a_real_group(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_triplet(raw, "a")
    (raw / "metadata").mkdir()
    (raw / "metadata/a.json").write_text('{"source": "synthetic"}')
    import_official(raw, tmp_path / "dataset", ImportSettings(group=Group.REAL_DYNAMIC))
    clip = only_row(tmp_path / "dataset")
    assert (clip.status, clip.source, clip.group) == (ClipStatus.FAILED, Source.SYNTHETIC, None)
    assert "real_dynamic is for real video" in str(clip.reason)


def test_list_lines_without_files_become_failed_rows_and_doubles_one_clip(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_triplet(raw, "a")
    (raw / "list.txt").write_bytes(b"videos/a.mp4\nvideos/none.mp4\n./videos/a.mp4\n")
    report = import_official(raw, tmp_path / "dataset", lists=[raw / "list.txt"])
    clips = rows(tmp_path / "dataset")
    assert report.ready == 1
    assert clips["videos/none.mp4"].status is ClipStatus.FAILED
    assert "nothing of this clip is on disk" in str(clips["videos/none.mp4"].reason)
    assert clips["videos/none.mp4"].list_order == 1
    export = export_official(Dataset.open(tmp_path / "dataset"), tmp_path / "out")
    assert [(one.listed, one.exported) for one in export.lists] == [(2, 1)]
    assert (tmp_path / "out/list.txt").read_bytes() == b"videos/a.mp4\n./videos/a.mp4\n"
    assert export.left_out == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/etc/videos/a.mp4", "leads out of the raw folder"),
        ("../other/videos/a.mp4", "leads out of the raw folder"),
        ("scene/a.mp4", "is no .../videos/<stem>.mp4 path"),
    ],
)
def test_dangerous_or_strange_list_lines_are_refused_before_anything_is_written(
    tmp_path: Path, line: str, message: str
) -> None:
    write_triplet(tmp_path / "raw", "a")
    (tmp_path / "list.txt").write_text(f"videos/a.mp4\n{line}\n")
    with pytest.raises(DwmError, match=message) as caught:
        import_official(tmp_path / "raw", tmp_path / "dataset", lists=[tmp_path / "list.txt"])
    assert "line 2" in str(caught.value)
    assert not (tmp_path / "dataset").exists()


def test_another_list_of_the_same_name_is_refused(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a")
    path = tmp_path / "list.txt"
    path.write_text("videos/a.mp4\n")
    import_official(tmp_path / "raw", tmp_path / "dataset", lists=[path])
    path.write_text("videos/a.mp4\n# changed\n")
    with pytest.raises(DwmError, match="another list of this name"):
        import_official(tmp_path / "raw", tmp_path / "dataset", lists=[path])


def test_folder_without_the_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match=r"looked for <sample>/videos/<stem>\.mp4"):
        import_official(tmp_path, tmp_path / "dataset")
    with pytest.raises(DwmError, match="no such folder"):
        import_official(tmp_path / "none", tmp_path / "dataset")
    write_triplet(tmp_path / "raw", "a")
    with pytest.raises(DwmError, match="none of 1 clips fits the pattern 'b'"):
        plan_import(tmp_path / "raw", only="b")
    assert not (tmp_path / "dataset").exists()


def test_plan_counts_and_survives_serialising(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for stem in ("10", "9", "1"):
        write_triplet(raw / "s", stem)
    (raw / "s/video_latents").mkdir()
    (raw / "s/video_latents/9.pt").write_bytes(b"x")
    plan = plan_import(raw)
    assert [request.stem for request in plan.requests] == ["1", "9", "10"]
    assert plan.latent_files_left == 1
    assert ImportPlan.model_validate_json(plan.model_dump_json()) == plan
    figures = plan.figures()
    assert figures.clips == 3
    assert figures.hours == pytest.approx(3 * 9 / 8 / 3600)
    assert figures.disk_bytes == sum(len(data) for name, data in tree(raw).items() if "latents" not in name)
    assert [request.stem for request in plan_import(raw, limit=2).requests] == ["1", "9"]
    assert [request.stem for request in plan_import(raw, only="?").requests] == ["1", "9"]
    assert [len(chunk) for chunk in plan.chunks(2)] == [2, 1]
    assert import_official(raw, tmp_path / "dataset").latent_files_left == 1


def test_clip_ids_depend_on_collection_and_path_not_on_the_place(tmp_path: Path) -> None:
    for place in ("here", "there"):
        write_triplet(tmp_path / place / "set" / "s", "a")
    here, there = (plan_import(tmp_path / place / "set").requests[0].clip_id for place in ("here", "there"))
    assert here == there
    assert plan_import(tmp_path / "here/set", collection="other").requests[0].clip_id != here


def test_chunks_need_a_dataset(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a")
    with pytest.raises(DwmError, match="no dataset here"):
        import_chunk(tmp_path / "dataset", plan_import(tmp_path / "raw").requests, ImportSettings())


@pytest.mark.parametrize(
    ("collection", "path", "expected"),
    [
        ("data", "trumans/ego_render_fov90/room/2023@1/videos/00008.mp4", ("room", "2023@1")),
        ("ego_render_fov90", "room/2023@1/videos/00008.mp4", ("room", "2023@1")),
        ("data", "taste_rob/DoubleHand/Office_1_to_2/videos/55855.mp4", ("Office_1_to_2", "55855")),
        ("DoubleHand", "Office_1_to_2/videos/55855.mp4", ("Office_1_to_2", "55855")),
        ("realworld_dynamic", "videos/00013.mp4", ("00013", "00013")),
        ("dwm_realworld", "realworld_dynamic/videos/00013.mp4", ("00013", "00013")),
        ("mine", "kitchen/videos/1.mp4", ("kitchen", "kitchen/1")),
    ],
)
def test_scene_and_recording_come_from_the_path(collection: str, path: str, expected: tuple[str, str]) -> None:
    assert scene_and_recording(collection, path) == expected


@pytest.mark.skipif(not OFFICIAL_SPLITS.is_dir(), reason="the published lists are not on this machine")
def test_published_lists_are_read_whole_and_import_without_their_files(tmp_path: Path) -> None:
    lists = sorted(OFFICIAL_SPLITS.glob("*.txt"))
    counts = {path.stem: len(list_lines(path)) for path in lists}
    assert counts == {"taste_rob_test": 48, "taste_rob_train": 3289, "trumans_test": 48, "trumans_train": 13721}
    (tmp_path / "raw").mkdir()
    tests = [path for path in lists if "test" in path.stem]
    report = import_official(tmp_path / "raw", tmp_path / "dataset", lists=tests)
    assert len(report.failures) == 96
    clips = rows(tmp_path / "dataset").values()
    assert {clip.group for clip in clips} == {Group.SYNTHETIC_DYNAMIC, Group.REAL_STATIC}
    assert len({clip.scene_id for clip in clips if clip.group is Group.SYNTHETIC_DYNAMIC}) == 18
    for path in tests:
        assert (tmp_path / "dataset/lists" / path.name).read_bytes() == path.read_bytes()


def test_two_clips_at_one_path_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a")
    import_official(tmp_path / "raw", tmp_path / "dataset", collection="one")
    import_official(tmp_path / "raw", tmp_path / "dataset", collection="two")
    ids = [clip.clip_id for clip in Dataset.open(tmp_path / "dataset").clips.rows()]
    with pytest.raises(DwmError, match=f"{ids[0]} and {ids[1]}"):
        export_official(Dataset.open(tmp_path / "dataset"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_never_overwrites_other_content(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a")
    import_official(tmp_path / "raw", tmp_path / "dataset")
    (tmp_path / "out/videos").mkdir(parents=True)
    (tmp_path / "out/videos/a.mp4").write_bytes(b"mine")
    with pytest.raises(DwmError, match="exists with other content"):
        export_official(Dataset.open(tmp_path / "dataset"), tmp_path / "out")


def test_clip_of_another_source_gets_a_path_metadata_and_a_split_list(tmp_path: Path) -> None:
    dataset = Dataset.create_or_open(tmp_path / "dataset")
    folder = dataset.clip_folder(Source.TRUMANS, "abc")
    for name, frames in (("interaction", moving_box(5)), ("static", moving_box(5)), ("hands", hands_of_moving_box(5))):
        write_video(folder / f"{name}.mp4", frames, 8)
    dataset.clips.append(
        [
            Clip(
                clip_id="abc",
                source=Source.TRUMANS,
                scene_id="room",
                recording_id="2023@1",
                interaction_path="clips/trumans/abc/interaction.mp4",
                static_path="clips/trumans/abc/static.mp4",
                hands_path="clips/trumans/abc/hands.mp4",
                prompt="I sit down.\nI get up.",
                prompt_origin="annotation",
                split=Split.TEST,
                status=ClipStatus.READY,
            )
        ]
    )
    export_official(dataset, tmp_path / "out")
    sample = "trumans/room/2023@1"
    written = tree(tmp_path / "out")
    assert written["test.txt"] == f"{sample}/videos/abc.mp4\n".encode()
    assert written[f"{sample}/prompts_rewrite/abc.txt"] == b"I sit down.\nI get up."
    report = import_official(tmp_path / "out", tmp_path / "again")
    assert report.ready == 1
    again = only_row(tmp_path / "again")
    assert (again.source, again.scene_id, again.recording_id) == (Source.TRUMANS, "room", "2023@1")
    assert again.prompt == "I sit down.\nI get up."


def test_prompt_that_was_rewritten_in_the_dataset_is_exported(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a", raw_prompt=b"raw\n")
    import_official(tmp_path / "raw", tmp_path / "dataset")
    dataset = Dataset.open(tmp_path / "dataset")
    dataset.clips.upsert([only_row(tmp_path / "dataset").updated(prompt="Better.", prompt_origin="captioner")])
    export_official(dataset, tmp_path / "out")
    assert (tmp_path / "out/prompts_rewrite/a.txt").read_bytes() == b"Better."
    assert (tmp_path / "out/prompts/a.txt").read_bytes() == b"raw\n"


def test_missing_stored_file_stops_the_export_with_its_name(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a")
    import_official(tmp_path / "raw", tmp_path / "dataset")
    dataset = Dataset.open(tmp_path / "dataset")
    (tmp_path / "dataset" / str(only_row(tmp_path / "dataset").static_path)).unlink()
    with pytest.raises(DwmError, match=r"static\.mp4: file of clip \w+ is missing"):
        export_official(dataset, tmp_path / "out")


def test_other_containers_keep_their_suffix(tmp_path: Path) -> None:
    write_triplet(tmp_path / "raw", "a")
    frames = noise(9, 64, 96)
    (tmp_path / "raw/videos/a.mp4").unlink()
    write_video(tmp_path / "raw/videos/a.mov", frames, 8)
    import_official(tmp_path / "raw", tmp_path / "dataset")
    assert str(only_row(tmp_path / "dataset").interaction_path).endswith("interaction.mov")
    export_official(Dataset.open(tmp_path / "dataset"), tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "raw")


def test_originals_of_prompts_and_metadata_are_no_garbage(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_triplet(raw, "a", raw_prompt=b"raw")
    (raw / "metadata").mkdir()
    (raw / "metadata/a.json").write_text('{"source": "synthetic"}')
    import_official(raw, tmp_path / "dataset")
    dataset = Dataset.open(tmp_path / "dataset")
    assert collect(dataset, min_age_s=-1).items == ()
    assert [problem.code for problem in check_manifest(dataset)] == []


def test_reports_read_as_lines(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_triplet(raw, "a")
    write_triplet(raw, "b", prompt=None)
    assert plan_import(raw).figures().lines()[0].startswith("2 clips, 0.00 hours")
    lines = import_official(raw, tmp_path / "dataset").lines()
    assert lines[0] == "1 ready, 0 without ground truth, 0 unchanged, 1 failed, 0 in conflict"
    assert lines[1].startswith("failed: prompts_rewrite/b.txt or prompts/b.txt is missing")
    assert export_official(Dataset.open(tmp_path / "dataset"), tmp_path / "out").lines() == [
        "1 clips in 4 files, 1 clips left out"
    ]


def test_natural_order() -> None:
    assert sorted(["a10", "a9", "b1", "a"], key=natural_key) == ["a", "a9", "a10", "b1"]
