"""Cameras: projection, poses and files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from manifests.errors import DwmError
from render.arrays import read_npz, write_npz
from render.camera import Camera, CameraPath, intrinsics_from_fov, invert_pose, look_at, opengl_projection

coordinates = st.floats(-5, 5, allow_nan=False)
points = arrays(np.float64, (3,), elements=coordinates)


@st.composite
def cameras(draw: st.DrawFn) -> Camera:
    eye = draw(points)
    direction = np.array([draw(st.floats(-1, 1)), draw(st.floats(-0.9, 0.9)), draw(st.sampled_from([-1.0, 1.0]))])
    width, height = draw(st.sampled_from([(96, 64), (720, 480), (65, 33)]))
    return Camera(intrinsics_from_fov(width, height, draw(st.floats(40, 110))), look_at(eye, eye + direction))


@settings(max_examples=50, deadline=None)
@given(camera=cameras(), pixel=arrays(np.float64, (4, 2), elements=st.floats(0, 700)), depth=st.floats(0.1, 20))
def test_projecting_an_unprojected_pixel_gives_the_pixel(camera: Camera, pixel: np.ndarray, depth: float) -> None:
    pixels, depths = camera.project(camera.unproject(pixel, np.full(4, depth)))
    np.testing.assert_allclose(pixels, pixel, atol=1e-6)
    np.testing.assert_allclose(depths, depth, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(camera=cameras())
def test_poses_are_rigid_and_their_inverses_invert(camera: Camera) -> None:
    pose = camera.world_from_camera
    np.testing.assert_allclose(pose @ camera.camera_from_world, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(invert_pose(np.stack([pose, pose]))[1], np.linalg.inv(pose), atol=1e-9)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(camera=cameras(), pixel=arrays(np.float64, (2,), elements=st.floats(0, 64)), depth=st.floats(0.2, 9))
def test_opengl_matrices_draw_where_project_says(camera: Camera, pixel: np.ndarray, depth: float) -> None:
    width, height = 2 * camera.intrinsics[0, 2], 2 * camera.intrinsics[1, 2]
    point = camera.unproject(pixel, np.array(depth))
    matrix = opengl_projection(camera.intrinsics, int(width), int(height), 0.05, 20.0)
    clip = matrix @ np.linalg.inv(camera.opengl_pose) @ np.append(point, 1.0)
    drawn = np.array([(clip[0] / clip[3] + 1) / 2 * width, (1 - clip[1] / clip[3]) / 2 * height])
    np.testing.assert_allclose(drawn, pixel, atol=1e-6)


def test_paper_camera_has_focal_length_360() -> None:
    np.testing.assert_allclose(
        intrinsics_from_fov(720, 480, 90.0), [[360, 0, 360], [0, 360, 240], [0, 0, 1]], atol=1e-9
    )


def test_camera_that_looks_forward_sees_right_and_down_as_opencv_does() -> None:
    camera = Camera(intrinsics_from_fov(96, 64, 90.0), look_at([0, 1, 0], [0, 1, -1]))
    pixels, depth = camera.project([[0, 1, -2], [1, 1, -2], [0, 0, -2]])
    np.testing.assert_allclose(pixels, [[48, 32], [72, 32], [48, 56]], atol=1e-9)
    np.testing.assert_allclose(depth, 2.0)


def test_scaled_path_projects_to_scaled_pixels() -> None:
    path = CameraPath(intrinsics_from_fov(96, 64, 70.0), look_at([0, 1, 0], [0.2, 0.5, -1])[None])
    point = [0.1, 0.6, -1.2]
    np.testing.assert_allclose(path.scaled(2)[0].project(point)[0], 2 * path[0].project(point)[0])


def test_camera_file_round_trips_with_equal_bytes(tmp_path: Path) -> None:
    path = CameraPath(
        intrinsics_from_fov(96, 64, 75.0), np.stack([look_at([0, 1, i], [0, 0.5, i - 1]) for i in range(3)])
    )
    path.save(tmp_path / "a.npz")
    path.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = CameraPath.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.world_from_camera, path.world_from_camera)
    np.testing.assert_array_equal(loaded.intrinsics, path.intrinsics)
    assert len(loaded) == 3


def test_camera_file_faults_name_the_file(tmp_path: Path) -> None:
    target = tmp_path / "camera.npz"
    with pytest.raises(DwmError, match=r"camera\.npz: no such file"):
        CameraPath.load(target)
    target.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DwmError, match=r"camera\.npz: not a plain numpy archive"):
        CameraPath.load(target)
    write_npz(target, {"intrinsics": np.eye(3)})
    with pytest.raises(DwmError, match="lacks the arrays world_from_camera"):
        CameraPath.load(target)
    write_npz(target, {"intrinsics": np.eye(3), "world_from_camera": np.full((1, 4, 4), np.nan)})
    with pytest.raises(DwmError, match=r"camera\.npz: .*not finite"):
        CameraPath.load(target)


def test_truncated_archive_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "a.npz"
    write_npz(target, {"x": np.arange(1000)})
    target.write_bytes(target.read_bytes()[:-30])
    with pytest.raises(DwmError, match=r"a\.npz"):
        read_npz(target)


def test_archives_hold_no_objects(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="'x' holds Python objects"):
        write_npz(tmp_path / "a.npz", {"x": np.array([{}], dtype=object)})
    assert not list(tmp_path.iterdir())
