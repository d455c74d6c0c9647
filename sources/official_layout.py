"""The official folder layout of the paper's data, and which clips a folder or a list file holds.

``<anything>/<sample>/videos/<stem>.mp4`` is a clip's interaction video; beside ``videos`` lie ``videos_static``,
``videos_hands``, ``prompts`` and ``prompts_rewrite``. List files hold one interaction path a line, relative to the raw
root. ``cameras``, ``masks``, ``depth``, ``hand_motion`` and ``metadata`` are this project's own, optional additions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import DwmError
from manifests.hashing import short_id
from manifests.schema import Group, Source

VIDEO_FOLDERS = {"interaction": "videos", "static": "videos_static", "hands": "videos_hands"}
"""Folder of each video of a triplet, by role."""

PROMPT_FOLDERS = ("prompts_rewrite", "prompts")
"""Prompt folders, the preferred one (which the paper trains on) first."""

SIDECAR_FOLDERS = {"camera": "cameras", "masks": "masks", "depth": "depth", "hand_motion": "hand_motion"}
"""Folder of each optional npz, by role; the role is also the column's name without ``_path``."""

METADATA_FOLDER = "metadata"

LATENT_FOLDERS = ("video_latents", "static_video_latents", "hand_video_latents", "prompt_embeds_rewrite")
"""Files that were encoded with somebody's model: never imported, only counted."""

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")

_TASTE_ROB_NAMES = ("taste_rob", "taste-rob", "tasterob", "doublehand", "singlehand")
_GROUP_NAMES = {
    "trumans": Group.SYNTHETIC_DYNAMIC,
    "taste_rob": Group.REAL_STATIC,
    "taste-rob": Group.REAL_STATIC,
    "tasterob": Group.REAL_STATIC,
    "realworld_dynamic": Group.REAL_DYNAMIC,
    "realworld_fixed": Group.REAL_STATIC,
}
_WRAPPERS = re.compile(r"trumans|ego_render.*|taste[_-]?rob|doublehand|singlehand|(dwm_)?realworld.*", re.IGNORECASE)
"""Folder names of the published sets that name neither a scene nor a recording."""


class ClipMetadata(BaseModel):
    """``metadata/<stem>.json``: what this project knows of a clip beyond the official layout. All fields optional."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Source | None = Field(default=None, description="Where the clip comes from; `official` when not given.")
    group: Group | None = Field(default=None, description="Column group of Table 1.")
    scene_id: str | None = Field(default=None, description="Scene that the clip shows.")
    recording_id: str | None = Field(default=None, description="Recording that the clip was cut from.")
    action_label: str | None = Field(default=None, description="Short name of the action.")
    static_policy: str | None = Field(default=None, description="What the static video freezes.")
    hand_estimator: str | None = Field(default=None, description="What made the hand meshes.")
    calibration_source: str | None = Field(default=None, description="Where the camera comes from.")
    body_model: str | None = Field(default=None, description="Body model behind the hands.")
    licence: str | None = Field(default=None, description="Licence of the source data.")
    object_motion_m: float | None = Field(default=None, description="Largest path length of a moved object, metres.")


class ClipRequest(BaseModel):
    """One clip to import."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    raw_root: Path = Field(description="Folder that the official path is relative to.")
    collection: str = Field(description="Name of the raw data; part of the clip's id.")
    official_path: str = Field(description="Path of the interaction video relative to the raw root, with `/`.")
    list_order: int | None = Field(default=None, description="Position (from 0) in its list file.")

    @property
    def clip_id(self) -> str:
        """Id of the clip: the same for the same collection and path, wherever the raw root lies."""
        return short_id("official", self.collection, self.official_path)

    @property
    def stem(self) -> str:
        """File name without suffix, shared by all members of the clip."""
        return PurePosixPath(self.official_path).stem

    @property
    def sample(self) -> Path:
        """Folder that holds ``videos``, ``videos_static``, ..."""
        return self.raw_root / PurePosixPath(self.official_path).parent.parent

    def relative(self, path: Path) -> str:
        """Path relative to the raw root, with ``/``: how messages name files."""
        return path.relative_to(self.raw_root).as_posix()

    def expected(self, folder: str) -> str:
        """Where a member of the clip should be, relative to the raw root."""
        suffix = ".mp4" if folder in VIDEO_FOLDERS.values() else ".txt"
        return self.relative(self.sample / folder / f"{self.stem}{suffix}")

    def member(self, folder: str, suffixes: Sequence[str]) -> Path | None:
        """The clip's file in one of the sample's folders; None when there is none."""
        if folder == VIDEO_FOLDERS["interaction"]:
            suffixes = (PurePosixPath(self.official_path).suffix, *suffixes)
        candidates = (self.sample / folder / f"{self.stem}{suffix}" for suffix in suffixes)
        return next((path for path in candidates if path.is_file()), None)

    def members(self) -> dict[str, Path]:
        """All files of the clip that exist, by role: videos, prompts, sidecars, ``metadata``."""
        wanted = {
            **{role: (folder, VIDEO_SUFFIXES) for role, folder in VIDEO_FOLDERS.items()},
            **{folder: (folder, (".txt",)) for folder in PROMPT_FOLDERS},
            **{role: (folder, (".npz",)) for role, folder in SIDECAR_FOLDERS.items()},
            "metadata": (METADATA_FOLDER, (".json",)),
        }
        found = {role: self.member(folder, suffixes) for role, (folder, suffixes) in wanted.items()}
        return {role: path for role, path in found.items() if path is not None}


def natural_key(text: str) -> list[tuple[int, str]]:
    """Sort key under which ``clip 9`` comes before ``clip 10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def find_official_paths(raw_root: Path) -> list[str]:
    """Official paths of every clip below a folder, in natural order; a clip without interaction video included.

    Raises:
        DwmError: the folder does not exist or holds nothing in the official layout.
    """
    if not raw_root.is_dir():
        raise DwmError(f"{raw_root}: no such folder; give the folder that holds the samples")
    found: set[str] = set()
    for sample in _samples(raw_root, frozenset()):
        stems: dict[str, str] = {}
        for folder in VIDEO_FOLDERS.values():
            for path in _entries(sample / folder):
                if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
                    is_interaction = folder == VIDEO_FOLDERS["interaction"]
                    stems.setdefault(path.stem, path.suffix if is_interaction else ".mp4")
        parent = (sample / VIDEO_FOLDERS["interaction"]).relative_to(raw_root).as_posix()
        found.update(f"{parent}/{stem}{suffix}" for stem, suffix in stems.items())
    if not found:
        raise DwmError(
            f"{raw_root}: no clips in the official layout; looked for <sample>/videos/<stem>.mp4, "
            "<sample>/videos_static/<stem>.mp4 and <sample>/videos_hands/<stem>.mp4 at any depth"
        )
    return sorted(found, key=natural_key)


def count_latent_files(raw_root: Path) -> int:
    """Number of pre-encoded files below a folder."""
    samples = _samples(raw_root, frozenset())
    return sum(len(_entries(sample / folder)) for sample in samples for folder in LATENT_FOLDERS)


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, but for hidden and unfinished files; nothing when there is no such folder."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def _samples(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Folders that hold at least one of the video folders; links are followed, but not in circles."""
    real = folder.resolve()
    if real in above:
        return
    children = [path for path in _entries(folder) if path.is_dir()]
    names = {path.name for path in children}
    if names & set(VIDEO_FOLDERS.values()):
        yield folder
    own = {*VIDEO_FOLDERS.values(), *PROMPT_FOLDERS, *SIDECAR_FOLDERS.values(), *LATENT_FOLDERS, METADATA_FOLDER}
    for child in children:
        if child.name not in own:
            yield from _samples(child, above | {real})


def list_lines(path: Path) -> list[str]:
    """Official paths of a list file in order: blank lines and ``#`` comments are left out, line ends do not matter.

    Raises:
        DwmError: the file is missing or no text, or a line is no ``.../videos/<stem>.mp4`` path below the raw root.
    """
    try:
        text_lines = [line.decode("utf-8-sig") for line in path.read_bytes().splitlines()]
    except FileNotFoundError as error:
        raise DwmError(f"{path}: no such list file; check the path") from error
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise DwmError(f"{path}: no list file; give a text file with one .../videos/<stem>.mp4 path a line") from error
    lines = []
    for number, line in enumerate(text_lines, start=1):
        entry = list_entry(line)
        if entry is not None:
            check_official_path(entry, f"{path}, line {number}")
            lines.append(entry)
    if not lines:
        raise DwmError(f"{path}: names no clips; give a text file with one .../videos/<stem>.mp4 path a line")
    return lines


def list_entry(line: str) -> str | None:
    """The official path on a line of a list file; None for a blank line or a comment."""
    entry = line.strip().removeprefix("./")
    return None if not entry or entry.startswith("#") else entry


def check_official_path(path: str, where: str) -> None:
    """Refuse a path that leads out of its root or is no interaction path.

    Args:
        path: The path.
        where: Where it was found, for the message.

    Raises:
        DwmError: it is absolute, holds ``..`` or does not end in ``videos/<name>.<suffix>``.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise DwmError(f"{where}: '{path}' leads out of the raw folder; use paths relative to it")
    if pure.parent.name != VIDEO_FOLDERS["interaction"] or pure.suffix.lower() not in VIDEO_SUFFIXES:
        raise DwmError(f"{where}: '{path}' is no .../videos/<stem>.mp4 path; mend the line or make it a # comment")


def matches(official_path: str, pattern: str) -> bool:
    """Tell whether a shell pattern (``*``, ``?``) fits the official path or the stem."""
    return fnmatch(official_path, pattern) or fnmatch(PurePosixPath(official_path).stem, pattern)


def scene_and_recording(collection: str, official_path: str) -> tuple[str, str]:
    """Scene and recording that a path names.

    TRUMANS: ``.../<scene>/<recording>/videos/00008.mp4``. TASTE-Rob: ``.../DoubleHand/<scene>/videos/55855.mp4``, each
    video a recording of its own. One other folder above ``videos`` is a scene, each video in it a recording. Without
    any, the stem stands for both.
    """
    path = PurePosixPath(official_path)
    folders = [part for part in path.parent.parent.parts if not _WRAPPERS.fullmatch(part)]
    is_taste_rob = any(part.lower() in _TASTE_ROB_NAMES for part in (collection, *path.parts))
    if not folders:
        return path.stem, path.stem
    if is_taste_rob:
        return folders[-1], path.stem
    if len(folders) == 1:
        return folders[0], f"{folders[0]}/{path.stem}"
    return folders[-2], folders[-1]


def group_of_path(collection: str, official_path: str) -> Group | None:
    """Column group that the published folder names stand for; None when the path holds none of them.

    ``trumans``: synthetic_dynamic; ``taste_rob`` and ``realworld_fixed``: real_static; ``realworld_dynamic``:
    real_dynamic.
    """
    names = (part.lower() for part in (collection, *PurePosixPath(official_path).parts))
    return next((_GROUP_NAMES[name] for name in names if name in _GROUP_NAMES), None)
