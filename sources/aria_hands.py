"""Hands of a whole recording from a file: in the exploration, where the interaction begins, in the clips.

``<capture>.recording.npz`` in the folder of hand files has the format of a clip's hand motion (`HandMotion.save`), but
its frames are colour frames of the recording; pixels and focal length are those of the clips.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from render.hand_estimation.estimator import HandVideo
from render.hand_estimation.motion_files import check_motion
from render.hands import HandMotion
from sources.aria import AriaCapture
from sources.aria_settings import AriaSettings

RECORDING_SUFFIX = ".recording.npz"


def recording_hands_path(folder: Path, capture_id: str) -> Path:
    """Where the hands of a whole recording lie: by the capture's name, else by its last part alone."""
    own = folder / f"{capture_id}{RECORDING_SUFFIX}"
    return own if own.is_file() else folder / f"{Path(capture_id).name}{RECORDING_SUFFIX}"


def recording_hands(capture: AriaCapture, settings: AriaSettings) -> HandMotion | None:
    """The hands of a recording; None where hands come from elsewhere or there is no such file.

    Raises:
        DwmError: the file is broken or does not fit the recording.
    """
    folder = settings.hands.files
    if settings.hands.estimator != "file" or folder is None:
        return None
    path = recording_hands_path(folder, capture.files.capture_id)
    if not path.is_file():
        return None
    motion = HandMotion.load(path)
    shape = (len(capture.recording), settings.profile.height, settings.profile.width, 3)
    nothing = np.broadcast_to(np.uint8(0), shape)  # the checks look at sizes only
    focal = float(settings.clip_intrinsics()[0, 0])
    check_motion(motion, HandVideo(capture.files.capture_id, nothing, 1.0, focal_px=focal), path)
    return motion


def hands_in(motion: HandMotion, frames: npt.NDArray[np.int64]) -> HandMotion:
    """The hands of some frames [n] (one may come twice), numbered from 0 by their place among these."""
    entries = [np.flatnonzero(motion.frame == frame) for frame in frames]
    chosen = np.concatenate([*entries, np.zeros(0, np.int64)]).astype(np.int64)
    places = np.repeat(np.arange(len(frames)), [len(each) for each in entries])
    return replace(motion.select(chosen), frame=places)
