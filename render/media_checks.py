"""Checks of a clip that open its media: what is in the files against each other and against the row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from manifests.check import Problem
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus
from render.arrays import Array, read_npz
from render.triplet import measure_triplet
from render.video import VideoInfo, probe

FPS_TOLERANCE = 0.001
"""Relative difference of frame rates that containers cause by rounding."""

_HAND_ARRAYS = {
    "frame": (None,),
    "is_right": (None,),
    "score": (None,),
    "track_id": (None,),
    "pose": (None, 45),
    "orientation": (None, 3),
    "translation": (None, 3),
    "joints_camera": (None, 21, 3),
    "joints_image": (None, 21, 2),
    "vertices": (None, None, 3),
}
"""Shapes of the arrays of a hand-motion file with one entry a visible hand; None: any length."""

_HAND_CONSTANTS = {"faces_left": (None, 3), "faces_right": (None, 3), "focal_px": ()}


def check_clip_media(dataset_root: Path, clip: Clip) -> list[Problem]:
    """Open every file of a clip that is ready or conditions-only.

    Errors: a file does not decode, counts, sizes or rates disagree with each other or with the row, an npz lacks
    an array or has other shapes than ``manifests/schema.py`` documents. Flags: an empty hand video, a time offset.
    """
    if clip.status not in (ClipStatus.READY, ClipStatus.CONDITIONS_ONLY):
        return []
    problems: list[Problem] = []
    videos: dict[str, VideoInfo] = {}
    for column in Clip.FILE_COLUMNS:
        relative = getattr(clip, column)
        if relative is None:
            continue
        try:
            if column in Clip.MEDIA_COLUMNS:
                videos[column] = probe(dataset_root / relative)
            else:
                check_sidecar(column, dataset_root / relative, clip.num_frames, clip.width, clip.height)
        except DwmError as error:
            code = "unreadable-video" if column in Clip.MEDIA_COLUMNS else "wrong-sidecar"
            problems.append(Problem(code=code, message=str(error), clip_id=clip.clip_id, path=relative))
    row = VideoInfo(
        width=clip.width, height=clip.height, fps=clip.fps, num_frames=clip.num_frames, codec="", pixel_format=""
    )
    for column, info in videos.items():
        difference = describe_difference(column.removesuffix("_path"), info, "the manifest row", row)
        if difference:
            path = getattr(clip, column)
            message = f"{path}: {difference}; build the clip again"
            problems.append(Problem(code="media-disagrees", message=message, clip_id=clip.clip_id, path=path))
    if not problems:
        problems.extend(_flags(dataset_root, clip))
    return problems


def _flags(dataset_root: Path, clip: Clip) -> list[Problem]:
    """Reasons to look at a clip whose files are sound."""
    if clip.static_path is None or clip.hands_path is None:
        return []
    interaction = dataset_root / clip.interaction_path if clip.interaction_path else None
    measures = measure_triplet(interaction, dataset_root / clip.static_path, dataset_root / clip.hands_path)
    return [
        Problem(
            code=flag.split(":", 1)[0].replace("_", "-"),
            message=f"clip {clip.clip_id}: {flag.split(': ', 1)[1]}; look at it",
            clip_id=clip.clip_id,
            is_error=False,
        )
        for flag in measures.flags
    ]


def describe_difference(name: str, info: VideoInfo, other_name: str, other: VideoInfo) -> str | None:
    """One line with both figures where two videos differ in frames, size or rate; None where they agree."""
    if info.num_frames != other.num_frames:
        return f"{name} has {info.num_frames} frames, {other_name} has {other.num_frames}"
    if (info.width, info.height) != (other.width, other.height):
        return f"{name} is {info.width}x{info.height}, {other_name} is {other.width}x{other.height}"
    if abs(info.fps - other.fps) > FPS_TOLERANCE * max(info.fps, other.fps):
        return f"{name} has {info.fps:g} frames a second, {other_name} has {other.fps:g}"
    return None


def check_sidecar(column: str, path: Path, num_frames: int, width: int, height: int) -> None:
    """Open an npz of a clip and compare its arrays with the documented shapes.

    Args:
        column: Column of the clips table that names the file, such as ``camera_path``.
        path: The file.
        num_frames: Frames of the clip's videos.
        width: Their width, pixels.
        height: Their height, pixels.

    Raises:
        DwmError: no plain numpy archive, an array is missing, or a shape differs.
    """
    picture = (num_frames, height, width)
    if column == "camera_path":
        expected: Mapping[str, tuple[int | None, ...]] = {
            "intrinsics": (3, 3),
            "world_from_camera": (num_frames, 4, 4),
        }
    elif column == "masks_path":
        expected = {"ids": picture}
    elif column == "depth_path":
        expected = {"depth": picture}
    else:
        expected = {**_HAND_ARRAYS, **_HAND_CONSTANTS}
    arrays = read_npz(path, expected)
    for name, shape in expected.items():
        if not _fits(arrays[name].shape, shape):
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            raise DwmError(f"{path}: {name} has shape {arrays[name].shape}, expected ({wanted}); make the file again")
    if column == "hand_motion_path":
        _check_hand_entries(path, arrays, num_frames)


def _check_hand_entries(path: Path, arrays: Mapping[str, Array], num_frames: int) -> None:
    counts = {name: len(arrays[name]) for name in _HAND_ARRAYS}
    if len(set(counts.values())) > 1:
        name = next(name for name in counts if counts[name] != counts["frame"])
        raise DwmError(
            f"{path}: {name} has {counts[name]} entries and frame has {counts['frame']}; make the file again"
        )
    frames = np.asarray(arrays["frame"], np.int64)
    if frames.size and not (frames.min() >= 0 and frames.max() < num_frames):
        raise DwmError(
            f"{path}: names frames {frames.min()} to {frames.max()}, the videos have {num_frames}; make the file again"
        )


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (None, length) for length, wanted in zip(shape, expected, strict=True)
    )
