"""Fixed-camera videos on disk: the layout of the TASTE-Rob release, and any other folder of videos.

TASTE-Rob (Zhao et al., CVPR 2025) is released as ``SingleHand|DoubleHand/<Scene>/<id>.mp4`` with ``captions.xlsx``
beside the two. `docs/fixed_camera.md` says where each assumption comes from. Nothing is decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from manifests.errors import DwmError
from sources.synthetic.marks import is_generated

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
CAPTIONS_FILE = "captions.xlsx"
RELEASE_LICENCE = "TASTE-Rob Terms of Use"
_OFFICIAL_ROOT = "taste_rob"
"""First folder of the paths in the published lists."""


class Subset(StrEnum):
    """Parts of the release."""

    DOUBLE_HAND = "DoubleHand"
    """What the paper's model was trained with."""
    SINGLE_HAND = "SingleHand"
    ALL = "all"


SHEETS = {Subset.DOUBLE_HAND: "Double-Hand", Subset.SINGLE_HAND: "Single-Hand"}
"""Sheet of `captions.xlsx` with the captions of a subset."""


@dataclass(frozen=True)
class FixedVideo:
    """A fixed-camera video.

    Attributes:
        path: relative to the raw folder, with ``/``.
        name: what captions and hand files call it: its id in the release, else its path without suffix.
        subset: part of the release; None for other folders.
        scene_id: scene that it shows: its folder; a video beside no other folder is its own scene.
        recording_id: unique name of the recording.
        official_path: its path in the published lists; None for other folders.
    """

    path: str
    name: str
    subset: Subset | None
    scene_id: str
    recording_id: str
    official_path: str | None


@dataclass(frozen=True)
class FixedCameraFolder:
    """A folder of fixed-camera videos.

    Attributes:
        root: the folder.
        is_release: whether it has the layout of the release.
        is_generated: whether the project's own generator wrote it.
        videos: in natural order.
    """

    root: Path
    is_release: bool
    is_generated: bool
    videos: tuple[FixedVideo, ...]


def open_fixed_camera(raw: Path, subset: Subset = Subset.DOUBLE_HAND) -> FixedCameraFolder:
    """Find the videos of a folder, which may be the release's or any other.

    A folder with a `DoubleHand` or `SingleHand` folder in it is the release, or a part of it; such a folder itself may
    be given, too. Everything else is a plain folder, whose videos are taken at any depth.

    Args:
        raw: the folder.
        subset: part of the release; plain folders have none.

    Raises:
        DwmError: no such folder, no video in it, or archives that are not unpacked.
    """
    raw = raw.resolve()
    if not raw.is_dir():
        raise DwmError(f"{raw}: no such folder; give the folder that holds the videos")
    parts = _release_parts(raw)
    if not parts:
        return FixedCameraFolder(raw, False, is_generated(raw), _plain_videos(raw))
    wanted = [part for part in parts if subset in {part, Subset.ALL}]
    if not wanted:
        found = ", ".join(part.value for part in parts)
        raise DwmError(f"{raw}: has no {subset.value} (only {found}); choose that subset, or 'all'")
    videos = [video for part in wanted for video in _release_videos(raw, parts[part], part)]
    root = raw if raw.name not in set(Subset) else raw.parent
    return FixedCameraFolder(raw, True, is_generated(root), tuple(videos))


def _release_parts(raw: Path) -> dict[Subset, Path]:
    """Folders of the release by subset; none for another folder."""
    subsets = (Subset.DOUBLE_HAND, Subset.SINGLE_HAND)
    if raw.name in subsets:
        return {Subset(raw.name): raw}
    return {subset: raw / subset for subset in subsets if (raw / subset).is_dir()}


def _release_videos(raw: Path, folder: Path, subset: Subset) -> list[FixedVideo]:
    files = _video_files(folder)
    if not files:
        archives = sorted(path.name for path in folder.glob("*.zip"))
        if archives:
            raise DwmError(f"{folder}: holds archives ({', '.join(archives[:3])}) and no video; unpack them there")
        raise DwmError(f"{folder}: holds no video ({', '.join(VIDEO_SUFFIXES)}); check the path")
    videos = []
    for path in files:
        scene = path.relative_to(folder).parts[0] if path.parent != folder else subset.value
        videos.append(
            FixedVideo(
                path=path.relative_to(raw).as_posix(),
                name=path.stem,
                subset=subset,
                scene_id=scene,
                recording_id=f"{subset.value}/{scene}/{path.stem}",
                official_path=f"{_OFFICIAL_ROOT}/{subset.value}/{scene}/videos/{path.stem}.mp4",
            )
        )
    return videos


def _plain_videos(raw: Path) -> tuple[FixedVideo, ...]:
    files = _video_files(raw)
    if not files:
        raise DwmError(f"{raw}: holds no video ({', '.join(VIDEO_SUFFIXES)}); give the folder that holds the videos")
    videos = []
    for path in files:
        relative = PurePosixPath(path.relative_to(raw).as_posix())
        name = relative.with_suffix("").as_posix()
        scene = relative.parent.as_posix() if relative.parent.parts else relative.stem
        videos.append(
            FixedVideo(
                path=relative.as_posix(),
                name=name,
                subset=None,
                scene_id=f"{raw.name}/{scene}",
                recording_id=f"{raw.name}/{name}",
                official_path=None,
            )
        )
    return tuple(videos)


def _video_files(folder: Path) -> list[Path]:
    """Videos below a folder in natural order (2 before 10); hidden files (``._1.mp4`` of archives) are none."""
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(found, key=lambda path: _natural(path.relative_to(folder).parts))


def _natural(parts: Sequence[str]) -> list[list[tuple[int, str]]]:
    return [
        [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", part)] for part in parts
    ]
