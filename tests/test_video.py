"""Video files: exact counts, faithful colours, same bytes, and clear errors for what is no whole video."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import DwmError
from render.video import (
    FitPolicy,
    LengthPolicy,
    TooShortError,
    fit_frames,
    fit_length,
    iter_frames,
    probe,
    read_clip_video,
    read_video,
    resample_indices,
    write_video,
)
from tests.helpers_video import (
    REAL_FIXED_CAMERA,
    REAL_TRIPLETS,
    colour_patches,
    noise,
    write_audio_only,
    write_variable_rate,
    write_with_pyav,
)

needs_real_triplets = pytest.mark.skipif(not REAL_TRIPLETS.is_dir(), reason="the real triplets are not on this machine")


def test_counts_size_and_rate_survive_a_round_trip(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", colour_patches(17, 64, 96), 8)
    info = probe(tmp_path / "a.mp4")
    assert (info.num_frames, info.width, info.height, info.fps) == (17, 96, 64, 8.0)
    assert (info.codec, info.pixel_format) == ("h264", "yuv420p")
    video = read_video(tmp_path / "a.mp4")
    assert video.frames.shape == (17, 64, 96, 3)
    np.testing.assert_allclose(video.timestamps_s, np.arange(17) / 8, atol=1e-6)


def test_broadcast_frame_rate_is_kept_exactly(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", colour_patches(5), 30000 / 1001)
    assert probe(tmp_path / "a.mp4").fps == pytest.approx(30000 / 1001, abs=1e-9)


def test_lossless_video_keeps_every_bit_and_odd_sizes(tmp_path: Path) -> None:
    frames = noise(5, 33, 47)
    write_video(tmp_path / "a.mp4", frames, 8, lossless=True)
    np.testing.assert_array_equal(read_video(tmp_path / "a.mp4").frames, frames)


@pytest.mark.parametrize("reader", ["pyav", "opencv"])
def test_colours_are_not_shifted(tmp_path: Path, reader: str) -> None:
    frames = colour_patches(4)
    path = tmp_path / "a.mp4"
    write_video(path, frames, 8, crf=1)
    if reader == "pyav":
        read = read_video(path).frames
    else:
        capture = cv2.VideoCapture(str(path))
        read = np.stack([np.asarray(capture.read()[1])[..., ::-1] for _ in frames])
    error = read[:, 8::16, 8::16].astype(int) - frames[:, 8::16, 8::16]  # centres of the patches
    assert np.abs(error).max() <= 4
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 1.6  # swscale rounds down when it reads


@pytest.mark.parametrize("level", [0, 128, 255])
def test_grey_levels_come_back_exactly(tmp_path: Path, level: int) -> None:
    write_video(tmp_path / "a.mp4", np.full((3, 32, 48, 3), level, np.uint8), 8)
    assert np.unique(read_video(tmp_path / "a.mp4").frames).tolist() == [level]


def test_declared_colour_matrix_is_obeyed(tmp_path: Path) -> None:
    """A pure red that was encoded with BT.709 and says so is still pure red."""
    import av
    from av.video.reformatter import ColorRange, Colorspace

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.colorspace = Colorspace.ITU709
        picture = np.full((48, 32), 102, np.uint8)  # BT.709 red: Y 63, U 102, V 240
        picture[:32], picture[40:] = 63, 240
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    np.testing.assert_allclose(read_video(path).frames[0, 16, 16], (255, 0, 0), atol=4)


@pytest.mark.parametrize("lossless", [False, True])
def test_same_frames_give_the_same_bytes(tmp_path: Path, lossless: bool) -> None:
    frames = noise(9, 256, 64)
    write_video(tmp_path / "a.mp4", frames, 8, lossless=lossless)
    write_video(tmp_path / "b.mp4", iter(frames), 8, lossless=lossless)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data == (tmp_path / "b.mp4").read_bytes()
    assert b" threads=1 " in data  # x264 notes its settings; more threads would tie the bytes to the machine


def test_index_comes_first_so_that_browsers_start_at_once(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", colour_patches(5), 8)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(
    ("name", "container_format", "codec"),
    [
        ("b_frames.mp4", "mp4", "libx264"),
        ("a.mov", "mov", "mpeg4"),
        ("a.mkv", "matroska", "libx264"),
        ("a.webm", "webm", "libvpx-vp9"),
        ("a.avi", "avi", "mpeg4"),
        ("a.ts", "mpegts", "libx264"),
    ],
)
def test_files_of_other_tools_are_counted_exactly(tmp_path: Path, name: str, container_format: str, codec: str) -> None:
    write_with_pyav(tmp_path / name, colour_patches(17), container_format=container_format, codec=codec)
    assert probe(tmp_path / name).num_frames == 17
    assert sum(1 for _ in iter_frames(tmp_path / name)) == 17


def test_opencv_motion_jpeg_is_read(tmp_path: Path) -> None:
    frames = colour_patches(7)
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 8, (96, 64))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    video = read_video(path)
    assert video.frames.shape == frames.shape
    assert np.abs(video.frames[:, 8::16, 8::16].astype(int) - frames[:, 8::16, 8::16]).mean() < 4


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_stored_rotation_is_applied(tmp_path: Path, rotation: int) -> None:
    frames = colour_patches(3, 32, 64)
    write_with_pyav(tmp_path / "a.mp4", frames, container_format="mp4", codec="libx264", rotation=rotation)
    expected = np.rot90(frames, rotation // 90, axes=(1, 2))  # PyAV: degrees counter-clockwise for display
    video = read_video(tmp_path / "a.mp4")
    info = probe(tmp_path / "a.mp4")
    assert video.frames.shape == expected.shape
    assert (info.height, info.width) == expected.shape[1:3]
    assert np.abs(video.frames[:, 8::16, 8::16].astype(int) - expected[:, 8::16, 8::16]).mean() < 12


@pytest.mark.parametrize("container_format", ["mp4", "matroska", "avi"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_file_is_an_error_and_never_a_shorter_clip(
    tmp_path: Path, container_format: str, part: float
) -> None:
    whole, cut = tmp_path / "whole.bin", tmp_path / "cut.bin"
    codec = "mpeg4" if container_format == "avi" else "libx264"
    write_with_pyav(whole, noise(17, 64, 96), container_format=container_format, codec=codec)
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * part)])
    with pytest.raises(DwmError, match=r"cut\.bin"):
        probe(cut)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.99])
def test_truncated_file_with_its_index_first_is_refused_even_for_its_first_frames(tmp_path: Path, part: float) -> None:
    write_video(tmp_path / "a.mp4", noise(17, 64, 96), 8)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DwmError, match=r"a\.mp4: truncated"):
        read_clip_video(tmp_path / "a.mp4", width=96, height=64, num_frames=2)


def test_damaged_bytes_inside_are_found(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", noise(9, 64, 96), 8)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    (tmp_path / "a.mp4").write_bytes(data)
    for _ in range(5):  # every time, not only when decoder threads happen to meet
        with pytest.raises(DwmError, match=r"a\.mp4: damaged"):
            read_video(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.mp4", b"", r"empty \(0 bytes\)"),
        ("text.mp4", b"this is no video\n" * 50, "not a video"),
        ("playlist.m3u8", b"#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n", "not a video"),
        ("prompt.txt", b"I push the box.\n" * 20, "not a video"),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DwmError, match=message) as caught:
        probe(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(DwmError, match="no such file"):
            probe(path)


def test_audio_only_and_pictures_are_no_videos(tmp_path: Path) -> None:
    write_audio_only(tmp_path / "sound.mp4")
    with pytest.raises(DwmError, match=r"no video stream \(only audio\)"):
        probe(tmp_path / "sound.mp4")
    cv2.imwrite(str(tmp_path / "picture.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DwmError, match="not a video"):
        probe(tmp_path / "picture.png")


def test_file_without_frames_is_an_error(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.open()
        container.start_encoding()
    with pytest.raises(DwmError, match=r"a\.mkv"):
        probe(tmp_path / "a.mkv")


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((0, 32, 32, 3), np.uint8), 8.0, "no frames"),
        (np.zeros((2, 31, 32, 3), np.uint8), 8.0, "32x31 has an odd side"),
        (np.zeros((2, 32, 32, 3), np.float32), 8.0, "float32"),
        (np.zeros((2, 32, 32), np.uint8), 8.0, r"\[H, W, 3\]"),
        (np.zeros((2, 32, 32, 3), np.uint8), 0.0, "0.0 frames a second"),
    ],
)
def test_unwritable_frames_are_refused(tmp_path: Path, frames: np.ndarray, fps: float, message: str) -> None:
    with pytest.raises(DwmError, match=message):
        write_video(tmp_path / "a.mp4", frames, fps)
    assert list(tmp_path.iterdir()) == []


def test_frames_that_change_size_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="frame 1 is"):
        write_video(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8), np.zeros((32, 34, 3), np.uint8)], 8)
    assert list(tmp_path.iterdir()) == []


def test_read_only_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DwmError, match="could not be written"):
        write_video(tmp_path / "file" / "a.mp4", colour_patches(2), 8)


def test_clip_loader_takes_the_first_frames_and_pads(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.full((9, 40, 60, 3), 200, np.uint8), 8)
    clip = read_clip_video(tmp_path / "a.mp4", width=96, height=40, num_frames=5)
    assert clip.shape == (5, 40, 96, 3)
    assert clip[:, :, :18].max() == 0
    assert clip[:, :, 18:78].min() >= 198
    with pytest.raises(TooShortError, match=r"a\.mp4: has 9 frames and 17 are needed"):
        read_clip_video(tmp_path / "a.mp4", width=96, height=40, num_frames=17)


@needs_real_triplets
def test_real_triplets_are_counted_and_compared_as_published() -> None:
    """49 frames of 720x480 at 8 fps; PSNR of static against interaction is a published figure."""
    path = REAL_TRIPLETS / "videos" / "00055.mp4"
    info = probe(path)
    assert (info.num_frames, info.width, info.height, info.fps) == (49, 720, 480, 8.0)
    interaction = read_video(path).frames
    static = read_video(REAL_TRIPLETS / "videos_static" / "00055.mp4").frames
    mean_square = np.mean([np.mean((a.astype(np.float64) - b) ** 2) for a, b in zip(interaction, static, strict=True)])
    assert 10 * np.log10(255**2 / mean_square) == pytest.approx(22.3997, abs=1e-3)


@pytest.mark.skipif(not REAL_FIXED_CAMERA.is_file(), reason="the real fixed-camera video is not on this machine")
def test_real_fixed_camera_video_resamples_to_51_frames() -> None:
    first = read_video(REAL_FIXED_CAMERA, max_frames=2)
    assert first.frames.shape == (2, 1080, 1920, 3)
    info = probe(REAL_FIXED_CAMERA)
    assert (info.num_frames, round(info.fps, 2)) == (190, 29.97)
    indices = resample_indices(np.arange(190) / info.fps, 8)
    assert len(indices) == 51  # 190 / 29.97 = 6.34 s
    assert indices[:4].tolist() == [0, 4, 7, 11]


def test_variable_frame_rate_is_resampled_by_time(tmp_path: Path) -> None:
    times_ms = [0, 100, 110, 120, 500, 520, 900, 1000]
    frames = np.stack([np.full((32, 32, 3), 30 * index, np.uint8) for index in range(8)])
    write_variable_rate(tmp_path / "a.mp4", frames, times_ms)
    video = read_video(tmp_path / "a.mp4")
    np.testing.assert_allclose(video.timestamps_s, np.array(times_ms) / 1000, atol=1e-3)
    indices = resample_indices(video.timestamps_s, 5)  # 0, 0.2, 0.4, 0.6, 0.8, 1.0 s
    assert indices.tolist() == [0, 3, 4, 5, 6, 7]
    assert np.abs(video.frames[:, 16, 16, 0].astype(int) - 30 * np.arange(8)).max() <= 2


def test_six_seconds_give_48_frames_at_8_fps() -> None:
    assert len(resample_indices(np.arange(180) / 30, 8)) == 48
    assert resample_indices(np.arange(49) / 10, 10).tolist() == list(range(49))
    assert resample_indices(np.array([0.0]), 8).tolist() == [0]


@pytest.mark.parametrize("times", [[], [0.0, 0.2, 0.1], [0.0, float("nan")]])
def test_impossible_frame_times_are_refused(times: list[float]) -> None:
    with pytest.raises(DwmError, match="frame times"):
        resample_indices(np.array(times), 8)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.floats(0.001, 0.5), min_size=1, max_size=40),
    target_fps=st.floats(1, 60),
)
def test_every_resampled_frame_is_the_nearest(steps: list[float], target_fps: float) -> None:
    times = np.cumsum([0.0, *steps])
    indices = resample_indices(times, target_fps)
    targets = np.arange(len(indices)) / target_fps
    distances = np.abs(times[None] - targets[:, None])
    np.testing.assert_allclose(distances[np.arange(len(indices)), indices], distances.min(axis=1), atol=1e-6)
    assert (np.diff(indices) >= 0).all()


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 60), fps=st.sampled_from([8.0, 10.0, 24.0, 29.97, 30.0, 60.0]))
def test_resampling_to_its_own_rate_changes_nothing(count: int, fps: float) -> None:
    assert resample_indices(np.arange(count) / fps, fps)[:count].tolist() == list(range(count))


@settings(max_examples=60, deadline=None)
@given(
    source=st.tuples(st.integers(2, 60), st.integers(2, 60)),
    target=st.tuples(st.integers(2, 60), st.integers(2, 60)),
    policy=st.sampled_from(list(FitPolicy)),
)
def test_fitting_gives_the_size_and_keeps_a_flat_colour(
    source: tuple[int, int], target: tuple[int, int], policy: FitPolicy
) -> None:
    frames = np.full((2, *source, 3), 77, np.uint8)
    fitted = fit_frames(frames, target[1], target[0], policy)
    assert fitted.shape == (2, *target, 3)
    allowed = {77} if policy in (FitPolicy.CROP, FitPolicy.STRETCH) else {0, 77}
    assert set(np.unique(fitted).tolist()) <= allowed
    assert 77 in fitted


def test_padding_is_centred_and_cropping_keeps_the_middle() -> None:
    frames = np.zeros((1, 20, 40, 3), np.uint8)
    frames[:, :, :20] = 255
    padded = fit_frames(frames, 40, 40, FitPolicy.PAD)
    assert padded[0, :10].max() == padded[0, 30:].max() == 0
    assert padded[0, 10:30, :20].min() == 255
    cropped = fit_frames(frames, 20, 20, FitPolicy.CROP)
    assert cropped[0, :, :10].min() == 255
    assert cropped[0, :, 10:].max() == 0


def test_auto_crops_small_differences_and_pads_large_ones() -> None:
    frames = np.full((1, 100, 160, 3), 9, np.uint8)
    assert fit_frames(frames, 150, 100, FitPolicy.AUTO).min() == 9
    assert fit_frames(frames, 100, 100, FitPolicy.AUTO).min() == 0


def test_shrinking_averages_areas() -> None:
    """One white column of four gives a quarter of white; sampling would give black or half."""
    stripes = (np.arange(40) % 4 == 0)[None, :].repeat(40, axis=0) * 200
    frames = np.repeat(stripes[None, :, :, None], 3, axis=3).astype(np.uint8)
    assert np.unique(fit_frames(frames, 10, 10, FitPolicy.STRETCH)).tolist() == [50]


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 60), wanted=st.integers(1, 60), policy=st.sampled_from(list(LengthPolicy)))
def test_length_policies(count: int, wanted: int, policy: LengthPolicy) -> None:
    frames = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    if policy is LengthPolicy.DROP and count < wanted:
        with pytest.raises(TooShortError, match=f"{count} frames and the clip needs {wanted}"):
            fit_length(frames, wanted, policy)
        return
    order = fit_length(frames, wanted, policy)[:, 0, 0, 0].tolist()
    assert len(order) == wanted
    if count >= wanted:
        assert order == list(range(wanted))
    elif policy is LengthPolicy.PAD_LAST:
        assert order == [*range(count), *[count - 1] * (wanted - count)]
    else:
        assert sorted(set(order)) == list(range(count))
        assert order == sorted(order)
