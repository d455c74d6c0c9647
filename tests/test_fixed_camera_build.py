"""Fixed-camera videos as clips: whole triplets, rows with reasons, resumable, the same bytes however they are made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from manifests.check import check_manifest
from manifests.dataset import Dataset
from manifests.errors import DwmError, UsageError
from manifests.schema import Clip, ClipStatus, Group, Review, Source
from render.camera import CameraPath
from render.hand_mask import hand_mask
from render.hands import HandMotion
from render.media_checks import check_clip_media
from render.video import read_video, write_video
from sources.fixed_camera_build import (
    BuildReport,
    FixedCameraSettings,
    build_chunk_in_worker,
    build_fixed_camera,
    plan_build,
    settings_from,
)
from sources.fixed_camera_clip import FILE_COLUMNS
from tests.helpers_cli import done, dwm, refused
from tests.helpers_fixed_camera import (
    FRAMES,
    HEIGHT,
    TINY,
    WIDTH,
    file_settings,
    table_scene,
    write_hands,
    write_in_format,
    write_release,
    write_table_video,
)
from tests.helpers_video import write_audio_only, write_variable_rate, write_with_pyav

VIDEOS = {"DoubleHand/Dinning/58": 1, "DoubleHand/Kitchen/9": 2, "DoubleHand/Kitchen/10": 3}
ROWS = [(58, "Dining", "Lift the plate."), (9, "Kitchen", "Wash the cup."), (10, "Kitchen", "Cut the apple.")]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("taste") / "release", VIDEOS, ROWS)


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hands")
    for name in ("58", "9", "10", "58.1"):
        write_hands(folder, name)
    return folder


@pytest.fixture(scope="module")
def settings(hands: Path) -> FixedCameraSettings:
    return file_settings(hands)


@pytest.fixture(scope="module")
def built(raw: Path, settings: FixedCameraSettings, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("built") / "dataset"
    report = build_or_skip(root, raw, settings)
    assert (report.ready, report.failures, report.notes) == (3, (), ())
    return Dataset.open(root)


def build_or_skip(root: Path, raw: Path, settings: FixedCameraSettings) -> BuildReport:
    try:
        return build_fixed_camera(root, plan_build(raw, settings))
    except DwmError as error:
        if "OpenGL" not in str(error):
            raise
        pytest.skip(f"no off-screen OpenGL on this machine: {error}")


def one_clip(
    tmp_path: Path, make: Callable[[Path], object], *, hands: int = 2, name: str = "take", **changes: object
) -> Clip:
    """The row of the only video of a plain folder."""
    raw, files = tmp_path / "mine", tmp_path / "files"
    raw.mkdir()
    make(raw / f"{name}.mp4")
    write_hands(files, name, hands=hands)
    build_or_skip(tmp_path / "dataset", raw, file_settings(files, **changes))
    dataset = Dataset.open(tmp_path / "dataset")
    assert check_manifest(dataset, verify_hashes=True) == []
    (clip,) = dataset.clips.rows()
    assert str(tmp_path) not in (clip.reason or "")
    return clip


def flag_names(clip: Clip) -> set[str]:
    return {flag.split(":")[0] for flag in clip.flags}


def test_clips_are_whole_triplets(built: Dataset) -> None:
    clips = {clip.recording_id: clip for clip in built.clips.rows()}
    assert set(clips) == {"DoubleHand/Dinning/58", "DoubleHand/Kitchen/9", "DoubleHand/Kitchen/10"}
    for clip in clips.values():
        assert check_clip_media(built.root, clip) == []
        assert all(getattr(clip, column) for column in FILE_COLUMNS)
        assert (clip.masks_path, clip.depth_path) == (None, None)
        assert (clip.source, clip.group, clip.static_policy) == (Source.TASTE_ROB, Group.REAL_STATIC, "first_frame")
        assert (clip.num_frames, clip.fps, clip.width, clip.height) == (FRAMES, 8.0, WIDTH, HEIGHT)
        assert (clip.fit_policy, clip.length_policy, clip.frame_step) == ("pad", None, 2)
        assert (clip.hand_estimator, clip.calibration_source) == ("file", "assumed")
        assert clip.hand_visible_frames == FRAMES
        assert clip.camera_motion_px == pytest.approx(0, abs=0.05)
        assert clip.hand_jitter_px is not None
        assert clip.licence == "TASTE-Rob Terms of Use"
        assert clip.flags == ()
    plate = clips["DoubleHand/Dinning/58"]
    assert (plate.prompt, plate.prompt_origin, plate.action_label) == ("Lift the plate.", "annotation", "lift plate")
    assert plate.official_path == "taste_rob/DoubleHand/Dinning/videos/58.mp4"
    assert sorted(path.name for path in (built.root / "contact_sheets").iterdir()) == [
        "fixed-Dinning.png",
        "fixed-Kitchen.png",
    ]


def test_the_static_video_is_the_first_frame_and_the_hands_are_in_register(built: Dataset) -> None:
    for clip in built.clips.rows():
        interaction, static, drawn = (
            read_video(built.absolute(getattr(clip, f"{role}_path"))).frames.astype(int)
            for role in ("interaction", "static", "hands")
        )
        assert np.abs(static - static[0]).mean() < 0.5
        assert np.abs(static[0] - interaction[0]).mean() < 2
        assert np.abs(interaction[-1] - interaction[0]).max() > 60  # the thing has moved
        cameras = CameraPath.load(built.absolute(clip.camera_path))
        assert np.array_equal(cameras.world_from_camera, np.tile(np.eye(4), (FRAMES, 1, 1)))
        motion = HandMotion.load(built.absolute(clip.hand_motion_path))
        assert cameras.intrinsics[0, 0] == motion.focal_px == 160
        visible = hand_mask(drawn.astype(np.uint8))
        for frame, centre in zip(motion.frame, motion.translation, strict=True):
            (column, row), _ = cameras[frame].project(centre)
            assert visible[frame, int(row), int(column)]


def test_building_again_changes_nothing_and_keeps_decisions(
    built: Dataset, raw: Path, settings: FixedCameraSettings, tmp_path: Path
) -> None:
    root = shutil.copytree(built.root, tmp_path / "dataset")
    dataset = Dataset.open(root)
    first = next(dataset.clips.rows())
    dataset.clips.upsert([first.updated(review=Review.ACCEPTED, review_reason="good")])
    before = list(dataset.clips.rows())
    report = build_fixed_camera(root, plan_build(raw, settings))
    assert (report.ready, report.unchanged) == (0, 3)
    assert list(dataset.clips.rows()) == before
    dataset.absolute(first.static_path).unlink()
    assert build_fixed_camera(root, plan_build(raw, settings)).ready == 1
    again = dataset.clips.get(first.clip_id)
    assert (again.output_hashes, again.review) == (first.output_hashes, Review.ACCEPTED)


def test_workers_and_chunks_do_not_change_bytes(
    built: Dataset, raw: Path, settings: FixedCameraSettings, tmp_path: Path
) -> None:
    plan = plan_build(raw, settings, chunk_videos=1)
    assert len(plan.chunks) == 3
    build_fixed_camera(tmp_path / "other", plan, workers=2)

    def content(dataset: Dataset) -> list[dict[str, object]]:
        return [row.model_dump(exclude={"created_at"}) for row in dataset.clips.rows()]

    assert content(Dataset.open(tmp_path / "other")) == content(built)


def test_a_changed_caption_or_setting_makes_a_clip_again(
    raw: Path, hands: Path, settings: FixedCameraSettings, tmp_path: Path
) -> None:
    mine = shutil.copytree(raw, tmp_path / "raw")
    build_or_skip(tmp_path / "dataset", mine, settings)
    write_release(mine, {}, [*ROWS[:2], (10, "Kitchen", "Peel the apple.")])
    assert build_fixed_camera(tmp_path / "dataset", plan_build(mine, settings)).ready == 1
    stretched = file_settings(hands, fit="stretch")
    assert build_fixed_camera(tmp_path / "dataset", plan_build(mine, stretched)).ready == 3
    dataset = Dataset.open(tmp_path / "dataset")
    assert {clip.fit_policy for clip in dataset.clips.rows()} == {"stretch"}
    assert dataset.clips.count() == 3


def test_generated_folders_never_claim_to_be_real(raw: Path, settings: FixedCameraSettings, tmp_path: Path) -> None:
    mine = shutil.copytree(raw, tmp_path / "raw")
    (mine / "synthetic.json").write_text('{"seed": 0}\n')
    build_or_skip(tmp_path / "dataset", mine, settings)
    for clip in Dataset.open(tmp_path / "dataset").clips.rows():
        assert (clip.source, clip.group) == (Source.SYNTHETIC, Group.SYNTHETIC_STATIC)


def test_plan_counts_and_filters(raw: Path, settings: FixedCameraSettings) -> None:
    figures = plan_build(raw, settings).figures()
    assert (figures.clips, figures.without_caption, figures.unreadable) == (3, 0, 0)
    assert figures.hours == pytest.approx(3 * FRAMES / 8 / 3600)
    assert figures.source_hours == pytest.approx(3 * 1.5 / 3600)
    assert plan_build(raw, settings, only="Kitchen").figures().clips == 2
    assert plan_build(raw, settings, limit=1).figures().clips == 1
    with pytest.raises(DwmError, match="none of 3 videos fits the pattern 'Garden'"):
        plan_build(raw, settings, only="Garden")


def test_more_windows_of_a_video_are_clips_of_one_recording(tmp_path: Path, hands: Path) -> None:
    raw = write_release(tmp_path / "raw", {}, ROWS)
    write_table_video(raw / "DoubleHand/Dinning/58.mp4", num_frames=50)
    build_or_skip(tmp_path / "dataset", raw, file_settings(hands, windows=5))
    clips = sorted(Dataset.open(tmp_path / "dataset").clips.rows(), key=lambda clip: clip.start_frame)
    assert [clip.start_frame for clip in clips] == [0, 18]
    assert {clip.recording_id for clip in clips} == {"DoubleHand/Dinning/58"}
    assert [clip.official_path is None for clip in clips] == [False, True]


# Odd and bad input: a clip with a reason to look, or a row that says why there is none


def rotated(path: Path) -> None:
    write_with_pyav(path, table_scene(24, width=128, height=192), container_format="mp4", codec="libx264", rotation=90)


def uneven(path: Path) -> None:
    times = [0, 10, *(45 * index + 25 * (index % 2) for index in range(2, 40))]
    write_variable_rate(path, table_scene(40), times)


@pytest.mark.parametrize(
    ("make", "flags"),
    [
        (uneven, {"variable_frame_rate"}),
        (rotated, {"rotated"}),
        (partial(write_in_format, frames=table_scene(), pixel_format="yuv420p10le"), set()),
        (partial(write_in_format, frames=table_scene(), pixel_format="yuv444p"), set()),
        (partial(write_table_video, num_frames=12), {"short_source"}),
        (partial(write_table_video, num_frames=7, fps=4.0), {"slow_source"}),
    ],
    ids=["variable rate", "rotated", "10 bits", "4:4:4", "short", "slow"],
)
def test_odd_videos_become_clips_with_a_reason_to_look(
    tmp_path: Path, make: Callable[[Path], object], flags: set[str]
) -> None:
    clip = one_clip(tmp_path, make)
    assert clip.status is ClipStatus.READY
    assert flag_names(clip) == {"no_caption", *flags}
    assert check_clip_media(tmp_path / "dataset", clip) == []


def test_a_rotated_video_stands_upright(tmp_path: Path) -> None:
    clip = one_clip(tmp_path, rotated)
    frame = read_video(tmp_path / "dataset" / clip.interaction_path, max_frames=1).frames[0]
    assert (frame[:, :4] > 24).any(axis=(0, 1)).any()  # it fills the clip: 128x192 turned is 192x128


@pytest.mark.parametrize("policy", ["pad_last", "stretch", "drop"])
def test_short_videos_follow_the_policy(tmp_path: Path, policy: str) -> None:
    clip = one_clip(tmp_path, partial(write_table_video, num_frames=12), short=policy)
    if policy == "drop":
        assert clip.status is ClipStatus.DROPPED
        assert clip.reason.startswith("take.mp4: gives 6 frames at 8 a second and a clip needs 9")
    else:
        assert (clip.status, clip.length_policy) == (ClipStatus.READY, policy)


def truncated(path: Path) -> None:
    write_table_video(path)
    path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), "take.mp4: the file is empty (0 bytes)"),
        (truncated, "take.mp4: "),
        (lambda path: path.write_bytes(b"no video" * 99), "take.mp4: not a video"),
        (write_audio_only, "take.mp4: holds no video stream"),
    ],
    ids=["empty", "truncated", "no video", "sound only"],
)
def test_unusable_videos_are_failed_rows(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    clip = one_clip(tmp_path, make)
    assert clip.status is ClipStatus.FAILED
    assert clip.reason.startswith(words)


def test_a_bad_file_does_not_end_the_batch_and_a_mended_one_is_taken(
    raw: Path, settings: FixedCameraSettings, tmp_path: Path
) -> None:
    mine = shutil.copytree(raw, tmp_path / "raw")
    whole = (mine / "DoubleHand/Kitchen/9.mp4").read_bytes()
    (mine / "DoubleHand/Kitchen/9.mp4").write_bytes(whole[: len(whole) // 2])
    report = build_or_skip(tmp_path / "dataset", mine, settings)
    assert (report.ready, [failure.recording_id for failure in report.failures]) == (2, ["DoubleHand/Kitchen/9"])
    (mine / "DoubleHand/Kitchen/9.mp4").write_bytes(whole)
    report = build_fixed_camera(tmp_path / "dataset", plan_build(mine, settings))
    assert (report.ready, report.unchanged, report.failures) == (1, 2, ())


def cut(path: Path) -> None:
    write_video(path, np.concatenate([table_scene(10, seed=1), 255 - table_scene(14, seed=5)]), 16.0)


def test_scene_cuts_are_dropped_with_the_place_or_flagged(tmp_path: Path) -> None:
    clip = one_clip(tmp_path, cut)
    assert clip.status is ClipStatus.DROPPED
    assert clip.reason == "scene_cut: another scene begins at frame 5 of the clip (0.6 s into the video)"
    assert clip.interaction_path is None
    again = build_fixed_camera(tmp_path / "dataset", plan_build(tmp_path / "mine", file_settings(tmp_path / "files")))
    assert (again.ready, again.dropped) == (0, 1)
    flagging = file_settings(tmp_path / "files", scene_cut="flag")
    build_fixed_camera(tmp_path / "dataset", plan_build(tmp_path / "mine", flagging))
    (clip,) = Dataset.open(tmp_path / "dataset").clips.rows()
    assert clip.status is ClipStatus.READY
    assert "scene_cut" in flag_names(clip)


def panned(path: Path) -> None:
    write_video(path, np.stack([np.roll(frame, -index, axis=1) for index, frame in enumerate(table_scene())]), 16.0)


@pytest.mark.parametrize("policy", ["flag", "drop"])
def test_a_moving_camera_is_told_in_pixels(tmp_path: Path, policy: str) -> None:
    clip = one_clip(tmp_path, panned, moving_camera=policy)
    assert clip.camera_motion_px == pytest.approx(2.0, abs=0.2)
    if policy == "drop":
        assert clip.status is ClipStatus.DROPPED
        assert clip.reason.startswith("camera_moves: the background moves 2.0")
    else:
        assert clip.status is ClipStatus.READY
        assert "camera_moves" in flag_names(clip)


@pytest.mark.parametrize("policy", ["flag", "drop"])
def test_no_hands_are_told(tmp_path: Path, policy: str) -> None:
    clip = one_clip(tmp_path, write_table_video, hands=0, no_hands=policy)
    if policy == "drop":
        assert clip.status is ClipStatus.DROPPED
        assert clip.reason == "no_hands: the estimator 'file' finds no hand in any frame"
    else:
        assert (clip.status, clip.hand_visible_frames) == (ClipStatus.READY, 0)
        assert flag_names(clip) == {"no_hands", "no_caption"}


def test_four_hands_are_drawn_and_flagged(tmp_path: Path) -> None:
    clip = one_clip(tmp_path, write_table_video, hands=4)
    assert "more_than_two_hands: up to 4 in a frame" in " ".join(clip.flags)
    motion = HandMotion.load(tmp_path / "dataset" / clip.hand_motion_path)
    assert len(motion) == 4 * FRAMES


def test_a_video_that_is_said_to_be_mirrored_is_flagged(tmp_path: Path) -> None:
    clip = one_clip(tmp_path, write_table_video, mirrored=True)
    assert flag_names(clip) == {"mirrored", "no_caption"}


def test_a_missing_hand_file_is_a_failed_row(tmp_path: Path) -> None:
    clip = one_clip(tmp_path, lambda path: write_table_video(path.with_name("other.mp4")))
    assert clip.status is ClipStatus.FAILED
    assert clip.reason.startswith("other.npz: no such file")


def test_near_duplicates_share_a_group(tmp_path: Path, hands: Path) -> None:
    raw = write_release(
        tmp_path / "raw",
        {"DoubleHand/Dinning/58": 1, "DoubleHand/Kitchen/9": 1, "DoubleHand/Kitchen/10": 4},
        [(58, "Dining", "Lift the plate."), (9, "Kitchen", "Lift the plate"), (10, "Kitchen", "Lift the plate")],
    )
    build_or_skip(tmp_path / "dataset", raw, file_settings(hands))
    groups = {clip.recording_id: clip.near_duplicate_group for clip in Dataset.open(tmp_path / "dataset").clips.rows()}
    assert groups["DoubleHand/Dinning/58"] == groups["DoubleHand/Kitchen/9"] is not None
    assert groups["DoubleHand/Kitchen/10"] is None


def test_worker_process_makes_a_chunk(raw: Path, settings: FixedCameraSettings, tmp_path: Path) -> None:
    Dataset.create_or_open(tmp_path / "dataset")
    plan = plan_build(raw, settings, limit=1)
    try:
        assert build_chunk_in_worker(tmp_path / "dataset", plan.chunks[0]).ready == 1
    except DwmError as error:
        pytest.skip(f"no off-screen OpenGL on this machine: {error}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"short": "loop"}, "short 'loop'"),
        ({"hands": {"estimator": "guess"}}, "hands.estimator 'guess'"),
        ({"captions": {"captioning": "vlm"}}, "captions: captioning 'vlm' needs the folder"),
        ({"windows": 0}, "windows '0'"),
    ],
)
def test_settings_name_the_value_that_they_refuse(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        settings_from(TINY, values)


def test_the_command_line_builds_and_tells(tmp_path: Path, built: Dataset) -> None:
    raw, files = tmp_path / "mine", tmp_path / "files"
    raw.mkdir()
    write_video(raw / "a.mp4", table_scene(80, width=288, height=192), 16.0)
    (raw / "b.mp4").write_bytes(b"")
    (raw / "a.txt").write_text("The person moves the box.")
    options = ["--estimator", "file", "--hand-files", files, "--profile", "mini", "--rewrite", "template"]
    command = ["build", "taste-rob", "--raw", raw, "--dataset", tmp_path / "dataset", *options]
    files.mkdir()
    assert done(*command, "--plan", "--json").json()["clips"] == 1
    outcome = dwm(*command)
    assert outcome.code == 1  # no hand file, and an empty video
    assert "0 ready, 0 unchanged, 0 dropped, 2 failed" in outcome.out
    assert "failed: mine/b from 0: b.mp4: the file is empty" in outcome.out
    assert "no such folder" in refused("build", "taste-rob", "--raw", tmp_path / "no", "--dataset", tmp_path / "d")
    assert "estimator" in refused(*command, "--estimator", "guess", code=2)
    assert "vlm" in refused(*command, "--vlm", tmp_path / "no_model", code=2)
