"""Tiny Aria captures in the real formats: a few plain frames, a straight path, a handful of points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests.profiles import Profile
from render.arrays import write_npz
from render.body import load_body
from render.camera import look_at
from render.fisheye import Image
from render.reconstruction_settings import Densification, get_reconstruction_profile
from render.rotations import Floats
from sources.aria_files import CaptureFiles, find_captures
from sources.aria_settings import AriaSettings
from sources.synthetic.aria_results import (
    online_calibration_lines,
    points_csv,
    results_folder,
    trajectory_csv,
)
from sources.synthetic.aria_vrs import SIZE, StoredFrame, write_recording

REAL = Path(__file__).parents[2] / "shared" / "data" / "aria"
HAS_REAL_DATA = REAL.is_dir()
NO_REAL_DATA = "the real Aria recordings are not on this machine"
START_NS = 5_000_000_000


@dataclass(frozen=True, eq=False)
class TinyCapture:
    """A capture that was written, and the truth about it."""

    root: Path
    vrs: Path
    timestamps_ns: np.ndarray[tuple[int], np.dtype[np.int64]]
    poses: Floats
    points: Floats

    @property
    def slam(self) -> Path:
        return results_folder(self.vrs)

    def files(self) -> CaptureFiles:
        return find_captures(self.root)[0]


def stored_picture(number: int) -> Image:
    """A stored image that tells which corner is which, and its number."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.stack([columns * 255 // SIZE, rows * 255 // SIZE, np.full_like(rows, 20 * number)], -1).astype(np.uint8)


def tiny_capture(
    root: Path, *, frames: int = 5, name: str = "walk", rate_hz: float = 10.0, turned_from: int | None = None
) -> TinyCapture:
    """Write a capture of ``frames`` frames whose camera walks along x and looks at the origin.

    From the frame ``turned_from`` on it looks the other way.
    """
    times = START_NS + np.arange(frames, dtype=np.int64) * round(1e9 / rate_hz)
    poses = np.stack([look_at((0.1 * index, 1.5, -2.0), (0.0, 1.0, 0.0)) for index in range(frames)])
    if turned_from is not None:
        poses[turned_from:] = poses[turned_from:] @ np.diag([-1.0, 1.0, -1.0, 1.0])
    points = np.random.default_rng(3).uniform([-1, 0.2, -0.5], [1, 1.8, 0.5], (200, 3))
    vrs = root / f"{name}.vrs"
    folder = results_folder(vrs)
    folder.mkdir(parents=True)
    (folder / "closed_loop_trajectory.csv").write_text(trajectory_csv(times, poses))
    (folder / "semidense_points.csv.gz").write_bytes(points_csv(points, np.random.default_rng(0)))
    (folder / "online_calibration.jsonl").write_text(online_calibration_lines(times))
    write_recording(vrs, stored_frames(times), rate_hz)
    return TinyCapture(root, vrs, times, poses, points)


def stored_frames(times: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[StoredFrame]:
    return [
        StoredFrame(stored_picture(number), int(time), 0.004 + 0.001 * number, 2.0 + number)
        for number, time in enumerate(times)
    ]


def without_poses(trajectory: Path, start_ns: int, end_ns: int) -> None:
    """Cut the poses between two times out of a trajectory."""
    header, *rows = trajectory.read_text().splitlines()
    kept = [row for row in rows if not start_ns <= int(row.split(",")[1]) * 1000 <= end_ns]
    trajectory.write_text("\n".join([header, *kept]) + "\n")


PROFILE = Profile(name="test", width=96, height=64, num_frames=9, fps=8.0, frame_step=6, stride=9)
QUICK = get_reconstruction_profile("aria_mini").model_copy(
    update={
        "width": 60,
        "height": 40,
        "steps": 6,
        "max_points": 500,
        "threads": 1,
        "densification": Densification(start=1000, stop=1000),
    }
)
FILE_HANDS = {"estimator": "file"}


def quick_settings(**more: object) -> AriaSettings:
    gates = {"min_heldout_psnr_db": 0.0, "max_floater_share": 1.0, "max_registration_px": 500.0}
    values = {"profile": PROFILE, "reconstruction": QUICK, "hands": FILE_HANDS, "min_explore_frames": 4, "gates": gates}
    return AriaSettings.model_validate({**values, **more})


def write_empty_hands(path: Path) -> None:
    faces = load_body().hands[0].faces
    count = int(faces.max()) + 1
    intrinsics = quick_settings().clip_intrinsics()
    write_npz(
        path,
        {
            "frame": np.zeros(0, np.int64),
            "is_right": np.zeros(0, np.bool_),
            "score": np.zeros(0),
            "track_id": np.zeros(0, np.int64),
            "pose": np.zeros((0, 45)),
            "orientation": np.zeros((0, 3)),
            "translation": np.zeros((0, 3)),
            "joints_camera": np.zeros((0, 21, 3)),
            "joints_image": np.zeros((0, 21, 2)),
            "vertices": np.zeros((0, count, 3)),
            "faces_left": faces,
            "faces_right": faces,
            "focal_px": intrinsics[0, 0],
        },
    )
