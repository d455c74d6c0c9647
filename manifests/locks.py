"""Locks between processes: files under ``flock``, which the kernel frees when their process ends."""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from manifests.atomic import explain_os_error
from manifests.errors import DwmError

_RETRY_S = 0.1


@contextmanager
def exclusive_lock(path: Path, *, patience_s: float = math.inf, busy: str = "") -> Iterator[None]:
    """Hold a lock file alone; waits for all other holders. The file and its folder are made, and stay.

    Args:
        path: The lock file.
        patience_s: How long to wait, seconds.
        busy: Message of the error after that.

    Raises:
        DwmError: the lock file cannot be written, or others held it for too long.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise explain_os_error(error, path) from error
    try:
        if math.isinf(patience_s):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            _lock_within(descriptor, patience_s, busy or f"{path}: another process holds this lock; wait for it")
        yield
    finally:
        os.close(descriptor)


def _lock_within(descriptor: int, patience_s: float, busy: str) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise DwmError(busy) from error
            time.sleep(_RETRY_S)
        else:
            return


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
