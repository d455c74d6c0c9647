"""Aria captures: an RGB recording with poses and points, as straight upright views (paper 3.3, real-world captures).

World: y up, metres. Cameras: OpenCV axes, pixel centres at +0.5, upright. Times are those of the device's clock; every
frame is placed by the moment at which it was captured, never by its number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.camera import Camera, CameraPath
from render.fisheye import STORED_FROM_UPRIGHT, Image, Mask, PinholeView
from render.framing import Frames
from render.rotations import Floats
from sources.aria_files import CaptureFiles
from sources.aria_mps import (
    OnlineCalibrations,
    SemiDensePoints,
    Trajectory,
    read_online_calibration,
    read_points,
    read_trajectory,
)
from sources.aria_vrs import RgbCalibration, RgbRecording, Timestamps

CalibrationSource = Literal["online", "factory"]

POSE_TOLERANCE_S = 0.02
"""A frame whose nearest pose is farther away in time has none. The services give 1000 poses a second, some published
data sets one a frame."""
RELEASE_FOCAL_PX = 300.0
RELEASE_FOV_DEGREES = float(np.degrees(2 * np.arctan(720 / 2 / RELEASE_FOCAL_PX)))
"""Field of view of the release's clips over their width: 720 pixels at a focal length of 300 are 100.4 degrees."""

_STORED_FROM_UPRIGHT = np.eye(4)
_STORED_FROM_UPRIGHT[:3, :3] = STORED_FROM_UPRIGHT


class CaptureLacksError(DwmError):
    """A capture lacks what a clip needs (poses, exploration): builders write a ``dropped`` row with the message."""


@dataclass(frozen=True, eq=False)
class StraightFrame:
    """A frame as a straight, upright picture.

    Attributes:
        image: [H,W,3] uint8 RGB, black where the lens saw nothing.
        valid: [H,W] which pixels the lens saw.
        camera: intrinsics of the picture and its pose in the world.
        timestamp_ns: when it was captured.
        exposure_s: how long the sensor was exposed.
        gain: amplification.
    """

    image: Image
    valid: Mask
    camera: Camera
    timestamp_ns: int
    exposure_s: float
    gain: float


@dataclass(frozen=True, eq=False)
class StraightClip:
    """Frames of one camera.

    Attributes:
        frames: [T,H,W,3] uint8 RGB.
        valid: [T,H,W].
        cameras: T poses.
        timestamps_ns: [T].
        exposure_s: [T].
        gain: [T].
    """

    frames: Frames
    valid: Mask
    cameras: CameraPath
    timestamps_ns: Timestamps
    exposure_s: Floats
    gain: Floats


@dataclass(eq=False)
class AriaCapture:
    """A recording with its trajectory; points are read when they are asked for.

    Attributes:
        files: where everything lies.
        recording: the colour frames.
        trajectory: where the device was.
        online: calibrations over time; None where there are none.
        pose_tolerance_s: frames whose nearest pose is farther away have none.
    """

    files: CaptureFiles
    recording: RgbRecording
    trajectory: Trajectory
    online: OnlineCalibrations | None
    pose_tolerance_s: float = POSE_TOLERANCE_S
    _views: dict[tuple[int, bytes, int, int], PinholeView] = field(default_factory=dict, repr=False)

    @property
    def calibration_source(self) -> CalibrationSource:
        """Which calibration is used: the manifest's column ``calibration_source``."""
        return "factory" if self.online is None else "online"

    @property
    def times_s(self) -> Floats:
        """[N] seconds of the colour frames from the first one."""
        times = self.recording.timestamps_ns
        result: Floats = (times - times[0]) / 1e9
        return result

    @cached_property
    def has_pose(self) -> npt.NDArray[np.bool_]:
        """[N] which colour frames have a pose."""
        return self.trajectory.known(self.recording.timestamps_ns, self.pose_tolerance_s)

    @cached_property
    def points(self) -> SemiDensePoints:
        """The semi-dense points.

        Raises:
            DwmError: there is no file, or no sure point in it.
        """
        return read_points(self.files.required("points"), self.trajectory.world_from_file)

    def calibration(self, frame: int) -> RgbCalibration:
        """The calibration of a frame: the online one nearest in time, else the factory's."""
        if self.online is not None:
            return self.online.nearest(int(self.recording.timestamps_ns[frame]))
        if self.recording.factory is None:  # `open_capture` has checked it
            raise _no_calibration(self.files)
        return self.recording.factory

    def poses(self, frames: npt.NDArray[np.int64]) -> Floats:
        """World-from-camera poses [n,4,4] of the upright camera at the times of some frames.

        Raises:
            CaptureLacksError: a frame has no pose; the message says where the trajectory's gap is.
        """
        missing = frames[~self.has_pose[frames]]
        if len(missing):
            raise CaptureLacksError(self._gap(int(missing[0]), len(missing)))
        world_from_device = self.trajectory.poses(self.recording.timestamps_ns[frames])
        device_from_camera = np.stack([self.calibration(int(frame)).device_from_camera for frame in frames])
        result: Floats = world_from_device @ device_from_camera @ _STORED_FROM_UPRIGHT
        return result

    def read(self, frame: int, intrinsics: Floats, width: int, height: int) -> StraightFrame:
        """A frame through a pinhole camera of any size.

        Raises:
            DwmError: it has no pose or cannot be decoded.
        """
        camera = Camera(intrinsics, self.poses(np.array([frame]))[0])
        stored = self.recording.read(frame)
        view = self._view(self.calibration(frame), intrinsics, width, height)
        return StraightFrame(
            view.undistort(stored.image), view.valid, camera, stored.timestamp_ns, stored.exposure_s, stored.gain
        )

    def straighten(self, frame: int, stored: Image, intrinsics: Floats, width: int, height: int) -> Image:
        """Another picture [h,w,3] of a frame as the sensor stores it, such as a mask, through a pinhole camera.

        Raises:
            DwmError: it has another size than the recording.
        """
        return self._view(self.calibration(frame), intrinsics, width, height).undistort(stored)

    def read_clip(self, frames: npt.NDArray[np.int64], intrinsics: Floats, width: int, height: int) -> StraightClip:
        """Some frames through one pinhole camera.

        Raises:
            DwmError: a frame has no pose or cannot be decoded.
        """
        straight = [self.read(int(frame), intrinsics, width, height) for frame in frames]
        return StraightClip(
            frames=np.stack([each.image for each in straight]),
            valid=np.stack([each.valid for each in straight]),
            cameras=CameraPath(intrinsics, np.stack([each.camera.world_from_camera for each in straight])),
            timestamps_ns=np.array([each.timestamp_ns for each in straight], np.int64),
            exposure_s=np.array([each.exposure_s for each in straight]),
            gain=np.array([each.gain for each in straight]),
        )

    def _view(self, calibration: RgbCalibration, intrinsics: Floats, width: int, height: int) -> PinholeView:
        key = (id(calibration.lens), intrinsics.tobytes(), width, height)
        if key not in self._views:
            self._views.clear()  # a calibration that drifts would fill the memory
            self._views[key] = PinholeView(calibration.lens, intrinsics, width, height)
        return self._views[key]

    def _gap(self, frame: int, count: int) -> str:
        time_ns = int(self.recording.timestamps_ns[frame])
        away = int(self.trajectory.distance_ns(np.array([time_ns]))[0]) / 1e9
        return (
            f"{self.trajectory.path}: has no pose within {self.pose_tolerance_s:g} s of colour frame {frame} "
            f"({self.times_s[frame]:.2f} s into the recording; the nearest is {away:.3f} s away), and {count - 1} more "
            "frames lack one; record again where tracking was lost, or raise the tolerance"
        )


def open_capture(files: CaptureFiles, *, pose_tolerance_s: float = POSE_TOLERANCE_S) -> AriaCapture:
    """Open a capture's recording, trajectory and calibration.

    Args:
        files: where they lie.
        pose_tolerance_s: a frame whose nearest pose is farther away in time has none.

    Raises:
        DwmError: a file is missing or broken, there is no calibration, or the trajectory's clock and the recording's
            do not overlap.
    """
    recording = RgbRecording(files.vrs)
    trajectory = read_trajectory(files.required("trajectory"))
    online = None
    if files.online_calibration is not None:
        online = read_online_calibration(files.online_calibration, recording.width, recording.height)
    elif recording.factory is None:
        raise _no_calibration(files)
    capture = AriaCapture(files, recording, trajectory, online, pose_tolerance_s)
    if not capture.has_pose.any():
        raise DwmError(
            f"{trajectory.path}: goes from {_seconds(trajectory.timestamps_ns)} by the device's clock, the recording "
            f"{files.vrs.name} from {_seconds(recording.timestamps_ns)}: no colour frame has a pose; take "
            "the trajectory of this recording"
        )
    return capture


def _no_calibration(files: CaptureFiles) -> DwmError:
    return DwmError(
        f"{files.vrs}: carries no calibration of the colour camera and has no online calibration beside it; add "
        f"{files.vrs.parent / f'mps_{files.vrs.stem}_vrs/slam/online_calibration.jsonl'}"
    )


def _seconds(timestamps_ns: Timestamps) -> str:
    return f"{timestamps_ns[0] / 1e9:.2f} s to {timestamps_ns[-1] / 1e9:.2f} s"
