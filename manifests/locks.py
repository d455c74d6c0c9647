"""Locks between processes: files under ``flock``, which the kernel frees when their process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from manifests.atomic import explain_os_error


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a lock file alone; waits for all other holders. The file and its folder are made, and stay.

    Raises:
        DwmError: the lock file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise explain_os_error(error, path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared_lock(path: Path) -> Iterator[bool]:
    """Hold a lock file together with other readers; yields whether this process could also write.

    On a read-only folder a lock file that exists is still shared; where there is none, nothing is locked.
    """
    can_write = True
    descriptor: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        can_write = False
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
    try:
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield can_write
    finally:
        if descriptor is not None:
            os.close(descriptor)
