"""Export of a dataset to the official folder layout: imported clips come back with their original bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field

from manifests.atomic import copy_file, write_bytes
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus, Source, Split
from sources.official_clip import read_prompt, stored_name
from sources.official_layout import (
    METADATA_FOLDER,
    PROMPT_FOLDERS,
    SIDECAR_FOLDERS,
    VIDEO_FOLDERS,
    ClipMetadata,
    check_official_path,
    list_entry,
    natural_key,
)


class ListReport(BaseModel):
    """One list file of an export."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="File name.")
    listed: int = Field(description="Clips that the list names.")
    exported: int = Field(description="Clips of it that were exported; the written list names these.")


class ExportReport(BaseModel):
    """What an export wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: int = Field(description="Clips written.")
    files: int = Field(description="Files of clips, without lists.")
    left_out: int = Field(description="Clips of the dataset that the filter left out.")
    lists: tuple[ListReport, ...] = Field(description="List files.")

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [f"{self.clips} clips in {self.files} files, {self.left_out} clips left out"]
        return lines + [f"{one.name}: {one.exported} of {one.listed} listed clips" for one in self.lists]


def export_official(dataset: Dataset, out: Path, where: ds.Expression | None = None) -> ExportReport:
    """Write clips in the official layout: videos, prompts, sidecars and list files.

    Imported clips go to their official path with their original bytes; others to
    ``<source>/<scene>/<recording>/videos/<clip_id>.mp4`` with a ``metadata`` file. Imported lists are written byte for
    byte when all their clips are exported, else without the lines of the others. A dataset with splits and without
    imported lists gets one list a split. Existing equal files are left, so that a killed export continues.

    Args:
        dataset: The dataset.
        out: Folder to write to; a file there with other content is never overwritten.
        where: Which clips; those that are ready when None.

    Raises:
        DwmError: no clip fits, two clips have one path, a file of a clip is missing, or ``out`` holds other content.
    """
    ready = ds.field("status") == ClipStatus.READY.value
    clips = list(dataset.clips.rows(where=ready if where is None else where))
    if not clips:
        raise DwmError(f"{dataset.root}: no clip to export; see `dwm check` for what is wrong with them")
    paths = _destinations(clips)
    files = [pair for clip in clips for pair in _clip_files(dataset, clip, paths[clip.clip_id])]
    for relative, content in files:
        _write(out / relative, content)
    return ExportReport(
        clips=len(clips),
        files=len(files),
        left_out=dataset.clips.count() - len(clips),
        lists=_write_lists(dataset, out, clips, paths),
    )


def _destinations(clips: Sequence[Clip]) -> dict[str, PurePosixPath]:
    """Official path of every clip, by id."""
    taken: dict[str, Clip] = {}
    result: dict[str, PurePosixPath] = {}
    for clip in clips:
        path = clip.official_path or _made_up_path(clip)
        check_official_path(path, f"clip {clip.clip_id}")
        key = str(PurePosixPath(path).with_suffix(""))
        other = taken.setdefault(key, clip)
        if other is not clip:
            raise DwmError(
                f"{path}: clips {other.clip_id} and {clip.clip_id} would both be written there; "
                "export them to different folders with a filter"
            )
        result[clip.clip_id] = PurePosixPath(path)
    return result


def _made_up_path(clip: Clip) -> str:
    scene, recording = (
        "/".join(part for part in PurePosixPath(name).parts if part not in ("/", "..")) or "unknown"
        for name in (clip.scene_id, clip.recording_id)
    )
    return f"{clip.source.value}/{scene}/{recording}/videos/{clip.clip_id}.mp4"


def _clip_files(dataset: Dataset, clip: Clip, path: PurePosixPath) -> list[tuple[PurePosixPath, Path | bytes]]:
    """Files to write for a clip: relative path, and the file to copy or the bytes."""
    sample, stem = path.parent.parent, path.stem
    files: list[tuple[PurePosixPath, Path | bytes]] = []
    for role, folder in {**VIDEO_FOLDERS, **SIDECAR_FOLDERS}.items():
        relative = getattr(clip, f"{role}_path")
        if relative is None:
            continue
        stored = dataset.absolute(relative)
        if not stored.is_file():
            raise DwmError(f"{stored}: file of clip {clip.clip_id} is missing; build the clip again, see `dwm check`")
        files.append((sample / folder / f"{stem}{stored.suffix}", stored))
    clip_folder = dataset.clip_folder(clip.source, clip.clip_id)
    files.extend((sample / folder / f"{stem}.txt", text) for folder, text in _prompts(clip, clip_folder).items())
    if "metadata" in clip.input_hashes and clip.official_path is not None:
        files.append((sample / METADATA_FOLDER / f"{stem}.json", clip_folder / stored_name("metadata")))
    elif clip.source is not Source.OFFICIAL:
        values = {name: getattr(clip, name) for name in ClipMetadata.model_fields}
        text = ClipMetadata(**values).model_dump_json(indent=2, exclude_none=True) + "\n"
        files.append((sample / METADATA_FOLDER / f"{stem}.json", text.encode()))
    return files


def _prompts(clip: Clip, clip_folder: Path) -> dict[str, Path | bytes]:
    """Prompt files by folder: the imported ones, unless the clip has got another prompt since."""
    imported = clip.official_path is not None
    stored = {
        folder: clip_folder / stored_name(folder)
        for folder in PROMPT_FOLDERS
        if imported and folder in clip.input_hashes
    }
    result: dict[str, Path | bytes] = dict(stored)
    origin = stored.get(clip.prompt_origin or "")
    if clip.prompt and (origin is None or read_prompt(origin) != clip.prompt):
        result[PROMPT_FOLDERS[0]] = clip.prompt.encode()
    return result


def _write(target: Path, content: Path | bytes) -> None:
    """Write a file once: one that is there with the same content stays.

    Raises:
        DwmError: it is there with other content.
    """
    if target.is_file():
        expected = content if isinstance(content, bytes) else content.read_bytes()
        if target.read_bytes() != expected:
            raise DwmError(f"{target}: exists with other content; export to an empty folder")
    elif isinstance(content, bytes):
        write_bytes(target, content)
    else:
        copy_file(content, target)


def _write_lists(
    dataset: Dataset, out: Path, clips: Sequence[Clip], paths: dict[str, PurePosixPath]
) -> tuple[ListReport, ...]:
    exported = {str(path) for path in paths.values()}
    sources = sorted(dataset.lists_folder.glob("*")) if dataset.lists_folder.is_dir() else []
    if not sources:
        return _write_split_lists(out, clips, paths)
    reports = []
    for source in sources:
        lines = source.read_bytes().splitlines(keepends=True)
        entries = [list_entry(line.decode("utf-8-sig")) for line in lines]
        listed = {entry for entry in entries if entry is not None}
        kept = [line for line, entry in zip(lines, entries, strict=True) if entry is None or entry in exported]
        count = len(listed & exported)
        if count:
            _write(out / source.name, b"".join(kept))
        reports.append(ListReport(name=source.name, listed=len(listed), exported=count))
    return tuple(reports)


def _write_split_lists(out: Path, clips: Sequence[Clip], paths: dict[str, PurePosixPath]) -> tuple[ListReport, ...]:
    """One list a split, for datasets that were not imported from lists."""
    reports = []
    for split in Split:
        lines = sorted((str(paths[clip.clip_id]) for clip in clips if clip.split is split), key=natural_key)
        if lines:
            name = f"{split.value}.txt"
            _write(out / name, "".join(f"{line}\n" for line in lines).encode())
            reports.append(ListReport(name=name, listed=len(lines), exported=len(lines)))
    return tuple(reports)
