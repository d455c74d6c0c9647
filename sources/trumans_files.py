"""What both TRUMANS layouts share: the motion pickle, object tracks and action text, each checked as it is read.

A fault that makes a file useless is an error that names it. A fault of some frames only takes the clips over these
frames: it comes back as `FrameFault`, beside notes on what a person should look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from manifests.restricted_pickle import read_pickle
from render.rotations import Floats
from sources.trumans import ActionInterval, BodyParameters, FrameFault, TrackedObject, poses_differ

RELEASE_REMEDY = "download it again from the TRUMANS release"

_COLUMNS = {
    "global_orient": 3,
    "body_pose": 63,
    "transl": 3,
    "left_hand_pose": 45,
    "right_hand_pose": 45,
    "jaw_pose": 3,
    "expression": 10,
}
_OPTIONAL = ("jaw_pose", "expression")
_MOTION_SPAN = 15
"""An object is in motion around two frames this far apart (half a second) whose poses differ."""


@dataclass(frozen=True)
class CheckedTrack:
    """An object with a pose for every frame of the motion, and what is wrong with it."""

    tracked: TrackedObject
    faults: tuple[FrameFault, ...]
    notes: tuple[str, ...]


def read_motion(path: Path, *, remedy: str = RELEASE_REMEDY) -> tuple[BodyParameters, list[str]]:
    """Read a ``*_smplx_results.pkl`` and note what it lacks.

    Raises:
        DwmError: the file is missing, refused, or its arrays have other names or shapes.
    """
    content = read_pickle(path, remedy=remedy)
    if not isinstance(content, Mapping):
        raise DwmError(f"{path}: holds a {type(content).__name__}, not SMPL-X arrays by name; {remedy}")
    return body_from_arrays(content, str(path), remedy=remedy)


def body_from_arrays(arrays: Mapping[str, Any], where: str, *, remedy: str) -> tuple[BodyParameters, list[str]]:
    """Check SMPL-X arrays by name, [T,...] each, and note what they lack.

    Raises:
        DwmError: an array is missing, has another number of frames or columns, or holds no numbers.
    """
    missing = [name for name in _COLUMNS if name not in arrays and name not in _OPTIONAL]
    if missing:
        raise DwmError(f"{where}: lacks {', '.join(missing)}; {remedy}")
    num_frames = len(_numbers(arrays["transl"], "transl", where, remedy))
    checked: dict[str, Floats] = {}
    notes = []
    for name, columns in _COLUMNS.items():
        if name not in arrays:
            checked[name] = np.zeros((num_frames, columns))
            notes.append(f"the motion has no {name}; zeros are used")
            continue
        values = _numbers(arrays[name], name, where, remedy)
        if values.shape != (num_frames, columns):
            hint = " (principal components of the hand are not supported)" if "hand" in name else ""
            raise DwmError(
                f"{where}: {name} has shape {values.shape}, not {(num_frames, columns)} as transl's "
                f"{num_frames} frames need{hint}; {remedy}"
            )
        checked[name] = values
    if not num_frames:
        raise DwmError(f"{where}: holds no frames; {remedy}")
    return BodyParameters(betas=_shape_coefficients(arrays.get("betas", ()), where, remedy), **checked), notes


def body_faults(body: BodyParameters, where: str) -> list[FrameFault]:
    """Frames whose pose or place is not a finite number."""
    broken = np.zeros(body.num_frames, dtype=np.bool_)
    for name in _COLUMNS:
        broken |= ~np.isfinite(getattr(body, name)).all(axis=1)
    return faults_of_frames(np.flatnonzero(broken), f"no finite body pose in {where}")


def check_track(name: str, poses: Floats, mesh_path: Path | None, num_frames: int, path: Path) -> CheckedTrack:
    """Fit an object's poses to the length of the motion and find the frames that cannot be shown.

    Args:
        name: name of the object.
        poses: [N,4,4] world-from-object.
        mesh_path: its mesh, or None when the data has none.
        num_frames: length of the motion.
        path: the file of the poses, for messages.

    Raises:
        DwmError: a pose is not an affine matrix with the last row 0 0 0 1 (a transposed one, for example).
    """
    finite = np.isfinite(poses).all(axis=(1, 2))
    if not np.allclose(poses[finite, 3], (0.0, 0.0, 0.0, 1.0), atol=1e-6):
        frame = int(np.flatnonzero(finite)[~np.isclose(poses[finite, 3], (0, 0, 0, 1), atol=1e-6).all(axis=1)][0])
        raise DwmError(
            f"{path}: the pose of '{name}' in frame {frame} has the last row {poses[frame, 3].tolist()}, not 0 0 0 1; "
            "write world-from-object matrices for column vectors"
        )
    where = short_name(path)
    notes: list[str] = []
    faults: list[FrameFault] = []
    fitted = np.full((num_frames, 4, 4), np.nan)
    length = min(len(poses), num_frames)
    fitted[:length] = poses[:length]
    if len(poses) < num_frames:
        reason = f"'{name}' has poses for {len(poses)} of {num_frames} frames in {where}"
        notes.append(reason)
        faults.append(FrameFault(len(poses), num_frames, reason))
    elif len(poses) > num_frames:
        notes.append(f"'{name}' has {len(poses)} poses for {num_frames} frames in {where}; the last ones are left out")
    broken = np.flatnonzero(~np.isfinite(fitted[:length]).all(axis=(1, 2)))
    faults += faults_of_frames(broken, f"no finite pose of '{name}' in {where}")
    tracked = TrackedObject(name, mesh_path, fitted)
    if mesh_path is None:
        notes.append(f"'{name}' has no mesh; it is not drawn")
        faults += faults_of_frames(_frames_in_motion(fitted), f"'{name}' moves but has no mesh")
    return CheckedTrack(tracked, tuple(faults), tuple(notes))


def read_actions(path: Path, num_frames: int) -> tuple[tuple[ActionInterval, ...], list[str]]:
    """Read ``start<tab>end<tab>description`` lines: source frames, the end exclusive, in order of their starts.

    Lines that cannot be used (reversed, beyond the motion, not of this form) are left out with a note; overlapping
    actions are kept with a note.

    Raises:
        DwmError: the file is no text, or none of its lines has this form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DwmError(f"{path}: no such file; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DwmError(
            f"{path}: cannot be read as text; save it as UTF-8, start<tab>end<tab>description a line"
        ) from error
    actions: list[ActionInterval] = []
    notes: list[str] = []
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    malformed = 0
    where = short_name(path)
    for number, line in lines:
        action = _action(line)
        problem = "is not start<tab>end<tab>description" if action is None else _action_problem(action, num_frames)
        malformed += action is None
        if problem or action is None:
            notes.append(f"{where}, line {number}: {problem}; left out")
        else:
            actions.append(ActionInterval(max(action.start, 0), min(action.end, num_frames), action.text))
    if lines and malformed == len(lines):
        raise DwmError(f"{path}: no line has the form start<tab>end<tab>description; {RELEASE_REMEDY}")
    actions.sort(key=lambda action: (action.start, action.end))
    if actions:
        longest = actions[0]
        for action in actions[1:]:
            if action.start < longest.end:
                notes.append(
                    f"{where}: '{action.text}' starts at frame {action.start}, "
                    f"before '{longest.text}' ends at {longest.end}"
                )
            longest = max(longest, action, key=lambda each: each.end)
    return tuple(actions), notes


def short_name(path: Path) -> str:
    """A file's name with its folder's, for notes and reasons: these do not depend on where the data lies."""
    return f"{path.parent.name}/{path.name}"


def faults_of_frames(frames: Iterable[int], reason: str) -> list[FrameFault]:
    """Group single frames to the fewest intervals, each with the same reason."""
    numbers = np.unique(np.fromiter(frames, dtype=np.int64))
    if not len(numbers):
        return []
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return [FrameFault(int(run[0]), int(run[-1]) + 1, reason) for run in runs]


def _numbers(values: Any, name: str, where: str, remedy: str) -> Floats:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DwmError(f"{where}: {name} holds no plain array of numbers; {remedy}") from error
    if array.ndim == 0:
        raise DwmError(f"{where}: {name} is a single value, not one a frame; {remedy}")
    return array


def _shape_coefficients(values: Any, where: str, remedy: str) -> Floats:
    """Shape [B]: released files have none, [B], [1,B] or the same ones for each frame [T,B]."""
    betas = _numbers(values, "betas", where, remedy)
    if betas.size == 0:
        return np.zeros(0)
    betas = betas.reshape(-1, betas.shape[-1])
    if not np.isfinite(betas[0]).all():
        raise DwmError(f"{where}: betas are not finite numbers ({betas[0].tolist()}); {remedy}")
    result: Floats = betas[0].copy()
    return result


def _frames_in_motion(poses: Floats) -> npt.NDArray[np.int64]:
    """Frames within half a second that ends in another pose than it starts with."""
    span = min(_MOTION_SPAN, len(poses) - 1)
    starts = np.flatnonzero(poses_differ(poses[span:], poses[: len(poses) - span]))
    result: npt.NDArray[np.int64] = np.unique(starts[:, None] + np.arange(span + 1))
    return result


def _action(line: str) -> ActionInterval | None:
    parts = line.split("\t", 2)
    if len(parts) < 3 or not parts[2].strip():
        return None
    try:
        return ActionInterval(int(parts[0]), int(parts[1]), " ".join(parts[2].split()))
    except ValueError:
        return None


def _action_problem(action: ActionInterval, num_frames: int) -> str | None:
    if action.end <= action.start:
        return f"'{action.text}' ends at frame {action.end}, not after its start at {action.start}"
    if action.end <= 0 or action.start >= num_frames:
        return f"'{action.text}' lies at frames {action.start} to {action.end}, outside the motion's {num_frames}"
    return None
