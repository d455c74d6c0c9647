"""What the Machine Perception Services would make of a generated capture: their files, from the truth."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manifests.atomic import write_bytes, write_text
from render.fisheye import STORED_FROM_UPRIGHT
from render.rotations import Floats, quaternion_from_matrix
from sources.aria_files import CAPTION_NAME, ONLINE_CALIBRATION_NAME, PHASES_NAME
from sources.synthetic.aria_vrs import NATIVE_PARAMS, calibration_json, stored_pose

if TYPE_CHECKING:
    from sources.synthetic.aria_capture import StagedCapture

POSES_A_SECOND = 200
_SURE_STD_M, _UNSURE_STD_M = 0.0006, 0.12
_UNSURE_SHARE = 0.2
_GRAPH = "00000000-0000-0000-0000-000000000000"
_FILE_FROM_WORLD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""The services' world is z up, that of the generator y up."""

_POSE_COLUMNS = (
    "graph_uid,tracking_timestamp_us,utc_timestamp_ns,tx_world_device,ty_world_device,tz_world_device,qx_world_device,"
    "qy_world_device,qz_world_device,qw_world_device,device_linear_velocity_x_device,device_linear_velocity_y_device,"
    "device_linear_velocity_z_device,angular_velocity_x_device,angular_velocity_y_device,angular_velocity_z_device,"
    "gravity_x_world,gravity_y_world,gravity_z_world,quality_score"
)
_POINT_COLUMNS = "uid,graph_uid,px_world,py_world,pz_world,inv_dist_std,dist_std"


def results_folder(recording: Path) -> Path:
    """Where the services' command line puts the results for a recording."""
    return recording.parent / f"mps_{recording.stem}_vrs" / "slam"


def write_results(
    recording: Path, staged: StagedCapture, points: Floats, random: np.random.Generator, *, with_phases: bool
) -> None:
    """Write trajectory, points, online calibration and the sidecars of a capture.

    Args:
        recording: the capture's VRS file, which need not be there yet.
        staged: the capture.
        points: [P,3] points on surfaces that the exploration sees, in the generator's world.
        random: gives points their errors.
        with_phases: also write the sidecar that says when the interaction begins.
    """
    folder = results_folder(recording)
    times = staged.plan.timestamps_ns
    write_text(folder / "closed_loop_trajectory.csv", trajectory_csv(times, staged.poses))
    write_bytes(folder / "semidense_points.csv.gz", points_csv(points, random))
    write_text(folder / ONLINE_CALIBRATION_NAME, online_calibration_lines(times))
    write_text(recording.with_name(CAPTION_NAME), staged.recording.staged.text + "\n")
    if with_phases:
        start = times[staged.plan.explore_frames] - times[0]
        write_text(recording.with_name(PHASES_NAME), json.dumps({"interaction_start_s": round(start / 1e9, 6)}) + "\n")


def trajectory_csv(timestamps_ns: np.ndarray[tuple[int], np.dtype[np.int64]], upright_poses: Floats) -> str:
    """`closed_loop_trajectory.csv` of a device whose upright colour camera has poses [N,4,4] at times [N]."""
    from scipy.spatial.transform import Rotation, Slerp

    device = stored_pose(upright_poses, STORED_FROM_UPRIGHT)
    margin = 20_000_000
    step = 1_000_000_000 // POSES_A_SECOND
    dense = np.arange(timestamps_ns[0] - margin, timestamps_ns[-1] + margin, step) // 1000 * 1000
    # Every frame's own time is among the poses, so that between frames nothing is smoothed away.
    wanted = np.unique(np.concatenate([dense, timestamps_ns]))
    inside = np.clip(wanted, timestamps_ns[0], timestamps_ns[-1])
    seconds = (timestamps_ns - timestamps_ns[0]) / 1e9
    at = (inside - timestamps_ns[0]) / 1e9
    rotations = Slerp(seconds, Rotation.from_matrix(device[:, :3, :3]))(at).as_matrix()
    places = np.stack([np.interp(at, seconds, axis) for axis in device[:, :3, 3].T], axis=1)
    quaternions = quaternion_from_matrix(_FILE_FROM_WORLD @ rotations)
    places = places @ _FILE_FROM_WORLD.T
    rows = [_POSE_COLUMNS]
    for time_ns, place, (w, x, y, z) in zip(wanted, places, quaternions, strict=True):
        moved = ",".join(f"{value:.9f}" for value in (*place, x, y, z, w))
        rows.append(f"{_GRAPH},{time_ns // 1000},-1,{moved},0,0,0,0,0,0,0,0,-9.81,1.0")
    return "\n".join(rows) + "\n"


def points_csv(points: Floats, random: np.random.Generator) -> bytes:
    """`semidense_points.csv.gz` of points [P,3]: most are sure, some are far off and say so."""
    unsure = random.random(len(points)) < _UNSURE_SHARE
    deviation = np.where(unsure, _UNSURE_STD_M, _SURE_STD_M)
    moved = (points + random.normal(size=points.shape) * deviation[:, None]) @ _FILE_FROM_WORLD.T
    rows = [_POINT_COLUMNS]
    for number, (place, is_unsure) in enumerate(zip(moved, unsure, strict=True)):
        inverse, distance = (0.02, 0.3) if is_unsure else (0.0004, 0.008)
        rows.append(f"{number},{_GRAPH},{place[0]:.6f},{place[1]:.6f},{place[2]:.6f},{inverse},{distance}")
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as archive:
        archive.write(("\n".join(rows) + "\n").encode())
    return buffer.getvalue()


def online_calibration_lines(timestamps_ns: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    """`online_calibration.jsonl`: two records a second; the lens stays what the factory measured."""
    content = calibration_json(np.array(NATIVE_PARAMS))
    lines = []
    for time_ns in range(int(timestamps_ns[0]), int(timestamps_ns[-1]) + 1, 500_000_000):
        record = {"utc_timestamp_ns": -1, "tracking_timestamp_us": time_ns // 1000, "ImuCalibrations": [], **content}
        lines.append(json.dumps(record))
    return "\n".join(lines) + "\n"
