"""The true hands of generated captures, as the `file` estimator reads them: one npz a capture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.profiles import Profile
from render.camera import CameraPath, intrinsics_from_fov
from render.framing import LengthPolicy
from render.mesh_renderer import MeshRenderer
from render.resampling import SourceTiming, plan_windows
from sources.aria import RELEASE_FOV_DEGREES
from sources.aria_hands import recording_hands_path
from sources.synthetic.aria_capture import CapturePlan, stage_capture
from sources.synthetic.aria_vrs import SIZE


def hands_path(raw: Path, plan: CapturePlan) -> Path:
    """Where the hands of a capture's first clip are."""
    return raw / "hands" / f"{plan.capture_id}.npz"


def write_hand_files(
    raw: Path, plans: Sequence[CapturePlan], profile: Profile, horizontal_fov_degrees: float = RELEASE_FOV_DEGREES
) -> None:
    """Write the hands of each capture's first clip that are not there yet, in pixels of a profile.

    Raises:
        DwmError: there is no usable OpenGL, or a file cannot be written.
    """
    for plan in plans:
        path = hands_path(raw, plan)
        if path.is_file():
            continue
        times = plan.timestamps_ns[plan.explore_frames :]
        timing = SourceTiming((times - times[0]) / 1e9, SIZE, SIZE, 0)
        window = plan_windows(timing, profile.fps, profile.num_frames, LengthPolicy.PAD_LAST)[0]
        _write_hands(path, plan, window.indices + plan.explore_frames, profile, horizontal_fov_degrees)


def write_recording_hands(
    folder: Path, plan: CapturePlan, profile: Profile, horizontal_fov_degrees: float = RELEASE_FOV_DEGREES
) -> None:
    """Write the hands of a whole recording (`sources.aria_hands`) into a folder, in pixels of a profile.

    Raises:
        DwmError: there is no usable OpenGL, or the file cannot be written.
    """
    path = recording_hands_path(folder, plan.capture_id)
    _write_hands(path, plan, np.arange(plan.num_frames), profile, horizontal_fov_degrees)


def _write_hands(
    path: Path, plan: CapturePlan, frames: npt.NDArray[np.int64], profile: Profile, horizontal_fov_degrees: float
) -> None:
    """Write the hands of some frames of a recording, those that are in the picture."""
    staged = stage_capture(plan)
    intrinsics = intrinsics_from_fov(profile.width, profile.height, horizontal_fov_degrees)
    motion = staged.hands(frames, CameraPath(intrinsics, staged.poses[frames]))
    with MeshRenderer(profile.width, profile.height, samples=4, shadows=False) as renderer:
        shares = renderer.render_hands(motion, intrinsics, len(frames))[1]
    motion.select(np.asarray(shares > 0)).save(path)
