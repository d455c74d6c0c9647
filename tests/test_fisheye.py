"""The lens model against projectaria-tools, and straight pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from manifests.errors import DwmError
from render.fisheye import STORED_FROM_UPRIGHT, FisheyeCamera, PinholeView
from sources.aria_native import load_projectaria, native_output
from sources.synthetic.aria_vrs import NATIVE_PARAMS, NATIVE_SIZE, SIZE, stored_camera
from tests.helpers_aria import stored_picture

calibration = load_projectaria("calibration")
RADIUS_PX = 353.75
INTRINSICS = np.array([[300.0, 0.0, 160.0], [0.0, 300.0, 120.0], [0.0, 0.0, 1.0]])


def reference(params: tuple[float, ...] = NATIVE_PARAMS, size: int = NATIVE_SIZE, radius: float = 1415.0) -> Any:
    """The same lens in projectaria-tools."""
    pose = load_projectaria("sophus").SE3()
    return calibration.CameraCalibration(
        "camera-rgb", calibration.FISHEYE624, np.array(params), pose, size, size, radius, 1.0, "serial"
    )


def rays(count: int = 500) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    slopes = np.random.default_rng(0).uniform(-1.2, 1.2, (count, 2))
    return np.column_stack([slopes, np.ones(count)])


def test_projects_and_unprojects_as_projectaria_does() -> None:
    camera = FisheyeCamera(np.array(NATIVE_PARAMS), NATIVE_SIZE, NATIVE_SIZE, 1415.0)
    theirs = reference()
    pixels, seen = camera.project(rays())
    expected = np.array([theirs.project_no_checks(ray) for ray in rays()])
    assert np.abs(pixels - expected).max() < 1e-9
    assert seen.tolist() == [theirs.project(ray) is not None for ray in rays()]
    assert 0.3 < seen.mean() < 1.0
    assert np.abs(camera.unproject(pixels[seen]) - rays()[seen]).max() < 1e-9
    assert not camera.project(np.array([[0.1, 0.0, -1.0]]))[1].any()


def test_scales_as_projectaria_does() -> None:
    camera = FisheyeCamera(np.array(NATIVE_PARAMS), NATIVE_SIZE, NATIVE_SIZE, 1415.0)
    theirs = reference().rescale(np.array([720, 720], np.int32), 0.25)
    scaled = camera.scaled(720, 720)
    assert np.abs(scaled.params - theirs.get_projection_params()).max() < 1e-9
    assert scaled.valid_radius == pytest.approx(theirs.get_valid_radius())


def test_stored_size_is_what_the_recording_reader_makes_of_the_native_calibration() -> None:
    theirs = reference().rescale(np.array([SIZE, SIZE], np.int32), 0.25, np.array([32.0, 32.0]))
    assert np.abs(stored_camera().params - theirs.get_projection_params()).max() < 1e-9


def test_straight_picture_is_projectarias_up_to_smoothing() -> None:
    camera = FisheyeCamera(stored_camera().params, SIZE, SIZE, RADIUS_PX)
    intrinsics = np.array([[304.75, 0.0, 160.0], [0.0, 304.75, 120.0], [0.0, 0.0, 1.0]])  # one sample a pixel
    view = PinholeView(camera, intrinsics, 320, 240, upright=False)
    assert view.oversampling == 1
    linear = calibration.get_linear_camera_calibration(320, 240, 304.75)
    fisheye = reference(tuple(stored_camera().params), SIZE, RADIUS_PX)
    columns, rows = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    waves = np.stack([np.sin(columns / 6), np.sin(rows / 6), np.sin((rows + columns) / 6)], axis=-1)
    waves = np.rint(127 + 100 * waves).astype(np.uint8)
    with native_output():
        expected = calibration.distort_by_calibration(waves, linear, fisheye)
    straight = view.undistort(waves)
    assert view.valid.all()
    assert np.abs(straight.astype(int) - expected).max() <= 3  # half a pixel off would be 8


def test_picture_centres_are_at_half_pixels() -> None:
    camera = FisheyeCamera(stored_camera().params, SIZE, SIZE)
    view = PinholeView(camera, INTRINSICS, 320, 240, upright=False)
    stored = np.zeros((SIZE, SIZE, 3), np.uint8)
    ray = np.array([(100.5 - 160.0) / 300.0, (60.5 - 120.0) / 300.0, 1.0])  # the centre of pixel (100, 60)
    x, y = camera.project(ray)[0]
    rows, columns = np.mgrid[:SIZE, :SIZE]
    stored[:] = np.clip(255 - 60 * np.hypot(columns - x, rows - y), 0, 255)[..., None]
    bright = view.undistort(stored)[..., 0].astype(float)
    shown_rows, shown_columns = np.mgrid[:240, :320]
    centre = np.array([(shown_columns * bright).sum(), (shown_rows * bright).sum()]) / bright.sum()
    assert np.abs(centre - [100, 60]).max() < 0.05


def test_upright_picture_is_the_stored_one_turned() -> None:
    camera = FisheyeCamera(stored_camera().params, SIZE, SIZE, RADIUS_PX)
    square = np.array([[200.0, 0.0, 128.0], [0.0, 200.0, 128.0], [0.0, 0.0, 1.0]])
    stored = stored_picture(1)
    lying = PinholeView(camera, square, 256, 256, upright=False)
    upright = PinholeView(camera, square, 256, 256)
    turned = np.rot90(lying.undistort(stored), k=3)
    assert np.abs(upright.undistort(stored).astype(int) - turned).max() <= 1
    assert np.array_equal(upright.valid, np.rot90(lying.valid, k=3))
    assert np.linalg.det(STORED_FROM_UPRIGHT) == pytest.approx(1.0)


def test_what_the_lens_does_not_see_is_black_and_masked() -> None:
    camera = FisheyeCamera(stored_camera().params, SIZE, SIZE, RADIUS_PX)
    wide = np.array([[75.0, 0.0, 128.0], [0.0, 75.0, 128.0], [0.0, 0.0, 1.0]])
    view = PinholeView(camera, wide, 256, 256)
    picture = view.undistort(np.full((SIZE, SIZE, 3), 200, np.uint8))
    assert view.valid[128, 128]
    assert not view.valid[0, 0]
    assert 0.4 < view.valid.mean() < 0.8  # a circle
    assert not picture[~view.valid].any()
    assert (picture[view.valid] == 200).all()


def test_refuses_what_does_not_fit() -> None:
    view = PinholeView(FisheyeCamera(stored_camera().params, SIZE, SIZE), INTRINSICS, 320, 240)
    with pytest.raises(DwmError, match=r"1408x1408.*704x704"):
        view.undistort(np.zeros((1408, 1408, 3), np.uint8))
    with pytest.raises(DwmError, match="15 finite ones"):
        FisheyeCamera(np.array([600.0, 352.0, 352.0]), SIZE, SIZE)
    with pytest.raises(DwmError, match="15 finite ones"):
        FisheyeCamera(np.full(15, np.nan), SIZE, SIZE)
