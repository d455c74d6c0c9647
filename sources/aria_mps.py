"""What Aria's Machine Perception Services give: trajectory, semi-dense points, online calibration.

The world of the services is aligned with gravity (z up in closed-loop trajectories of the services, y up in some
published data sets); everything here is turned to y up by the gravity that the trajectory itself names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.rotations import Floats, matrix_from_quaternion, normalised
from sources.aria_native import load_projectaria, native_output
from sources.aria_vrs import RGB_LABEL, RgbCalibration, Timestamps, calibration_of

INVERSE_DISTANCE_STD_MAX = 0.001
DISTANCE_STD_MAX_M = 0.05
"""Points that are less sure are left out: the limits that projectaria-tools uses by default."""

_NS_PER_US = 1000
_GRAVITY = 9.81
_UP = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where the device was: closed-loop poses in a world that is y up.

    Attributes:
        path: the file.
        timestamps_ns: [M] by the device's clock, increasing.
        rotations: [M,3,3] world from device.
        positions: [M,3] metres.
        world_from_file: [3,3] the rotation that made the file's world y up.
    """

    path: Path
    timestamps_ns: Timestamps
    rotations: Floats
    positions: Floats
    world_from_file: Floats

    def distance_ns(self, times_ns: Timestamps) -> Timestamps:
        """[N] nanoseconds from each time to the nearest pose."""
        after = np.clip(np.searchsorted(self.timestamps_ns, times_ns), 1, len(self.timestamps_ns) - 1)
        either = np.stack([self.timestamps_ns[after - 1], self.timestamps_ns[after]])
        result: Timestamps = np.abs(either - times_ns).min(axis=0)
        return result

    def known(self, times_ns: Timestamps, tolerance_s: float) -> npt.NDArray[np.bool_]:
        """[N] whether there is a pose within the tolerance of each time."""
        return np.asarray(self.distance_ns(times_ns) <= tolerance_s * 1e9)

    def poses(self, times_ns: Timestamps) -> Floats:
        """World-from-device poses [N,4,4] at some times: between the two poses around, the end's beyond the ends.

        Say by `known` first which times have a pose near enough.
        """
        from scipy.spatial.transform import Slerp

        start = self.timestamps_ns[0]
        own = (self.timestamps_ns - start).astype(np.float64)
        wanted = np.clip((np.asarray(times_ns) - start).astype(np.float64), own[0], own[-1])
        result = np.tile(np.eye(4), (len(wanted), 1, 1))
        result[:, :3, :3] = Slerp(own, self._scipy_rotations)(wanted).as_matrix()
        result[:, :3, 3] = np.stack([np.interp(wanted, own, axis) for axis in self.positions.T], axis=1)
        return result

    @cached_property
    def _scipy_rotations(self) -> object:
        from scipy.spatial.transform import Rotation

        return Rotation.from_matrix(self.rotations)


@dataclass(frozen=True, eq=False)
class SemiDensePoints:
    """Points on the surfaces of the scene, in the same y-up world.

    Attributes:
        positions: [P,3] metres, those that are sure enough.
        distance_std_m: [P] their uncertainty along the ray, metres.
        found: points in the file, before the unsure ones were left out.
    """

    positions: Floats
    distance_std_m: Floats
    found: int


@dataclass(frozen=True, eq=False)
class OnlineCalibrations:
    """Calibrations of the colour camera over time.

    Attributes:
        timestamps_ns: [K] by the device's clock, increasing.
        calibrations: K of them; equal ones are one object.
    """

    timestamps_ns: Timestamps
    calibrations: tuple[RgbCalibration, ...]

    def nearest(self, time_ns: int) -> RgbCalibration:
        """The calibration nearest in time."""
        return self.calibrations[int(np.argmin(np.abs(self.timestamps_ns - time_ns)))]


def read_trajectory(path: Path) -> Trajectory:
    """Read a closed-loop trajectory.

    Raises:
        DwmError: no such file, another format, fewer than two poses, or values that make no sense.
    """
    mps = load_projectaria("mps")
    with native_output() as output:
        poses = mps.read_closed_loop_trajectory(str(path))
    if len(poses) < 2:
        reason = output.complaint() or f"it holds {len(poses)} poses"
        raise DwmError(f"{path}: is no closed-loop trajectory ({reason}); take the file that the services made")
    times = np.array([round(pose.tracking_timestamp.total_seconds() * 1e6) for pose in poses], np.int64) * _NS_PER_US
    fields = np.concatenate([pose.transform_world_device.to_quat_and_translation().reshape(1, 7) for pose in poses])
    gravity = np.mean([np.asarray(pose.gravity_world).reshape(3) for pose in poses], axis=0)
    if not np.isfinite(fields).all():
        raise DwmError(f"{path}: pose {int(np.argmin(np.isfinite(fields).all(axis=1)))} is not finite; make it again")
    if (np.diff(times) <= 0).any():
        raise DwmError(
            f"{path}: the time of pose {int(np.argmax(np.diff(times) <= 0)) + 1} is not after the one before"
        )
    if not 0.9 * _GRAVITY < np.linalg.norm(gravity) < 1.1 * _GRAVITY:
        raise DwmError(f"{path}: gravity is {np.round(gravity, 2)} m/s2; without it nobody knows where up is")
    turn = turn_to_y_up(gravity)
    return Trajectory(path, times, turn @ matrix_from_quaternion(fields[:, :4]), fields[:, 4:] @ turn.T, turn)


def read_points(path: Path, world_from_file: Floats) -> SemiDensePoints:
    """Read semi-dense points and keep the sure ones (`INVERSE_DISTANCE_STD_MAX`, `DISTANCE_STD_MAX_M`).

    Args:
        path: `semidense_points.csv.gz`, or `global_points.csv.gz` of older services.
        world_from_file: [3,3] `Trajectory.world_from_file` of the same capture.

    Raises:
        DwmError: no such file, another format, or no sure point in it.
    """
    mps = load_projectaria("mps")
    try:
        with native_output() as output:
            found = mps.read_global_point_cloud(str(path))
    except RuntimeError as error:
        raise DwmError(f"{path}: cannot be read ({' '.join(str(error).split())}); make it again") from error
    if not found:
        reason = output.complaint() or "it is empty"
        raise DwmError(f"{path}: holds no semi-dense point ({reason}); let the services process the recording again")
    inverse = np.array([point.inverse_distance_std for point in found])
    distance = np.array([point.distance_std for point in found])
    positions = np.array([np.asarray(point.position_world).reshape(3) for point in found])
    sure = (inverse < INVERSE_DISTANCE_STD_MAX) & (distance < DISTANCE_STD_MAX_M) & np.isfinite(positions).all(axis=1)
    if not sure.any():
        raise DwmError(
            f"{path}: none of {len(found)} points is sure enough (deviation below {DISTANCE_STD_MAX_M} m, of the "
            f"inverse distance below {INVERSE_DISTANCE_STD_MAX}); explore the scene longer and from more places"
        )
    return SemiDensePoints(positions[sure] @ world_from_file.T, distance[sure], len(found))


def read_online_calibration(path: Path, width: int, height: int) -> OnlineCalibrations:
    """Read the calibrations of the colour camera over time, for stored images of a size.

    Raises:
        DwmError: no such file, another format, or no calibration of the colour camera in it.
    """
    mps = load_projectaria("mps")
    try:
        with native_output() as output:
            records = mps.read_online_calibration(str(path))
    except RuntimeError as error:
        raise DwmError(f"{path}: cannot be read ({' '.join(str(error).split())[:160]}); make it again") from error
    times: list[int] = []
    calibrations: list[RgbCalibration] = []
    for record in records:
        camera = record.get_camera_calib(RGB_LABEL)
        if camera is None:
            continue
        calibration = calibration_of(camera, width, height, path)
        if calibrations and _is_equal(calibration, calibrations[-1]):
            calibration = calibrations[-1]
        calibrations.append(calibration)
        times.append(round(record.tracking_timestamp.total_seconds() * 1e6) * _NS_PER_US)
    if not calibrations:
        reason = output.complaint() or f"{len(records)} records"
        raise DwmError(
            f"{path}: has no calibration of {RGB_LABEL} ({reason}); remove the file to use the factory calibration"
        )
    return OnlineCalibrations(np.array(times, np.int64), tuple(calibrations))


def turn_to_y_up(gravity: npt.ArrayLike) -> Floats:
    """The smallest rotation [3,3] that brings a world with this gravity [3] to y up (z up: x stays, y becomes -z)."""
    up = -normalised(gravity)
    axis = np.cross(up, _UP)
    cosine = float(up @ _UP)
    if cosine < -1.0 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    result: Floats = np.eye(3) + cross + cross @ cross / (1.0 + cosine)
    return result


def _is_equal(first: RgbCalibration, second: RgbCalibration) -> bool:
    return bool(
        np.array_equal(first.lens.params, second.lens.params)
        and np.array_equal(first.device_from_camera, second.device_from_camera)
    )
