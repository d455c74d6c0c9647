"""Checks that open a clip's media: every disagreement is named, sound clips have no problem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus, MaskId
from render.arrays import write_npz
from render.hand_mask import dilate, hand_mask
from render.media_checks import check_clip_media, check_sidecar
from render.triplet import measure_triplet
from render.video import write_video
from sources.official import import_official
from tests.helpers_video import hands_of_moving_box, moving_box, write_triplet


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """A ready clip of 9 frames in ``tmp_path / "dataset"``."""
    write_triplet(tmp_path / "raw", "a")
    import_official(tmp_path / "raw", tmp_path / "dataset")
    (row,) = Dataset.open(tmp_path / "dataset").clips.rows()
    return row


def test_sound_clip_has_no_problem(tmp_path: Path, clip: Clip) -> None:
    assert check_clip_media(tmp_path / "dataset", clip) == []


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (hands_of_moving_box(7), 8, "hands has 7 frames, the manifest row has 9"),
        (hands_of_moving_box(9, 32, 48), 8, "hands is 48x32, the manifest row is 96x64"),
        (hands_of_moving_box(9), 12, "hands has 12 frames a second, the manifest row has 8"),
    ],
)
def test_video_that_disagrees_with_the_row_is_an_error(
    tmp_path: Path, clip: Clip, frames: np.ndarray, fps: float, message: str
) -> None:
    write_video(tmp_path / "dataset" / str(clip.hands_path), frames, fps)
    (problem,) = check_clip_media(tmp_path / "dataset", clip)
    assert problem.is_error
    assert problem.code == "media-disagrees"
    assert message in problem.message
    assert problem.clip_id == clip.clip_id
    assert problem.path == clip.hands_path


def test_broken_and_missing_videos_are_named(tmp_path: Path, clip: Clip) -> None:
    (tmp_path / "dataset" / str(clip.hands_path)).write_bytes(b"")
    (tmp_path / "dataset" / str(clip.static_path)).unlink()
    problems = check_clip_media(tmp_path / "dataset", clip)
    assert [problem.code for problem in problems] == ["unreadable-video", "unreadable-video"]
    assert {problem.path for problem in problems} == {clip.static_path, clip.hands_path}


def test_empty_hands_are_a_flag(tmp_path: Path, clip: Clip) -> None:
    write_video(tmp_path / "dataset" / str(clip.hands_path), np.zeros((9, 64, 96, 3), np.uint8), 8)
    (problem,) = check_clip_media(tmp_path / "dataset", clip)
    assert (problem.code, problem.is_error) == ("empty-hands", False)


def test_time_offset_is_a_flag(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    write_video(folder / "i.mp4", moving_box(49), 8)
    write_video(folder / "s.mp4", moving_box(49, box=False), 8)
    write_video(folder / "h.mp4", hands_of_moving_box(49, delay=3), 8)
    clip = Clip(
        clip_id="x", source="official", scene_id="s", recording_id="r", status=ClipStatus.READY,  # type: ignore[arg-type]
        num_frames=49, fps=8.0, width=96, height=64,
        interaction_path="clips/i.mp4", static_path="clips/s.mp4", hands_path="clips/h.mp4",
    )  # fmt: skip
    (problem,) = check_clip_media(tmp_path, clip)
    assert (problem.code, problem.is_error) == ("time-offset", False)
    assert "the hands video is 3 frames late" in problem.message


def test_failed_rows_are_not_opened(tmp_path: Path, clip: Clip) -> None:
    failed = clip.updated(status=ClipStatus.FAILED, hands_path="none.mp4")
    assert check_clip_media(tmp_path / "dataset", failed) == []


def _hand_arrays(count: int) -> dict[str, np.ndarray]:
    shapes = {
        "frame": (), "is_right": (), "score": (), "track_id": (), "pose": (45,), "orientation": (3,),
        "translation": (3,), "joints_camera": (21, 3), "joints_image": (21, 2), "vertices": (778, 3),
    }  # fmt: skip
    arrays = {name: np.zeros((count, *shape), np.float32) for name, shape in shapes.items()}
    arrays["frame"] = np.arange(count)
    return {**arrays, "faces_left": np.zeros((5, 3)), "faces_right": np.zeros((5, 3)), "focal_px": np.float64(50)}


def test_documented_sidecars_pass(tmp_path: Path) -> None:
    write_npz(tmp_path / "h.npz", _hand_arrays(9))
    check_sidecar("hand_motion_path", tmp_path / "h.npz", 9, 96, 64)
    write_npz(tmp_path / "d.npz", {"depth": np.zeros((9, 64, 96), np.float16)})
    check_sidecar("depth_path", tmp_path / "d.npz", 9, 96, 64)


@pytest.mark.parametrize(
    ("column", "arrays", "message"),
    [
        ("depth_path", {"depth": np.zeros((9, 96, 64))}, r"depth has shape \(9, 96, 64\), expected \(9, 64, 96\)"),
        ("masks_path", {"ids": np.zeros((9, 64))}, "ids has shape"),
        ("hand_motion_path", {**_hand_arrays(9), "pose": np.zeros((8, 45))}, "pose has 8 entries and frame has 9"),
        ("hand_motion_path", _hand_arrays(10), "names frames 0 to 9, the videos have 9"),
        ("hand_motion_path", {**_hand_arrays(9), "vertices": np.zeros((9, 778))}, "vertices has shape"),
    ],
)
def test_sidecar_of_other_shape_is_named(tmp_path: Path, column: str, arrays: dict, message: str) -> None:
    write_npz(tmp_path / "x.npz", arrays)
    with pytest.raises(DwmError, match=message):
        check_sidecar(column, tmp_path / "x.npz", 9, 96, 64)


def test_pickled_sidecar_is_refused(tmp_path: Path, clip: Clip) -> None:
    np.savez(tmp_path / "dataset/evil.npz", ids=np.array([{"a": 1}], dtype=object))
    (problem,) = check_clip_media(tmp_path / "dataset", clip.updated(masks_path="evil.npz"))
    assert problem.code == "wrong-sidecar"


def test_measures_of_a_triplet(tmp_path: Path) -> None:
    """Outside the dilated hands the static video differs by 10 grey levels: 28.13 dB."""
    static = np.full((5, 64, 96, 3), 100, np.uint8)
    interaction = static + 10
    hands = hands_of_moving_box(5)
    region = dilate(hand_mask(hands))
    interaction[region] = 250
    paths = [tmp_path / f"{name}.mp4" for name in ("i", "s", "h")]
    for path, frames in zip(paths, (interaction, static, hands), strict=True):
        write_video(path, frames, 8, lossless=True)
    measures = measure_triplet(*paths)
    assert measures.background_psnr_db == pytest.approx(20 * np.log10(255 / 10), abs=1e-6)
    assert measures.hand_visible_frames == 5
    assert measures.time_offset_frames is None
    assert measure_triplet(None, *paths[1:]).background_psnr_db is None


def test_what_the_masks_mark_is_no_background(tmp_path: Path) -> None:
    static = np.full((5, 64, 96, 3), 100, np.uint8)
    interaction = static + 10
    interaction[:, :20, :20] = 250
    ids = np.zeros((5, 64, 96), np.uint8)
    ids[:, :20, :20] = MaskId.MOVED_OBJECT
    write_npz(tmp_path / "masks.npz", {"ids": ids})
    paths = [tmp_path / f"{name}.mp4" for name in ("i", "s", "h")]
    for path, frames in zip(paths, (interaction, static, np.zeros_like(static)), strict=True):
        write_video(path, frames, 8, lossless=True)
    expected = pytest.approx(20 * np.log10(255 / 10), abs=1e-6)
    assert measure_triplet(*paths, tmp_path / "masks.npz").background_psnr_db == expected
    assert measure_triplet(*paths).background_psnr_db != expected


def test_triplets_of_different_length_are_refused(tmp_path: Path) -> None:
    for name, count in (("i", 5), ("s", 5), ("h", 4)):
        write_video(tmp_path / f"{name}.mp4", moving_box(count), 8)
    with pytest.raises(DwmError, match="differ in length"):
        measure_triplet(tmp_path / "i.mp4", tmp_path / "s.mp4", tmp_path / "h.mp4")
