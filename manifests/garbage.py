"""Garbage: files of a dataset that no row refers to."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from manifests.atomic import explain_os_error
from manifests.dataset import Dataset
from manifests.dataset_files import DatasetFile, files_under, named_files, shard_clip_ids
from manifests.schema import Run, RunStatus


@dataclass(frozen=True, kw_only=True)
class GarbageItem:
    """A file or folder that can go.

    Attributes:
        path: Relative to the dataset folder; ``../<run>/...`` for a run beside it.
        size: Bytes, of a folder with all it holds.
        reason: Why nothing needs it.
    """

    path: str
    size: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class GarbageReport:
    """What `collect` found.

    Attributes:
        items: What can go, sorted by path.
        kept_recent: Number of items that were left because they changed a moment ago: a running process may need them.
        removed: Whether the items were removed.
    """

    items: tuple[GarbageItem, ...]
    kept_recent: int
    removed: bool

    @property
    def size(self) -> int:
        """Bytes of all items."""
        return sum(item.size for item in self.items)


def collect(dataset: Dataset, *, dry_run: bool = True, min_age_s: float = 3600.0) -> GarbageReport:
    """Find, and unless ``dry_run`` remove, what no row refers to.

    That is: folders of clips that are not in the manifest, other files in clip folders that no row names, generated
    videos without a row, latent shards none of whose clips exist, checkpoints that the rows of a finished run do
    not name, and unfinished files of killed processes.

    Args:
        dataset: The dataset.
        dry_run: Only list.
        min_age_s: Leave what changed in the last so many seconds: a clip's files are written before its row.

    Raises:
        DwmError: the manifest cannot be read (nothing is removed then), or a file cannot be removed.
    """
    known_clips = dataset.clips.keys()
    named = named_files(dataset)
    found: dict[tuple[str, str], list[DatasetFile]] = defaultdict(list)
    for file in files_under(dataset):
        if file.path not in named:
            entry = _garbage_entry(dataset, file, known_clips)
            if entry is not None:
                found[entry].append(file)
    for path, files in _unnamed_checkpoints(dataset):
        found[path, "a checkpoint that its run does not name"] = files
    newest_allowed = time.time() - min_age_s
    old = {entry: files for entry, files in found.items() if max(f.modified_at for f in files) <= newest_allowed}
    items = tuple(
        GarbageItem(path=path, size=sum(file.size for file in files), reason=reason)
        for (path, reason), files in sorted(old.items())
    )
    if not dry_run:
        for item in items:
            _remove(dataset, item.path)
    return GarbageReport(items=items, kept_recent=len(found) - len(old), removed=not dry_run)


def _garbage_entry(dataset: Dataset, file: DatasetFile, known_clips: set[str]) -> tuple[str, str] | None:
    """The path to remove and the reason, for a file that no row names; None when it is to stay."""
    if file.unfinished is not None:
        return file.unfinished, "unfinished, left by a killed process"
    parts = PurePosixPath(file.path).parts
    if parts[0] == "clips":
        if len(parts) > 3 and parts[2] not in known_clips:
            return "/".join(parts[:3]), "no such clip in the manifest"
        return file.path, "no row names it"
    if parts[0] == "generations":
        return file.path, "no generation has it"
    if parts[0] == "latents" and parts[-1].startswith("shard-") and parts[-1].endswith(".safetensors"):
        return _shard_entry(dataset, file, known_clips)
    return None


def _shard_entry(dataset: Dataset, file: DatasetFile, known_clips: set[str]) -> tuple[str, str] | None:
    try:
        clip_ids = shard_clip_ids(dataset.absolute(file.path))
    except ValueError:
        return file.path, "damaged latent shard"
    if clip_ids and clip_ids.isdisjoint(known_clips):
        return file.path, "latents of clips that are no longer in the manifest"
    return None


def _unnamed_checkpoints(dataset: Dataset) -> Iterator[tuple[str, list[DatasetFile]]]:
    """Folders of checkpoints, with their files, of runs that have ended and whose rows name others."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in dataset.runs.rows():
        runs[run.run_path].append(run)
    for run_path, rows in sorted(runs.items()):
        if any(run.status is RunStatus.RUNNING for run in rows):
            continue
        named = {step for run in rows for step in run.checkpoints}
        for folder in sorted(dataset.absolute(f"{run_path}/checkpoints").glob("step-*")):
            number = folder.name.removeprefix("step-")
            files = [file for file in folder.rglob("*") if file.is_file()]
            if files and number.isdecimal() and int(number) not in named:
                path = f"{run_path}/checkpoints/{folder.name}"
                yield path, [_file_in(folder, path, file) for file in files]


def _file_in(folder: Path, path: str, file: Path) -> DatasetFile:
    status = file.stat()
    name = f"{path}/{file.relative_to(folder).as_posix()}"
    return DatasetFile(path=name, size=status.st_size, modified_at=status.st_mtime)


def _remove(dataset: Dataset, path: str) -> None:
    target = dataset.absolute(path)
    try:
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, target) from error
