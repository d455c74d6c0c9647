"""Aria recordings in VRS: colour frames with their times, exposure and gain, and the factory calibration."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.fisheye import FisheyeCamera, Image
from render.rotations import Floats
from sources.aria_native import load_projectaria, native_output

Timestamps = npt.NDArray[np.int64]

RGB_LABEL = "camera-rgb"
_HEADER = struct.Struct("<4s4sQIIqqq")
_RECORD_HEADER_BYTES = 32
_NATIVE_SIZE = 2880
_NATIVE_CUT = 32
"""The sensor's outermost pixels that are cut off before four of them (or sixteen) become one."""
_READOUTS = {1408: 2, 704: 4}
"""Stored sizes of the colour camera and how many pixels of the sensor make one of theirs, along a side."""


@dataclass(frozen=True, eq=False)
class RgbCalibration:
    """Where the colour camera sits and how it bends light, in pixels of the stored image.

    Attributes:
        lens: projection.
        device_from_camera: [4,4] pose of the stored (not upright) camera in the device's frame.
    """

    lens: FisheyeCamera
    device_from_camera: Floats


@dataclass(frozen=True, eq=False)
class RgbFrame:
    """A colour frame as it is stored.

    Attributes:
        image: [height,width,3] uint8 RGB, on its side as the sensor is.
        timestamp_ns: when it was captured, by the device's clock.
        exposure_s: how long the sensor was exposed.
        gain: amplification.
    """

    image: Image
    timestamp_ns: int
    exposure_s: float
    gain: float


class RgbRecording:
    """The colour stream of a VRS file.

    Attributes:
        path: the file.
        timestamps_ns: [N] when frames were captured, by the device's clock, increasing.
        width: width of the stored images, pixels.
        height: height of the stored images, pixels.
        factory: calibration that the file carries; None where it has none for this camera.

    Raises:
        DwmError: projectaria-tools is missing, the file is absent, no VRS, cut short, has no colour stream or no
            colour frames, or its times go backwards.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_whole(path)
        module = load_projectaria("data_provider")
        with native_output() as output:
            self._provider = _open(module, path)
        if self._provider is None:
            raise DwmError(f"{path}: cannot be opened ({output.complaint() or 'no reason given'}); copy it again")
        self._stream = self._provider.get_stream_id_from_label(RGB_LABEL)
        streams = list(self._provider.get_all_streams())
        if self._stream is None or self._stream not in streams:  # the id of a label is known even without a stream
            found = [self._provider.get_label_from_stream_id(stream) for stream in streams]
            names = ", ".join(sorted(str(name) for name in found)) or "none"
            raise DwmError(
                f"{path}: has no {RGB_LABEL} stream (streams: {names}); record with a profile that has the "
                "colour camera"
            )
        self.timestamps_ns = self._read_times()
        self.height, self.width = self.read(0).image.shape[:2]
        self.factory = self._factory_calibration()

    def __len__(self) -> int:
        return len(self.timestamps_ns)

    def read(self, frame: int) -> RgbFrame:
        """A frame.

        Raises:
            DwmError: it cannot be decoded.
        """
        with native_output() as output:
            picture, record = self._provider.get_image_data_by_index(self._stream, frame)
            try:
                pixels = np.asarray(picture.to_numpy_array())
            except RuntimeError:  # there is no picture
                pixels = np.empty(0, np.uint8)
        if pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.size:
            raise DwmError(
                f"{self.path}: colour frame {frame} cannot be decoded ({output.complaint() or 'no picture in it'}); "
                "copy the recording again"
            )
        image = np.ascontiguousarray(pixels, dtype=np.uint8)
        return RgbFrame(image, int(record.capture_timestamp_ns), float(record.exposure_duration), float(record.gain))

    def _read_times(self) -> Timestamps:
        domain = load_projectaria("sensor_data").TimeDomain.DEVICE_TIME
        times = np.asarray(self._provider.get_timestamps_ns(self._stream, domain), dtype=np.int64)
        if not len(times):
            raise DwmError(f"{self.path}: its {RGB_LABEL} stream has no frame; record with the colour camera on")
        if (np.diff(times) <= 0).any():
            frame = int(np.argmax(np.diff(times) <= 0)) + 1
            raise DwmError(f"{self.path}: the time of colour frame {frame} is not after that of the one before")
        return times

    def _factory_calibration(self) -> RgbCalibration | None:
        with native_output():
            device = self._provider.get_device_calibration()
            camera = None if device is None else device.get_camera_calib(RGB_LABEL)
        return None if camera is None else calibration_of(camera, self.width, self.height, self.path)


def _open(module: Any, path: Path) -> Any:
    try:
        return module.create_vrs_data_provider(str(path))
    except (RuntimeError, ValueError) as error:  # what its C++ code throws, such as for a broken calibration
        raise DwmError(f"{path}: cannot be opened ({_one_line(error)}); copy it again") from error


def calibration_of(camera: Any, width: int, height: int, path: Path) -> RgbCalibration:
    """A camera calibration of projectaria-tools for stored images of some size.

    Args:
        camera: `projectaria_tools.core.calibration.CameraCalibration`.
        width: width of the stored images, pixels.
        height: height of the stored images, pixels.
        path: where the calibration was read, for messages.

    Raises:
        DwmError: it is of another camera model, or for images of a size that no read-out of the sensor gives.
    """
    if str(camera.get_model_name()).split(".")[-1] != "FISHEYE624":
        raise DwmError(f"{path}: {RGB_LABEL} has the model {camera.get_model_name()}; FISHEYE624 is what can be read")
    size = tuple(int(value) for value in camera.get_image_size())
    if size == (_NATIVE_SIZE, _NATIVE_SIZE) and width == height and width in _READOUTS:
        cut = np.array([_NATIVE_CUT, _NATIVE_CUT], dtype=np.float64)
        camera = camera.rescale(np.array([width, height], dtype=np.int32), 1.0 / _READOUTS[width], cut)
    elif size != (width, height):
        raise DwmError(
            f"{path}: {RGB_LABEL} is calibrated for {size[0]}x{size[1]} pixels and the recording has "
            f"{width}x{height}; use the calibration of this recording"
        )
    lens = FisheyeCamera(
        np.asarray(camera.get_projection_params(), dtype=np.float64), width, height, camera.get_valid_radius()
    )
    pose = np.asarray(camera.get_transform_device_camera().to_matrix(), dtype=np.float64)
    if not np.isfinite(pose).all():
        raise DwmError(f"{path}: the pose of {RGB_LABEL} on the device is not finite; use another calibration")
    return RgbCalibration(lens, pose)


def check_whole(path: Path) -> None:
    """Check that a VRS file ends where its last record ends: the readers pass over what is missing.

    Raises:
        DwmError: no such file, no VRS, or it is cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size or head[:8] != b"VisionRe":
                raise DwmError(f"{path}: is no VRS file ({size} bytes); copy the recording again")
            header_bytes, record_header_bytes, _, _, first_record = _HEADER.unpack(head)[3:8]
            if record_header_bytes != _RECORD_HEADER_BYTES or not header_bytes <= first_record:
                raise DwmError(f"{path}: has a damaged VRS header; copy the recording again")
            if first_record > size:
                raise _cut_short(path, first_record, size)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _check_records(path, content, first_record, size)
    except OSError as error:
        raise DwmError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _check_records(path: Path, content: mmap.mmap, first_record: int, size: int) -> None:
    """Go from record to record by their sizes."""
    at = first_record
    while at < size:
        if at + _RECORD_HEADER_BYTES > size:
            raise _cut_short(path, at + _RECORD_HEADER_BYTES, size)
        record_bytes = int.from_bytes(content[at : at + 4], "little")
        if record_bytes < _RECORD_HEADER_BYTES:
            raise DwmError(f"{path}: is damaged at byte {at}: a record of {record_bytes} bytes; copy it again")
        at += record_bytes
    if at > size:
        raise _cut_short(path, at, size)


def _cut_short(path: Path, wanted: int, size: int) -> DwmError:
    return DwmError(f"{path}: is cut short: a record goes on to byte {wanted}, the file ends at {size}; copy it again")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
