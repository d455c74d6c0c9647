"""Hand, moved-object and remaining regions: published figures of real clips, and that they divide every pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwm_model.metrics import region_psnr
from dwm_model.regions import load_regions, split_regions
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus, MaskId, Source
from render.arrays import write_npz
from render.hand_mask import HAND_THRESHOLD, dilate, hand_mask
from render.video import read_video, write_video

REAL_CLIPS = Path(__file__).parents[2] / "shared" / "data" / "dwm_realworld" / "realworld_dynamic"
needs_real_clips = pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason=f"the paper's real clips are not in {REAL_CLIPS}")


@needs_real_clips
@pytest.mark.parametrize(
    ("stem", "inside", "outside"), [("00013", 15.94, 21.58), ("00039", 19.90, 23.70), ("00055", 18.84, 22.45)]
)
def test_real_clips_have_the_reference_psnr_inside_and_outside(stem: str, inside: float, outside: float) -> None:
    static, truth, hands = (
        read_video(REAL_CLIPS / folder / f"{stem}.mp4").frames for folder in ("videos_static", "videos", "videos_hands")
    )
    regions = split_regions(hands)
    assert region_psnr(static, truth, regions.interaction) == pytest.approx(inside, abs=0.01)
    assert region_psnr(static, truth, regions.rest) == pytest.approx(outside, abs=0.01)


def hands_video(width: int = 72, height: int = 48) -> np.ndarray:
    frames = np.zeros((2, height, width, 3), np.uint8)
    frames[0, 20, 30] = (0, 200, 0)
    return frames


def test_compression_noise_in_the_black_is_no_hand() -> None:
    frames = hands_video()
    frames[1] = HAND_THRESHOLD
    mask = hand_mask(frames)
    assert mask[0].sum() == 1
    assert mask[0, 20, 30]
    assert not mask[1].any()


@pytest.mark.parametrize(("width", "across"), [(720, 31), (360, 17), (96, 5), (16, 3)])
def test_dilation_is_round_and_in_proportion_to_the_width(width: int, across: int) -> None:
    mask = np.zeros((1, 64, width), bool)
    mask[0, 32, width // 2] = True
    grown = dilate(mask)[0]
    assert grown.any(axis=0).sum() == grown.any(axis=1).sum() == across
    if across > 10:
        corner = 32 - across // 2
        assert not grown[corner, width // 2 - across // 2]


@given(seed=st.integers(0, 1000), with_masks=st.booleans())
@settings(max_examples=20, deadline=None)
def test_regions_are_disjoint_and_cover_every_pixel(seed: int, with_masks: bool) -> None:
    rng = np.random.default_rng(seed)
    hands = (rng.random((2, 24, 36, 3)) > 0.99).astype(np.uint8) * 255
    moved = rng.random((2, 24, 36)) > 0.8 if with_masks else None
    regions = split_regions(hands, moved)
    parts = [regions.hands, regions.rest, *([] if regions.object is None else [regions.object])]
    assert np.array_equal(sum(part.astype(int) for part in parts), np.ones((2, 24, 36)))
    assert (regions.object is None) == (moved is None)
    if moved is not None:
        assert np.array_equal(regions.interaction, dilate(hand_mask(hands)) | moved)


def test_a_moved_object_under_the_dilation_is_object_and_under_the_hand_itself_is_hand() -> None:
    moved = np.zeros((2, 48, 72), bool)
    moved[0, 20, 30:32] = True
    regions = split_regions(hands_video(), moved)
    assert regions.object is not None
    assert regions.hands[0, 20, 30]
    assert not regions.object[0, 20, 30]
    assert regions.object[0, 20, 31]
    assert not regions.hands[0, 20, 31]


def test_hands_of_the_interaction_video_belong_to_the_hand_region() -> None:
    real_hands = np.zeros((2, 48, 72), bool)
    real_hands[1, 40, 60] = True
    assert split_regions(hands_video(), None, real_hands).hands[1, 40, 60]


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(DwmError, match=r"\(2, 48, 72\).*\(2, 24, 36\)"):
        split_regions(hands_video(), np.zeros((2, 24, 36), bool))


def clip_with_files(root: Path, ids: np.ndarray | None, hands: np.ndarray | None) -> Clip:
    if hands is not None:
        write_video(root / "hands.mp4", hands, 8.0, lossless=True)
    if ids is not None:
        write_npz(root / "masks.npz", {"ids": ids})
    return Clip(
        clip_id="clip",
        source=Source.SYNTHETIC,
        scene_id="scene",
        recording_id="recording",
        status=ClipStatus.READY,
        hands_path=None if hands is None else "hands.mp4",
        masks_path=None if ids is None else "masks.npz",
    )


def test_masks_of_a_clip_are_fitted_like_its_videos(tmp_path: Path) -> None:
    hands = np.zeros((3, 48, 72, 3), np.uint8)
    ids = np.zeros((3, 48, 72), np.uint8)
    ids[:, :24, :36] = MaskId.MOVED_OBJECT
    regions = load_regions(tmp_path, clip_with_files(tmp_path, ids, hands), width=72, height=64, num_frames=2)
    assert regions is not None
    assert regions.object is not None
    expected = np.zeros((2, 64, 72), bool)
    expected[:, 8:32, :36] = True  # the picture lies between black bars of 8 pixels
    assert np.array_equal(regions.object, expected)


def test_a_clip_without_a_hand_video_has_no_regions(tmp_path: Path) -> None:
    assert load_regions(tmp_path, clip_with_files(tmp_path, None, None), width=72, height=48, num_frames=2) is None


def test_masks_with_too_few_frames_are_refused_with_the_file(tmp_path: Path) -> None:
    clip = clip_with_files(tmp_path, np.zeros((2, 48, 72), np.uint8), np.zeros((3, 48, 72, 3), np.uint8))
    with pytest.raises(DwmError, match=r"masks\.npz.*at least 3"):
        load_regions(tmp_path, clip, width=72, height=48, num_frames=3)
