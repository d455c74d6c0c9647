"""Colour frames as an Aria recording in VRS: the stream, its layouts, and the calibration of a plausible device."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from manifests.atomic import atomic_path
from render.camera import invert_pose
from render.fisheye import FisheyeCamera, Image
from render.rotations import Floats, matrix_from_quaternion
from sources.synthetic.vrs_writer import DataLayout, RecordType, StreamTags, VrsWriter

SIZE = 704
"""Side of the stored image: half of what the glasses record at most; the readers know both."""
NATIVE_SIZE = 2880
"""Side of the sensor in whose pixels calibrations are written."""
NATIVE_PARAMS = (
    *(1219.0, 1437.2, 1441.6),
    *(0.4055, -0.4905, 0.1803, 1.1201, -1.6856, 0.6464),
    *(0.00041, -0.00022, -0.00019, 0.00017, -0.00023, 0.00011),
)
"""Projection of a device that does not exist, close to what real ones have."""
DEVICE_FROM_CAMERA_QUATERNION = (0.9433, 0.3278, 0.0384, 0.0337)
"""w, x, y, z of the stored camera's turn in the device's frame (whose origin is the left tracking camera)."""
DEVICE_FROM_CAMERA_M = (-0.0046, -0.0117, -0.0049)

RGB_STREAM, LEFT_TRACKING_STREAM = (214, 1), (1201, 1)
"""Kind and number of the streams of cameras."""
_JPEG_QUALITY = 92
_CONFIGURATION = DataLayout(
    {
        "camera_id": "uint32_t",
        "nominal_rate": "double",
        "image_width": "uint32_t",
        "image_height": "uint32_t",
        "image_stride": "uint32_t",
        "image_pixel_format": "uint32_t",
        "exposure_duration.min": "double",
        "exposure_duration.max": "double",
        "gain.min": "double",
        "gain.max": "double",
        "gamma_factor": "double",
    },
    (
        "device_type",
        "device_version",
        "device_serial",
        "sensor_model",
        "sensor_serial",
        "factory_calibration",
        "online_calibration",
        "description",
    ),
)
_DATA = DataLayout(
    {
        "group_id": "uint64_t",
        "group_mask": "uint64_t",
        "frame_number": "uint64_t",
        "frame_tag": "uint32_t",
        "exposure_duration_s": "double",
        "gain": "double",
        "capture_timestamp_ns": "int64_t",
        "capture_timestamp_in_processing_clock_domain_ns": "int64_t",
        "arrival_timestamp_ns": "int64_t",
        "processing_start_timestamp_ns": "int64_t",
        "temperature_deg_c": "double",
    }
)


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """A frame as the sensor stores it.

    Attributes:
        image: [SIZE,SIZE,3] uint8, on its side.
        timestamp_ns: time of capture by the device's clock.
        exposure_s: how long the sensor was exposed.
        gain: amplification.
    """

    image: Image
    timestamp_ns: int
    exposure_s: float
    gain: float


def device_from_stored_camera() -> Floats:
    """Pose [4,4] of the stored camera in the device's frame."""
    quaternion = np.asarray(DEVICE_FROM_CAMERA_QUATERNION)
    pose = np.eye(4)
    pose[:3, :3] = matrix_from_quaternion(quaternion / np.linalg.norm(quaternion))
    pose[:3, 3] = DEVICE_FROM_CAMERA_M
    return pose


def stored_camera() -> FisheyeCamera:
    """The lens in pixels of the stored image: the sensor's edge of 32 pixels is cut off, four pixels become one."""
    params = np.array(NATIVE_PARAMS)
    params[0] /= 4
    params[1:3] = (params[1:3] + 0.5 - 32) / 4 - 0.5
    return FisheyeCamera(params, SIZE, SIZE)


def calibration_json(params: Floats | None = None, *, with_camera: bool = True) -> dict[str, object]:
    """The calibration as the tag `calib_json` of a VRS file holds it.

    Args:
        params: [15] in the sensor's pixels; those of the device when absent.
        with_camera: False leaves the colour camera out.
    """
    pose = device_from_stored_camera()
    quaternion = np.asarray(DEVICE_FROM_CAMERA_QUATERNION) / np.linalg.norm(DEVICE_FROM_CAMERA_QUATERNION)
    camera = {
        "Calibrated": True,
        "Label": "camera-rgb",
        "Projection": {
            "Name": "FisheyeRadTanThinPrism",
            "Description": "see FisheyeRadTanThinPrism.h",
            "Params": [float(value) for value in (NATIVE_PARAMS if params is None else params)],
        },
        "SerialNumber": "synthetic",
        "T_Device_Camera": {
            "Translation": [float(value) for value in pose[:3, 3]],
            "UnitQuaternion": [float(quaternion[0]), [float(value) for value in quaternion[1:]]],
        },
    }
    return {
        "CameraCalibrations": [camera] if with_camera else [],
        "DeviceClassInfo": {"BuildVersion": "DVT-S", "DeviceClass": "Aria"},
        "OriginSpecification": {"ChildLabel": "camera-slam-left", "Type": "Custom"},
    }


def write_recording(
    path: Path,
    frames: Iterable[StoredFrame],
    rate_hz: float,
    *,
    calibration: dict[str, object] | None = None,
    camera: tuple[int, int] = RGB_STREAM,
) -> None:
    """Write a VRS file with a colour stream, atomically; the same frames give the same bytes.

    Args:
        path: the file.
        frames: in the order of their times.
        rate_hz: nominal rate of the stream.
        calibration: content of `calib_json`; that of the device when absent.
        camera: kind and number of the stream; that of another camera makes a recording without colour.

    Raises:
        DwmError: the file cannot be written.
    """
    text = json.dumps(calibration_json() if calibration is None else calibration)
    stream = _image_stream(camera)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        tags = {"calib_json": text, "device_type": "Aria", "device_serial": "synthetic", "device_version": "0"}
        writer = VrsWriter(file, {**tags, "hardware_version": "DVT-S"}, [stream])
        writer.record(stream, RecordType.CONFIGURATION, 0.0, _configuration(rate_hz, text))
        writer.record(stream, RecordType.STATE, 0.0, b"")
        for number, frame in enumerate(frames):
            writer.record(stream, RecordType.DATA, frame.timestamp_ns / 1e9, _packed_frame(number, frame))
        writer.close()


def stored_pose(upright_pose: Floats, stored_from_upright: Floats) -> Floats:
    """World-from-device poses [T,4,4] whose upright colour camera has the world-from-camera poses [T,4,4]."""
    upright_from_stored = np.eye(4)
    upright_from_stored[:3, :3] = stored_from_upright.T
    result: Floats = upright_pose @ upright_from_stored @ invert_pose(device_from_stored_camera())
    return result


def _image_stream(camera: tuple[int, int]) -> StreamTags:
    return StreamTags(
        *camera,
        {"device_type": "Aria", "device_serial": "synthetic", "camera_id": "2"},
        {
            "DL:Configuration:2:0": _CONFIGURATION.describe(),
            "DL:Data:2:0": _DATA.describe(),
            "RF:Configuration:2": "data_layout",
            "RF:Data:2": f"data_layout/size={_DATA.size}+image/jpg",
            "VRS_Original_Recordable_Name": "RGB Camera Class",
            "VRS_Recordable_Flavor": "device/aria",
            "VRS_Serial_Number": "synthetic",
        },
    )


def _configuration(rate_hz: float, calibration: str) -> bytes:
    return _CONFIGURATION.pack(
        {
            "camera_id": 2,
            "nominal_rate": rate_hz,
            "image_width": SIZE,
            "image_height": SIZE,
            "image_stride": 0,
            "image_pixel_format": 0,
            "exposure_duration.min": 0.0002,
            "exposure_duration.max": 0.014,
            "gain.min": 1.0,
            "gain.max": 22.0,
            "gamma_factor": 1.0,
        },
        {"device_type": "Aria", "sensor_model": "synthetic", "factory_calibration": calibration},
    )


def _packed_frame(number: int, frame: StoredFrame) -> bytes:
    fields = _DATA.pack(
        {
            "group_id": 0,
            "group_mask": 4,
            "frame_number": number,
            "frame_tag": 0,
            "exposure_duration_s": frame.exposure_s,
            "gain": frame.gain,
            "capture_timestamp_ns": frame.timestamp_ns,
            "capture_timestamp_in_processing_clock_domain_ns": -1,
            "arrival_timestamp_ns": frame.timestamp_ns,
            "processing_start_timestamp_ns": frame.timestamp_ns,
            "temperature_deg_c": 33.0,
        }
    )
    picture = io.BytesIO()
    PillowImage.fromarray(frame.image).save(picture, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return fields + picture.getvalue()
