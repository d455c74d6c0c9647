"""Reading Aria captures: recordings, trajectories, points, calibrations, and what is wrong with them."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests.errors import DwmError
from render.camera import Camera, intrinsics_from_fov
from render.fisheye import STORED_FROM_UPRIGHT
from render.rotations import matrix_from_quaternion, quaternion_from_matrix
from sources.aria import RELEASE_FOV_DEGREES, AriaCapture, open_capture
from sources.aria_files import find_captures
from sources.aria_mps import read_online_calibration, read_points, read_trajectory, turn_to_y_up
from sources.aria_native import load_projectaria
from sources.aria_vrs import RgbRecording
from sources.synthetic.aria_results import results_folder
from sources.synthetic.aria_vrs import (
    LEFT_TRACKING_STREAM,
    StoredFrame,
    calibration_json,
    device_from_stored_camera,
    stored_camera,
    write_recording,
)
from tests.helpers_aria import (
    HAS_REAL_DATA,
    NO_REAL_DATA,
    REAL,
    START_NS,
    TinyCapture,
    stored_frames,
    stored_picture,
    tiny_capture,
    without_poses,
)

INTRINSICS = intrinsics_from_fov(72, 48, RELEASE_FOV_DEGREES)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyCapture:
    return tiny_capture(tmp_path / "raw")


# --- recordings ---------------------------------------------------------------------------------------------------


def test_recording_gives_frames_with_times_exposure_and_gain(tiny: TinyCapture) -> None:
    recording = RgbRecording(tiny.vrs)
    assert recording.timestamps_ns.tolist() == tiny.timestamps_ns.tolist()
    assert (recording.width, recording.height) == (704, 704)
    frame = recording.read(3)
    assert (frame.exposure_s, frame.gain, frame.timestamp_ns) == (pytest.approx(0.007), 5.0, START_NS + 300_000_000)
    assert np.abs(frame.image.astype(int) - stored_picture(3)).mean() < 1.5  # JPEG
    assert recording.factory is not None
    assert np.allclose(recording.factory.lens.params, stored_camera().params)
    assert np.allclose(recording.factory.device_from_camera, device_from_stored_camera())


def test_recording_prints_nothing(tiny: TinyCapture, capfd: pytest.CaptureFixture[str]) -> None:
    open_capture(tiny.files()).points  # noqa: B018
    assert capfd.readouterr() == ("", "")


def test_same_frames_give_the_same_bytes(tiny: TinyCapture, tmp_path: Path) -> None:
    write_recording(tmp_path / "again.vrs", stored_frames(tiny.timestamps_ns), 10.0)
    assert (tmp_path / "again.vrs").read_bytes() == tiny.vrs.read_bytes()


@pytest.mark.parametrize("kept", [0.99, 0.6, 0.05])
def test_truncated_recording_is_refused(tiny: TinyCapture, kept: float) -> None:
    content = tiny.vrs.read_bytes()
    tiny.vrs.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DwmError, match=r"walk\.vrs: is cut short: .*copy it again"):
        RgbRecording(tiny.vrs)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.vrs"
    path.write_bytes(b"")
    with pytest.raises(DwmError, match="is no VRS file"):
        RgbRecording(path)
    path.write_bytes(b"RIFF" * 100)
    with pytest.raises(DwmError, match="is no VRS file"):
        RgbRecording(path)
    with pytest.raises(DwmError, match="cannot be read"):
        RgbRecording(tmp_path / "none.vrs")


def test_damaged_record_is_refused(tiny: TinyCapture) -> None:
    content = bytearray(tiny.vrs.read_bytes())
    first = int.from_bytes(content[40:48], "little")
    content[first : first + 4] = (7).to_bytes(4, "little")
    tiny.vrs.write_bytes(content)
    with pytest.raises(DwmError, match=r"is damaged at byte .* a record of 7 bytes"):
        RgbRecording(tiny.vrs)


def test_recording_without_colour_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tracking_only.vrs"
    write_recording(path, [], 10.0, camera=LEFT_TRACKING_STREAM)
    with pytest.raises(DwmError, match=r"has no camera-rgb stream .streams: camera-slam-left"):
        RgbRecording(path)


def test_recording_without_frames_is_refused(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.vrs", [], 10.0)
    with pytest.raises(DwmError, match="stream has no frame"):
        RgbRecording(tmp_path / "a.vrs")


def test_times_that_stand_still_are_refused(tmp_path: Path) -> None:
    frames = [StoredFrame(stored_picture(0), time, 0.004, 2.0) for time in (10**9, 2 * 10**9, 2 * 10**9)]
    write_recording(tmp_path / "a.vrs", frames, 10.0)
    with pytest.raises(DwmError, match="time of colour frame 2 is not after"):
        RgbRecording(tmp_path / "a.vrs")


def test_picture_that_does_not_decode_is_refused(tiny: TinyCapture) -> None:
    content = tiny.vrs.read_bytes()
    marker = content.rindex(b"\xff\xd8\xff")
    tiny.vrs.write_bytes(content[:marker] + b"\0\0\0" + content[marker + 3 :])
    recording = RgbRecording(tiny.vrs)
    with pytest.raises(DwmError, match="colour frame 4 cannot be decoded"):
        recording.read(4)


def test_missing_package_says_what_to_install(tiny: TinyCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "projectaria_tools", None)
    monkeypatch.delitem(sys.modules, "projectaria_tools.core.data_provider", raising=False)
    monkeypatch.delitem(sys.modules, "projectaria_tools.core", raising=False)
    with pytest.raises(DwmError, match="pip install --no-deps projectaria-tools"):
        RgbRecording(tiny.vrs)


# --- trajectories -------------------------------------------------------------------------------------------------


def test_poses_of_the_upright_camera(tiny: TinyCapture) -> None:
    capture = open_capture(tiny.files())
    poses = capture.poses(np.arange(5))
    assert np.abs(poses - tiny.poses).max() < 1e-6
    assert (poses[:, 1, 1] < -0.9).all()  # the image's down is the world's down: y is up


def test_poses_between_those_of_the_trajectory_are_interpolated(tiny: TinyCapture) -> None:
    path = tiny.slam / "closed_loop_trajectory.csv"
    mps, sophus = load_projectaria("mps"), load_projectaria("sophus")
    first, second = mps.read_closed_loop_trajectory(str(path))[:2]
    trajectory = read_trajectory(path)
    middle_ns = int((trajectory.timestamps_ns[0] + trajectory.timestamps_ns[1]) // 2)
    expected = sophus.interpolate(first.transform_world_device, second.transform_world_device, 0.5).to_matrix()
    expected[:3] = trajectory.world_from_file @ expected[:3]
    assert np.abs(trajectory.poses(np.array([middle_ns]))[0] - expected).max() < 1e-5
    moved = trajectory.poses(np.array([START_NS, START_NS + 25_000_000, START_NS + 50_000_000]))[:, :3, 3]
    assert np.allclose(moved[1], (moved[0] + moved[2]) / 2, atol=1e-5)
    assert np.linalg.norm(moved[2] - moved[0]) > 0.04


def test_world_is_turned_to_y_up_by_the_gravity_of_the_file() -> None:
    assert np.allclose(turn_to_y_up([0.0, 0.0, -9.81]) @ [1.0, 2.0, 3.0], [1.0, 3.0, -2.0])
    assert np.allclose(turn_to_y_up([0.0, -9.81, 0.0]), np.eye(3))
    assert np.allclose(turn_to_y_up([0.0, 9.81, 0.0]) @ [0.0, -1.0, 0.0], [0.0, 1.0, 0.0])
    slanted = turn_to_y_up([3.0, -4.0, 5.0])
    assert np.allclose(slanted @ [-3.0, 4.0, -5.0] / np.sqrt(50), [0.0, 1.0, 0.0])
    assert np.allclose(slanted @ slanted.T, np.eye(3))


def test_gap_of_the_trajectory_is_named(tiny: TinyCapture) -> None:
    without_poses(tiny.slam / "closed_loop_trajectory.csv", START_NS + 150_000_000, START_NS + 320_000_000)
    capture = open_capture(tiny.files())
    assert capture.has_pose.tolist() == [True, True, False, False, True]
    assert len(capture.poses(np.array([0, 1, 4]))) == 3
    with pytest.raises(DwmError, match=r"no pose within 0\.02 s of colour frame 2 \(0\.20 s into .*, and 1 more"):
        capture.poses(np.arange(5))
    assert open_capture(tiny.files(), pose_tolerance_s=0.2).has_pose.all()


def test_clocks_that_do_not_overlap_are_named(tiny: TinyCapture) -> None:
    write_recording(tiny.vrs, stored_frames(tiny.timestamps_ns + 60 * 10**9), 10.0)
    with pytest.raises(DwmError, match=r"goes from 4\.98 s to 5\.4. s .* from 65\.00 s to 65\.40 s: no colour frame"):
        open_capture(tiny.files())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no closed-loop trajectory"),
        ("a,b\n1,2\n", 'is no closed-loop trajectory .*Missing column "graph_uid"'),
        ("HEADER\n", "holds 0 poses"),
        ("HEADER\ng,1,-1,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,-9.81,1\n", "holds 1 poses"),
        ("HEADER\n" + 2 * "g,1,-1,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,-9.81,1\n", "time of pose 1 is not after"),
        (
            "HEADER\ng,1,-1,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,1\ng,2,-1,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,1\n",
            "nobody knows where up is",
        ),
    ],
)
def test_broken_trajectory_is_refused(tiny: TinyCapture, content: str, message: str) -> None:
    path = tiny.slam / "closed_loop_trajectory.csv"
    header = path.read_text().splitlines()[0]
    path.write_text(content.replace("HEADER", header))
    with pytest.raises(DwmError, match=message):
        read_trajectory(path)


def test_capture_without_trajectory_says_where_to_get_one(tiny: TinyCapture) -> None:
    (tiny.slam / "closed_loop_trajectory.csv").unlink()
    with pytest.raises(DwmError, match=r"has no closed_loop_trajectory\.csv; let Aria's Machine Perception Services"):
        open_capture(tiny.files())


def test_quaternions_are_turned_into_matrices_and_back() -> None:
    random = np.random.default_rng(1)
    quaternions = random.normal(size=(20, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    quaternions *= np.sign(quaternions[:, :1])
    assert np.allclose(quaternion_from_matrix(matrix_from_quaternion(quaternions)), quaternions)


# --- points -------------------------------------------------------------------------------------------------------


def test_unsure_points_are_left_out_and_the_rest_turned_to_y_up(tiny: TinyCapture) -> None:
    points = open_capture(tiny.files()).points
    assert points.found == 200
    assert 130 < len(points.positions) < 190
    nearest = np.linalg.norm(points.positions[:, None] - tiny.points[None], axis=-1).min(axis=1)
    assert nearest.max() < 0.005


def test_empty_points_file_is_refused(tiny: TinyCapture) -> None:
    path = tiny.slam / "semidense_points.csv.gz"
    header = gzip.decompress(path.read_bytes()).splitlines()[0]
    path.write_bytes(gzip.compress(header + b"\n"))
    with pytest.raises(DwmError, match=r"semidense_points\.csv\.gz: holds no semi-dense point"):
        read_points(path, np.eye(3))
    path.write_bytes(gzip.compress(header + b"\n1,g,0,0,0,0.5,0.5\n"))
    with pytest.raises(DwmError, match="none of 1 points is sure enough"):
        read_points(path, np.eye(3))
    path.unlink()
    with pytest.raises(DwmError, match=r"has no semidense_points\.csv\.gz"):
        open_capture(tiny.files()).points  # noqa: B018


# --- calibrations -------------------------------------------------------------------------------------------------


def test_online_calibration_comes_before_that_of_the_factory(tiny: TinyCapture) -> None:
    path = tiny.slam / "online_calibration.jsonl"
    lines = path.read_text().splitlines()
    later = json.loads(lines[0])
    later["tracking_timestamp_us"] = (START_NS + 400_000_000) // 1000
    later["CameraCalibrations"][0]["Projection"]["Params"][0] += 8.0
    path.write_text("\n".join([lines[0], json.dumps(later)]) + "\n")
    capture = open_capture(tiny.files())
    assert capture.calibration_source == "online"
    focal = [capture.calibration(frame).lens.focal_px for frame in range(5)]
    assert focal[0] == pytest.approx(stored_camera().focal_px)
    assert focal[4] == pytest.approx(stored_camera().focal_px + 2.0)
    path.unlink()
    factory = open_capture(tiny.files())
    assert factory.calibration_source == "factory"
    assert factory.calibration(4).lens.focal_px == pytest.approx(stored_camera().focal_px)


def test_capture_without_any_calibration_is_refused(tiny: TinyCapture) -> None:
    frames = stored_frames(tiny.timestamps_ns)
    write_recording(tiny.vrs, frames, 10.0, calibration=calibration_json(with_camera=False))
    assert open_capture(tiny.files()).calibration_source == "online"
    (tiny.slam / "online_calibration.jsonl").unlink()
    with pytest.raises(DwmError, match="carries no calibration of the colour camera"):
        open_capture(tiny.files())


def test_broken_online_calibration_is_refused(tiny: TinyCapture) -> None:
    path = tiny.slam / "online_calibration.jsonl"
    path.write_text("nothing\n")
    with pytest.raises(DwmError, match=r"online_calibration\.jsonl: cannot be read"):
        open_capture(tiny.files())
    record = {"utc_timestamp_ns": -1, "tracking_timestamp_us": 1, "ImuCalibrations": []}
    path.write_text(json.dumps({**record, **calibration_json(with_camera=False)}) + "\n")
    with pytest.raises(DwmError, match="has no calibration of camera-rgb"):
        open_capture(tiny.files())


# --- views --------------------------------------------------------------------------------------------------------


def test_views_are_upright_and_carry_their_cameras(tiny: TinyCapture) -> None:
    capture = open_capture(tiny.files())
    clip = capture.read_clip(np.array([0, 4]), INTRINSICS, 72, 48)
    assert clip.frames.shape == (2, 48, 72, 3)
    # Stored images grow redder to their right and greener downwards: upright, redder downwards, greener to the left.
    red, green = clip.frames[0, ..., 0].astype(float), clip.frames[0, ..., 1].astype(float)
    assert red[40, 36] > red[8, 36] + 30
    assert green[24, 10] > green[24, 60] + 30
    assert clip.gain.tolist() == [2.0, 6.0]
    pixels, depth = clip.cameras[0].project([0.0, 1.0, 0.0])
    assert np.abs(pixels - [36, 24]).max() < 0.01  # the camera looks at this point
    assert depth == pytest.approx(np.linalg.norm([0.0, 0.5, 2.0]), abs=1e-4)


def test_points_reproject_as_projectaria_alone_projects_them(tiny: TinyCapture) -> None:
    """The whole chain (poses, turns, lens, half pixels) against projectaria-tools on the plain files."""
    capture = open_capture(tiny.files())
    mps = load_projectaria("mps")
    poses = mps.read_closed_loop_trajectory(str(tiny.slam / "closed_loop_trajectory.csv"))
    pose = next(each for each in poses if each.tracking_timestamp.total_seconds() == pytest.approx(5.2, abs=1e-7))
    points = mps.read_global_point_cloud(str(tiny.slam / "semidense_points.csv.gz"))
    camera = mps.read_online_calibration(str(tiny.slam / "online_calibration.jsonl"))[0].get_camera_calib("camera-rgb")
    camera = camera.rescale(np.array([704, 704], np.int32), 0.25, np.array([32.0, 32.0]))
    camera_from_world = (pose.transform_world_device @ camera.get_transform_device_camera()).inverse()
    sure = [each for each in points if each.inverse_distance_std < 0.001 and each.distance_std < 0.05]
    expected = [camera.project((camera_from_world @ each.position_world).reshape(3)) for each in sure]

    view = capture.read(2, INTRINSICS, 72, 48)
    pixels, depth = view.camera.project(capture.points.positions)
    upright = np.column_stack([(pixels - [36, 24]) / INTRINSICS[0, 0], np.ones(len(pixels))])
    stored, seen = capture.calibration(2).lens.project(upright @ STORED_FROM_UPRIGHT.T)
    seen &= depth > 0
    assert seen.sum() > 50
    assert seen.tolist() == [each is not None for each in expected]
    there = np.array([each for each in expected if each is not None])
    assert np.abs(stored[seen] - there).max() < 0.01


# --- folders ------------------------------------------------------------------------------------------------------


def test_captures_are_found_with_their_own_results(tmp_path: Path) -> None:
    for name in ("b", "a"):
        tiny_capture(tmp_path / "raw" / "day", name=name, frames=2)
    (tmp_path / "raw" / "day" / "a.phases.json").write_text('{"explore_frames": 1}')
    (tmp_path / "raw" / "day" / "phases.json").write_text('{"explore_frames": 1}')
    first, second = find_captures(tmp_path / "raw")
    assert [first.capture_id, second.capture_id] == ["day/a", "day/b"]
    assert first.trajectory == results_folder(first.vrs) / "closed_loop_trajectory.csv"
    assert second.trajectory == results_folder(second.vrs) / "closed_loop_trajectory.csv"
    assert first.phases == first.vrs.with_name("a.phases.json")
    assert second.phases is None  # whose would it be?
    assert find_captures(first.vrs) == (replace(first, capture_id="a"),)
    assert set(first.inputs()) == {"vrs", "trajectory", "points", "online_calibration", "phases"}


@pytest.mark.parametrize("folder", ["mps/slam", "slam", "trajectory", "."])
def test_other_layouts_of_results_are_known(tmp_path: Path, folder: str) -> None:
    tiny = tiny_capture(tmp_path, frames=2)
    target = tmp_path / folder
    target.mkdir(parents=True, exist_ok=True)
    for path in list(tiny.slam.iterdir()):
        path.rename(target / path.name)
    tiny.slam.rmdir()
    tiny.slam.parent.rmdir()
    files = tiny.files()
    assert files.trajectory == target / "closed_loop_trajectory.csv"
    assert files.online_calibration == target / "online_calibration.jsonl"


def test_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="holds no recording"):
        find_captures(tmp_path)
    with pytest.raises(DwmError, match="no such folder"):
        find_captures(tmp_path / "none")


# --- real recordings ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_REAL_DATA, reason=NO_REAL_DATA)
def test_real_recordings_open() -> None:
    recording = RgbRecording(REAL / "aea" / "recording.vrs")
    assert len(recording) == 8
    assert recording.width == 1408
    assert recording.factory is not None
    assert recording.factory.lens.focal_px == pytest.approx(607.013, abs=1e-3)
    assert recording.read(7).exposure_s == pytest.approx(0.004988)


@pytest.mark.skipif(not HAS_REAL_DATA, reason=NO_REAL_DATA)
def test_real_results_of_the_services_are_read() -> None:
    folder = REAL / "mps_sample"
    trajectory = read_trajectory(folder / "closed_loop_trajectory.csv")
    points = read_points(folder / "global_points.csv.gz", trajectory.world_from_file)
    online = read_online_calibration(folder / "online_calibration.jsonl", 1408, 1408)
    assert len(trajectory.timestamps_ns) == 11517
    assert (points.found, len(points.positions)) == (99472, 22081)
    assert len(online.calibrations) == 122
    assert online.calibrations[0].lens.focal_px == pytest.approx(1220.01943882 / 2)
    moved = np.linalg.norm(np.diff(trajectory.positions, axis=0), axis=1).sum()
    assert moved == pytest.approx(7.67, abs=0.05)  # its summary.json says 7.67m


def epipolar_residuals(capture: AriaCapture, first: int, second: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Distances [n] of matched features from the epipolar lines that the poses give, pixels at 720x480."""
    intrinsics = intrinsics_from_fov(720, 480, RELEASE_FOV_DEGREES)
    clip = capture.read_clip(np.array([first, second]), intrinsics, 720, 480)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames]
    detector = cv2.SIFT_create(2000)
    points, descriptors = zip(*(detector.detectAndCompute(image, None) for image in grey), strict=True)
    pairs = cv2.BFMatcher().knnMatch(descriptors[0], descriptors[1], k=2)
    good = [best for best, other in pairs if best.distance < 0.7 * other.distance]
    here = np.array([points[0][match.queryIdx].pt for match in good]) + 0.5
    there = np.array([points[1][match.trainIdx].pt for match in good]) + 0.5
    return _line_distances(clip.cameras[0], clip.cameras[1], here, there)


def _line_distances(
    first: Camera,
    second: Camera,
    here: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    there: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    relative = second.camera_from_world @ first.world_from_camera
    x, y, z = relative[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    inverse = np.linalg.inv(first.intrinsics)
    fundamental = inverse.T @ cross @ relative[:3, :3] @ inverse
    lines = np.column_stack([here, np.ones(len(here))]) @ fundamental.T
    away = (lines * np.column_stack([there, np.ones(len(there))])).sum(axis=1)
    return np.asarray(np.abs(away) / np.linalg.norm(lines[:, :2], axis=1))


@pytest.mark.skipif(not HAS_REAL_DATA, reason=NO_REAL_DATA)
def test_real_poses_agree_with_the_pictures() -> None:
    files = next(each for each in find_captures(REAL) if each.capture_id == "adt/video")
    capture = open_capture(files)
    residuals = epipolar_residuals(capture, 0, 2)
    assert len(residuals) > 200
    assert np.median(residuals) < 0.6
    assert np.percentile(residuals, 90) < 1.5
    late = replace(capture.trajectory, timestamps_ns=capture.trajectory.timestamps_ns - 100_000_000)
    wrong = AriaCapture(files, capture.recording, late, None, pose_tolerance_s=1.0)
    assert np.median(epipolar_residuals(wrong, 0, 2)) > 3 * np.median(residuals)
