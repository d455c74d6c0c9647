"""Writes that are either whole or absent: write aside, fsync, rename."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from manifests.errors import DwmError

TEMPORARY_MARK = ".tmp-"
"""Part of every unfinished file's name; ``dwm gc`` removes leftovers of killed processes."""


def explain_os_error(error: OSError, target: Path) -> DwmError:
    """Turn a failed write of ``target`` into one line with the remedy."""
    if error.errno == errno.ENOSPC:
        return DwmError(f"{target}: the disk is full; free some space and run the same command again, it continues")
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return DwmError(f"{target}: no permission to write here; choose another output folder or change its rights")
    return DwmError(f"{target}: could not be written ({error.strerror}); check the folder and run again")


def make_folder(folder: Path) -> None:
    """Make a folder and its parents unless they are there.

    Raises:
        DwmError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder) from error


def fsync_folder(folder: Path) -> None:
    """Make renames and removals in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it becomes ``target``, on failure it is removed.

    The temporary name ends with the target's own suffix, so that libraries which choose a format by it (PyAV,
    matplotlib) behave. Missing parent folders are made.

    Raises:
        DwmError: the disk is full, the folder is read-only, or the write failed otherwise.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.stem}{TEMPORARY_MARK}{uuid.uuid4().hex}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise explain_os_error(error, target) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(target: Path, data: bytes) -> None:
    """Write ``data`` to ``target`` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``target`` atomically, newlines unchanged."""
    write_bytes(target, text.encode("utf-8"))


def copy_file(source: Path, target: Path) -> None:
    """Copy ``source`` to ``target`` atomically: a reflink where the disk allows, else a copy, never a hard link."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def is_temporary(path: Path) -> bool:
    """Tell whether ``path`` is an unfinished file of a process that was killed."""
    return TEMPORARY_MARK in path.name


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; on success it becomes ``target``, on failure it is removed.

    Every file is flushed to the disk before the rename, so that a folder under its final name is complete.

    Raises:
        DwmError: ``target`` exists already, the disk is full, the folder is read-only, or the write failed otherwise.
    """
    target = Path(target)
    if target.exists():
        raise DwmError(f"{target}: exists already; remove it or choose another folder")
    temporary = target.with_name(f".{target.name}{TEMPORARY_MARK}{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_dir():
                fsync_folder(path)
            else:
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
        temporary.rename(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise explain_os_error(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
