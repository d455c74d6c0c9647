"""Checks of a dataset that need no media: rows, files, hashes, leftovers and leaks between splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from manifests.columns import NewerSchemaError, read_part_schema
from manifests.dataset import Dataset, leaves_folder
from manifests.dataset_files import DatasetFile, files_under, named_files
from manifests.errors import DwmError
from manifests.hashing import hash_file
from manifests.schema import Clip, ClipStatus, GenerationStatus
from manifests.splits import declared_splits, leak_report


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that a check found.

    Attributes:
        code: Short stable name of the kind of problem, such as ``missing-file``.
        message: One line that names the file, the value and the remedy.
        clip_id: Clip that it concerns; None when it concerns the dataset or another table.
        path: File that it concerns, relative to the dataset folder; None when it concerns a row only.
        is_error: False for a reason to look (a flag), True for something that must be mended.
    """

    code: str
    message: str
    clip_id: str | None = None
    path: str | None = None
    is_error: bool = True


@dataclass(frozen=True, kw_only=True)
class _ClipFiles:
    """What the checks need of a clip."""

    clip_id: str
    status: str
    reason: str | None
    paths: dict[str, str]
    hashes: dict[str, str]


_REQUIRED: dict[str, tuple[str, ...]] = {
    ClipStatus.READY: ("interaction_path", "static_path", "hands_path"),
    ClipStatus.CONDITIONS_ONLY: ("static_path", "hands_path"),
}


def check_manifest(dataset: Dataset, *, verify_hashes: bool = False) -> list[Problem]:
    """Check everything of a dataset but the media's content.

    Args:
        dataset: The dataset.
        verify_hashes: Also read every file of every clip and compare it with ``output_hashes``.

    Returns:
        Problems, errors first, in a stable order. When a table cannot be read, or not trusted because an id occurs
        twice in it, only that is reported.
    """
    problems = list(_unreadable_parts(dataset)) or list(_duplicate_ids(dataset))
    if not problems:
        files = {file.path: file for file in files_under(dataset)}
        for clip in _read_clips(dataset):
            problems.extend(_check_clip(dataset, clip, files, verify_hashes=verify_hashes))
        problems.extend(_check_generations(dataset, files))
        problems.extend(_leftovers(dataset, files))
        problems.extend(_leaks(dataset))
    return sorted(problems, key=lambda p: (not p.is_error, p.code, p.clip_id or "", p.path or "", p.message))


def _unreadable_parts(dataset: Dataset) -> Iterator[Problem]:
    for table in dataset.tables:
        with table.parts.reading() as paths:
            for path in paths:
                relative = path.relative_to(dataset.root).as_posix()
                try:
                    read_part_schema(path, table.row_class)
                except NewerSchemaError as error:
                    yield Problem(code="newer-schema", message=str(error), path=relative)
                except DwmError as error:
                    yield Problem(code="damaged-table", message=str(error), path=relative)


def _duplicate_ids(dataset: Dataset) -> Iterator[Problem]:
    for table in dataset.tables:
        for key in table.duplicate_keys():
            files = [path.relative_to(dataset.root).as_posix() for path in table.files_with(key)]
            name = table.row_class.table_name
            yield Problem(
                code="duplicate-id",
                message=f"{name}: '{key}' occurs more than once (in {', '.join(files)}); remove the copied file",
                clip_id=key if table.row_class is Clip else None,
                path=files[-1],
            )


def _read_clips(dataset: Dataset) -> Iterator[_ClipFiles]:
    columns = ["clip_id", "status", "reason", "output_hashes", *Clip.FILE_COLUMNS]
    for batch in dataset.clips.read(columns).to_batches():
        for row in batch.to_pylist(maps_as_pydicts="strict"):
            yield _ClipFiles(
                clip_id=row["clip_id"],
                status=row["status"],
                reason=row["reason"],
                paths={column: row[column] for column in Clip.FILE_COLUMNS if row[column] is not None},
                hashes=row["output_hashes"] or {},
            )


def _check_clip(
    dataset: Dataset, clip: _ClipFiles, files: dict[str, DatasetFile], *, verify_hashes: bool
) -> Iterator[Problem]:
    required = _REQUIRED.get(clip.status, ())
    for column in required:
        if column not in clip.paths:
            message = f"clip {clip.clip_id}: status {clip.status}, but no {column}; build it again"
            yield Problem(code="missing-path", message=message, clip_id=clip.clip_id)
    if not required and not clip.reason:
        message = f"clip {clip.clip_id}: status {clip.status} without a reason; build it again"
        yield Problem(code="missing-reason", message=message, clip_id=clip.clip_id)
    for column, path in clip.paths.items():
        problem = _check_file(path, files, f"clip {clip.clip_id}, {column}", clip.clip_id)
        if problem is not None:
            yield problem
        elif verify_hashes and column in clip.hashes and hash_file(dataset.absolute(path)) != clip.hashes[column]:
            message = f"{path}: other bytes than when clip {clip.clip_id} was built ({column}); build it again"
            yield Problem(code="changed-file", message=message, clip_id=clip.clip_id, path=path)


def _check_file(path: str, files: dict[str, DatasetFile], owner: str, clip_id: str | None) -> Problem | None:
    """What is wrong with a file that a row names; None when nothing is."""
    if leaves_folder(path):
        code, message = "outside-path", f"{path}: not inside the dataset folder ({owner}); build it again"
    elif path not in files:
        code, message = "missing-file", f"{path}: does not exist ({owner}); copy it back or build the clip again"
    elif files[path].size == 0:
        code, message = "empty-file", f"{path}: has no bytes ({owner}); copy it back or build the clip again"
    else:
        return None
    return Problem(code=code, message=message, clip_id=clip_id, path=path)


def _check_generations(dataset: Dataset, files: dict[str, DatasetFile]) -> Iterator[Problem]:
    clip_ids = dataset.clips.keys()
    for row in dataset.generations.read(["generation_id", "clip_id", "status", "path"]).to_pylist():
        owner = f"generation {row['generation_id']}"
        if row["clip_id"] not in clip_ids:
            message = f"{owner}: its clip {row['clip_id']} is not in the manifest; delete the row or build the clip"
            yield Problem(code="unknown-clip", message=message, clip_id=row["clip_id"])
        if row["path"] is not None:
            problem = _check_file(row["path"], files, owner, row["clip_id"])
            if problem is not None:
                yield problem
        elif row["status"] == GenerationStatus.READY:
            message = f"{owner}: status ready, but no path; generate it again"
            yield Problem(code="missing-path", message=message, clip_id=row["clip_id"])


def _leftovers(dataset: Dataset, files: dict[str, DatasetFile]) -> Iterator[Problem]:
    named = named_files(dataset)
    unfinished = {file.unfinished for file in files.values() if file.unfinished is not None}
    for path in unfinished:
        message = f"{path}: unfinished, left by a killed or still running process; remove it with `dwm gc`"
        yield Problem(code="unfinished-file", message=message, path=path, is_error=False)
    for path, file in files.items():
        if path.startswith("clips/") and path not in named and file.unfinished is None:
            message = f"{path}: no row names it; remove it with `dwm gc`"
            yield Problem(code="dangling-file", message=message, path=path, is_error=False)


def _leaks(dataset: Dataset) -> Iterator[Problem]:
    declaration = declared_splits(dataset)
    if declaration is None:
        return
    leaks = leak_report(dataset, declaration)
    for leak in leaks.counts:
        if leak.shared:
            is_broken = leak in leaks.exceeded
            verdict = f"forbids that: {leaks.remedy(leak.level)}" if is_broken else "allows that"
            message = (
                f"splits share at level {leak.level.value}: {', '.join(leak.examples)} ({leak.shared} in all, "
                f"{leak.clips} clips); policy {leaks.policy} {verdict}"
            )
            yield Problem(code="split-leak", message=message, is_error=is_broken)
