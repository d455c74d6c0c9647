"""Time offsets by motion: found where it is strong, never claimed where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import DwmError
from render.alignment import MAX_OFFSET_FRAMES, estimate_hand_offset, estimate_time_offset, reduced
from render.framing import Frames
from render.video import read_video
from tests.helpers_video import REAL_TRIPLETS, hands_of_moving_box, moving_box, noise

needs_real_triplets = pytest.mark.skipif(not REAL_TRIPLETS.is_dir(), reason="the real triplets are not on this machine")
STEMS = ("00013", "00039", "00055")


@settings(max_examples=15, deadline=None)
@given(offset=st.integers(-6, 6))
def test_offset_of_a_shifted_copy_is_found(offset: int) -> None:
    video = moving_box(40, 32, 48)
    assert estimate_time_offset(video, moving_box(40, 32, 48, delay=offset)).offset_frames == offset
    assert estimate_hand_offset(video, hands_of_moving_box(40, 32, 48, delay=offset)).offset_frames == offset


def test_nothing_is_claimed_without_motion() -> None:
    still = moving_box(17, box=False)
    assert estimate_time_offset(moving_box(17), still).offset_frames is None
    assert estimate_time_offset(still, still).offset_frames is None
    assert estimate_hand_offset(moving_box(17), np.zeros_like(still)).offset_frames is None


def test_nothing_is_claimed_for_unrelated_or_steady_motion() -> None:
    assert estimate_time_offset(noise(49, 24, 32, seed=1), noise(49, 24, 32, seed=2)).offset_frames is None
    ramp = np.arange(49, dtype=np.uint8)[:, None, None, None] * np.full((1, 24, 32, 3), 3, np.uint8)
    assert estimate_time_offset(ramp, ramp[::-1]).offset_frames is None


@pytest.mark.parametrize("count", [1, 2, 5])
def test_short_videos_have_no_estimate(count: int) -> None:
    assert estimate_time_offset(moving_box(count), moving_box(count)).offset_frames is None


def test_video_without_frames_is_an_error() -> None:
    with pytest.raises(DwmError, match="without frames"):
        estimate_time_offset(moving_box(0), moving_box(3))


def _shifted(a: Frames, b: Frames, offset: int) -> tuple[Frames, Frames]:
    """Cut two aligned videos so that ``b`` is ``offset`` frames late against ``a``."""
    count = len(a) - abs(offset)
    return a[max(0, offset) :][:count], b[max(0, -offset) :][:count]


@needs_real_triplets
def test_real_triplets_are_in_time_and_their_shifted_copies_are_found() -> None:
    found, wrong, total = 0, 0, 0
    for stem in STEMS:
        interaction, static, hands = (
            reduced(read_video(REAL_TRIPLETS / folder / f"{stem}.mp4").frames)
            for folder in ("videos", "videos_static", "videos_hands")
        )
        for offset in (-5, -3, -1, 0, 2, 4):
            for estimate in (
                estimate_time_offset(*_shifted(interaction, static, offset)),
                estimate_hand_offset(*_shifted(interaction, hands, offset)),
            ):
                total += 1
                found += estimate.offset_frames == offset
                wrong += estimate.offset_frames not in (None, offset)
    assert wrong == 0
    assert found >= 0.9 * total


@needs_real_triplets
def test_videos_of_different_clips_are_never_matched() -> None:
    videos = {
        stem: [
            reduced(read_video(REAL_TRIPLETS / folder / f"{stem}.mp4").frames) for folder in ("videos", "videos_static")
        ]
        for stem in STEMS
    }
    for one in STEMS:
        for other in STEMS:
            if one != other:
                assert estimate_time_offset(videos[one][0], videos[other][1]).offset_frames is None


def test_offsets_stay_within_the_search_range() -> None:
    estimate = estimate_time_offset(moving_box(49, 32, 48), moving_box(49, 32, 48, delay=MAX_OFFSET_FRAMES + 4))
    assert estimate.offset_frames is None
