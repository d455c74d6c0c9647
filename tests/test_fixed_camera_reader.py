"""Fixed-camera folders: the release's layout and any other, their captions, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.errors import DwmError
from sources.caption_tables import read_caption_file, read_sheet, video_key
from sources.captions import Caption
from sources.fixed_camera_captions import open_captions
from sources.synthetic.fixed_camera import captions_workbook
from sources.taste_rob import FixedCameraFolder, FixedVideo, Subset, open_fixed_camera


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video")


def video(folder: FixedCameraFolder, name: str) -> FixedVideo:
    return next(each for each in folder.videos if each.name == name)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    raw = tmp_path / "TASTE_Rob"
    for name in ("DoubleHand/Dinning/58.mp4", "DoubleHand/Kitchen/9.mp4", "DoubleHand/Kitchen/00010.mp4"):
        touch(raw / name)
    touch(raw / "DoubleHand/Office_60491_to_70512/60500.mp4", raw / "SingleHand/Bedroom/7.mp4")
    touch(raw / "DoubleHand/Kitchen/._9.mp4", raw / "DoubleHand/Kitchen/readme.txt")
    return raw


def test_release_is_recognised_and_its_double_hand_videos_come_in_natural_order(release: Path) -> None:
    folder = open_fixed_camera(release)
    assert folder.is_release
    assert [each.path for each in folder.videos] == [
        "DoubleHand/Dinning/58.mp4",
        "DoubleHand/Kitchen/9.mp4",
        "DoubleHand/Kitchen/00010.mp4",
        "DoubleHand/Office_60491_to_70512/60500.mp4",
    ]
    kitchen = video(folder, "9")
    assert (kitchen.scene_id, kitchen.recording_id) == ("Kitchen", "DoubleHand/Kitchen/9")
    assert kitchen.official_path == "taste_rob/DoubleHand/Kitchen/videos/9.mp4"


def test_subsets_are_chosen_by_name_or_folder(release: Path) -> None:
    assert [each.path for each in open_fixed_camera(release, Subset.SINGLE_HAND).videos] == ["SingleHand/Bedroom/7.mp4"]
    assert len(open_fixed_camera(release, Subset.ALL).videos) == 5
    part = open_fixed_camera(release / "DoubleHand")
    assert part.is_release
    assert {each.recording_id for each in part.videos} >= {"DoubleHand/Kitchen/9"}
    with pytest.raises(DwmError, match="has no SingleHand"):
        open_fixed_camera(release / "DoubleHand", Subset.SINGLE_HAND)


def test_other_folders_are_plain_and_their_folders_are_scenes(tmp_path: Path) -> None:
    raw = tmp_path / "mine"
    touch(raw / "pour.mov", raw / "desk/a.mp4", raw / "desk/b.MP4")
    folder = open_fixed_camera(raw)
    assert not folder.is_release
    assert {each.name: each.scene_id for each in folder.videos} == {
        "pour": "mine/pour",
        "desk/a": "mine/desk",
        "desk/b": "mine/desk",
    }
    assert video(folder, "pour").official_path is None


def test_folders_without_videos_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="no such folder"):
        open_fixed_camera(tmp_path / "nowhere")
    with pytest.raises(DwmError, match="holds no video"):
        open_fixed_camera(tmp_path)
    touch(tmp_path / "DoubleHand" / "Kitchen.zip")
    with pytest.raises(DwmError, match=r"archives \(Kitchen.zip\).*unpack"):
        open_fixed_camera(tmp_path)


def test_captions_of_the_release_are_found_by_id_and_scene(release: Path) -> None:
    rows = [
        (58, "Dining", "Lift the plate"),
        (9, "Kitchen", "Wash the cup"),
        ("00010", "kitchen", "Cut the apple"),
        (60500, "Office", "Open the book"),
    ]
    (release / "captions.xlsx").write_bytes(captions_workbook(rows))
    folder = open_fixed_camera(release)
    book = open_captions(folder)
    assert [book.find(each) for each in folder.videos] == [Caption(text, "annotation") for _, _, text in rows]
    assert book.notes == []
    assert open_captions(open_fixed_camera(release / "DoubleHand")).find(folder.videos[1]).text == "Wash the cup"


def test_missing_ids_duplicates_and_other_scenes_are_told(release: Path) -> None:
    rows = [
        (None, "Kitchen", "Nobody's caption"),
        (58, "Dinning", None),
        (9, "Kitchen", "Wash the cup"),
        (9, "Kitchen", "Wash the cup"),
        (10, "Kitchen", "Cut the apple"),
        (10, "Kitchen", "Peel the apple"),
        (60500, "Bedroom", "Open the book"),
    ]
    (release / "captions.xlsx").write_bytes(captions_workbook(rows))
    folder = open_fixed_camera(release)
    book = open_captions(folder)
    assert [note.split(": ", 1)[1] for note in book.notes] == [
        "1 rows have no id and were left out (rows 2)",
        "1 rows have no caption and were left out (rows 3)",
    ]
    assert book.find(video(folder, "58")).text == ""
    assert book.find(video(folder, "9")) == Caption("Wash the cup", "annotation")
    conflict = book.find(video(folder, "00010"))
    assert conflict.text == "Cut the apple"
    assert conflict.flags == ("caption_conflict: rows 6, 7 give different captions, the first was taken",)
    assert book.find(video(folder, "60500")).flags == ("caption_scene: the caption's row 8 is of scene 'Bedroom'",)


def test_release_without_captions_is_noted(release: Path) -> None:
    folder = open_fixed_camera(release)
    book = open_captions(folder)
    assert "captions.xlsx is missing" in book.notes[0]
    assert book.find(folder.videos[0]).text == ""


def test_sheets_that_are_missing_or_lack_a_column_are_named(release: Path, tmp_path: Path) -> None:
    from openpyxl import Workbook

    workbook = Workbook()
    workbook.active.title = "Captions"
    workbook.active.append(["id", "text of it"])
    workbook.save(release / "captions.xlsx")
    with pytest.raises(DwmError, match=r"no sheet 'Double-Hand' \(only Captions\)"):
        open_captions(open_fixed_camera(release))
    with pytest.raises(DwmError, match=r"sheet 'Captions': no column 'caption'.*id, text of it"):
        read_sheet(release / "captions.xlsx", "captions")
    (tmp_path / "broken.xlsx").write_bytes(b"PK no archive")
    with pytest.raises(DwmError, match=r"broken.xlsx: no readable xlsx workbook"):
        read_sheet(tmp_path / "broken.xlsx", None)
    with pytest.raises(DwmError, match="no such file"):
        read_sheet(tmp_path / "absent.xlsx", None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", "video;prompt\npour.mp4;I pour.\ndesk/a;I wipe.\n"),
        ("captions.csv", 'name,extra,caption\npour,1,"I pour."\na.mp4,2,I wipe.\n'),
        ("prompts.txt", "pour\tI pour.\ndesk/a.mp4\tI wipe.\n"),
        ("table.csv", "\ufeffid\tcaption\npour\tI pour.\na\tI wipe.\n"),
    ],
)
def test_caption_files_of_plain_folders(tmp_path: Path, name: str, content: str) -> None:
    touch(tmp_path / "pour.mp4", tmp_path / "desk/a.mp4")
    (tmp_path / name).write_text(content, encoding="utf-8")
    folder = open_fixed_camera(tmp_path)
    book = open_captions(folder)
    assert book.find(video(folder, "pour")) == Caption("I pour.", "file")
    assert book.find(video(folder, "desk/a")) == Caption("I wipe.", "file")


def test_plain_folders_take_an_xlsx_and_texts_beside_videos(tmp_path: Path) -> None:
    touch(tmp_path / "1.mp4", tmp_path / "2.mp4", tmp_path / "3.mp4")
    (tmp_path / "captions.xlsx").write_bytes(captions_workbook([(1, "", "I pour.")], Subset.DOUBLE_HAND))
    (tmp_path / "2.txt").write_text("I wipe.\r\nThen I stop.\n", encoding="utf-8")
    (tmp_path / "3.txt").write_bytes(b"\xff\xfe")
    folder = open_fixed_camera(tmp_path)
    book = open_captions(folder)
    assert [book.find(each).text for each in folder.videos] == ["I pour.", "I wipe.\nThen I stop.", ""]
    assert "3.txt: not UTF-8" in book.notes[0]


def test_a_name_that_two_videos_bear_gives_neither_a_caption(tmp_path: Path) -> None:
    touch(tmp_path / "x/a.mp4", tmp_path / "y/a.mp4")
    (tmp_path / "captions.csv").write_text("video,caption\na,I wipe.\nx/a,I pour.\n")
    folder = open_fixed_camera(tmp_path)
    book = open_captions(folder)
    assert book.find(video(folder, "x/a")).text == "I pour."
    assert book.find(video(folder, "y/a")).text == ""


def test_several_or_unreadable_caption_files_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    (tmp_path / "captions.csv").write_text("video,caption\na,I wipe.\n")
    (tmp_path / "captions.txt").write_text("a I wipe.\n")
    with pytest.raises(DwmError, match=r"several caption files \(captions.csv, captions.txt\)"):
        open_captions(open_fixed_camera(tmp_path))
    with pytest.raises(DwmError, match="line 1 has no tab"):
        read_caption_file(tmp_path / "captions.txt")
    (tmp_path / "captions.csv").write_bytes(b"video,caption\na,\xff\n")
    with pytest.raises(DwmError, match="not UTF-8 text"):
        open_captions(open_fixed_camera(tmp_path), tmp_path / "captions.csv")
    with pytest.raises(DwmError, match=r"read from .xlsx, .csv, .txt"):
        read_caption_file(touch_json(tmp_path))


def touch_json(folder: Path) -> Path:
    (folder / "captions.json").write_text("{}")
    return folder / "captions.json"


@pytest.mark.parametrize(
    ("name", "key"),
    [("00123", "123"), ("Pour.MP4", "pour"), (" desk\\a.mov", "desk/a"), ("v1.5", "v1.5"), ("12.mp4", "12")],
)
def test_names_are_compared_without_suffix_case_and_leading_zeros(name: str, key: str) -> None:
    assert video_key(name) == key
