"""What the safetensors library says of a disk that refuses a file, said as Python says it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)")


@contextmanager
def safetensors_errors_as_os_errors() -> Iterator[None]:
    """Turn a failed write of safetensors, which tells the system's error in words only, into an `OSError`.

    Used inside `manifests.atomic.atomic_folder`, which explains that to the user.

    Raises:
        OSError: the disk is full, the folder is read-only, or the like.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = _ERROR_NUMBER.search(str(error))
        if found is None:
            raise
        number = int(found.group(1))
        raise OSError(number, os.strerror(number)) from error
