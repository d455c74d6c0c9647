"""Clips out of source videos: by time, whatever the frame rate, rotation, pixel format, size and length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.errors import DwmError
from render.framing import FitPolicy, LengthPolicy, TooShortError
from render.resampling import chosen_fit, picture_box, plan_windows, read_sampled, read_timing
from render.video import fit_frame, write_video
from tests.helpers_fixed_camera import write_in_format
from tests.helpers_video import write_variable_rate, write_with_pyav


def grey_ramp(num_frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Frames that brighten: frame k has the grey 5 + 4 k."""
    levels = (5 + 4 * np.arange(num_frames)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def levels(frames: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 5) / 4) for frame in frames]


def test_frames_are_taken_by_time(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_ramp(48), 30.0)
    timing = read_timing(tmp_path / "a.mp4")
    assert (timing.width, timing.height, len(timing.times_s)) == (96, 64, 48)
    assert timing.fps == pytest.approx(30)
    assert not timing.is_variable
    (window,) = plan_windows(timing, 8.0, 9, LengthPolicy.DROP)
    assert window.indices.tolist() == [0, 4, 7, 11, 15, 19, 22, 26, 30]
    assert (window.frame_step, window.length_policy) == (4, None)
    assert levels(read_sampled(tmp_path / "a.mp4", window.indices, 96, 64, FitPolicy.PAD)) == window.indices.tolist()


def test_variable_frame_rates_are_noticed_and_resampled_by_time(tmp_path: Path) -> None:
    times = [0, 20, 40, 60, 400, 420, 800, 810, 1000, 1010]
    write_variable_rate(tmp_path / "a.mp4", grey_ramp(10), times)
    timing = read_timing(tmp_path / "a.mp4")
    assert timing.is_variable
    assert timing.times_s * 1000 == pytest.approx(times)
    (window,) = plan_windows(timing, 10.0, 10, LengthPolicy.DROP)
    nearest = [int(np.argmin(np.abs(np.array(times) - 100 * k))) for k in range(10)]
    assert window.indices.tolist() == nearest
    assert levels(read_sampled(tmp_path / "a.mp4", window.indices, 96, 64, FitPolicy.PAD)) == nearest


def test_one_late_frame_is_no_variable_rate(tmp_path: Path) -> None:
    times = [index * 33 + (20 if index == 40 else 0) for index in range(150)]
    write_variable_rate(tmp_path / "a.mp4", grey_ramp(1).repeat(150, axis=0), times)
    assert not read_timing(tmp_path / "a.mp4").is_variable


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (LengthPolicy.PAD_LAST, [0, 1, 2, 3, 4, 4, 4, 4, 4]),
        (LengthPolicy.STRETCH, [0, 0, 1, 1, 2, 2, 3, 3, 4]),
    ],
)
def test_short_sources_are_brought_to_length(tmp_path: Path, policy: LengthPolicy, expected: list[int]) -> None:
    write_video(tmp_path / "a.mp4", grey_ramp(5), 8.0)
    (window,) = plan_windows(read_timing(tmp_path / "a.mp4"), 8.0, 9, policy)
    assert window.indices.tolist() == expected
    assert (window.found, window.length_policy) == (5, policy)
    assert levels(read_sampled(tmp_path / "a.mp4", window.indices, 96, 64, FitPolicy.PAD)) == expected


def test_short_sources_are_dropped_when_asked(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_ramp(5), 8.0)
    with pytest.raises(TooShortError, match="gives 5 frames at 8 a second and a clip needs 9"):
        plan_windows(read_timing(tmp_path / "a.mp4"), 8.0, 9, LengthPolicy.DROP)


def test_more_windows_follow_each_other_without_overlap(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_ramp(30), 8.0)
    windows = plan_windows(read_timing(tmp_path / "a.mp4"), 8.0, 9, LengthPolicy.DROP, max_windows=9)
    assert [window.indices.tolist() for window in windows] == [list(range(k, k + 9)) for k in (0, 9, 18)]


def test_rotation_is_applied_before_fitting(tmp_path: Path) -> None:
    frames = grey_ramp(9)
    frames[:, :, :48] = (250, 20, 20)
    write_with_pyav(tmp_path / "a.mp4", frames, container_format="mp4", codec="libx264", rotation=90)
    timing = read_timing(tmp_path / "a.mp4")
    assert (timing.width, timing.height, timing.rotation_degrees) == (64, 96, 90)
    fitted = read_sampled(tmp_path / "a.mp4", np.arange(3), 64, 96, FitPolicy.PAD)
    assert fitted[0, 80, 32, 0] > 200  # the left half has become the lower one
    assert fitted[0, 10, 32, 0] < 60


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p", "yuv444p10le", "yuv422p"])
def test_other_pixel_formats_give_the_same_pictures(tmp_path: Path, pixel_format: str) -> None:
    frames = grey_ramp(9)
    frames[:, 16:48, 16:48] = (40, 160, 90)
    write_in_format(tmp_path / "a.mp4", frames, pixel_format, fps=8)
    read = read_sampled(tmp_path / "a.mp4", np.arange(9), 96, 64, FitPolicy.PAD)
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - frames).mean() < 4


def test_truncated_and_empty_files_are_errors(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_ramp(30), 8.0)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / "none.mp4").write_bytes(b"")
    with pytest.raises(DwmError, match="truncated"):
        read_timing(tmp_path / "cut.mp4")
    with pytest.raises(DwmError, match="0 bytes"):
        read_timing(tmp_path / "none.mp4")
    with pytest.raises(DwmError, match="has no frame 30"):
        read_sampled(tmp_path / "a.mp4", np.array([0, 30]), 96, 64, FitPolicy.PAD)


@pytest.mark.parametrize("fit", list(FitPolicy))
@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1080, 1920), (720, 480), (640, 480), (300, 200)])
def test_the_picture_box_is_where_the_picture_lies(width: int, height: int, fit: FitPolicy) -> None:
    white = np.full((height, width, 3), 255, np.uint8)
    fitted = fit_frame(white, 96, 64, fit)
    rows, columns = np.nonzero(fitted[..., 0] > 128)
    box = picture_box(width, height, 96, 64, fit) or (0, 0, 96, 64)
    assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    resolved = chosen_fit(width, height, 96, 64, fit)
    assert resolved is not FitPolicy.AUTO
    assert np.array_equal(fit_frame(white, 96, 64, resolved), fitted)
