"""projectaria-tools, imported when it is needed and kept quiet: its C++ parts log to the terminal as they like."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from manifests.errors import DwmError

_LOGGER = logging.getLogger(__name__)
_LOCK = threading.RLock()
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_STANDARD_STREAMS = (1, 2)


def load_projectaria(name: str) -> ModuleType:
    """A module of `projectaria_tools.core`, such as ``data_provider``.

    Raises:
        DwmError: the package is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"projectaria_tools.core.{name}")
    except ImportError as error:
        raise DwmError(
            f"projectaria-tools: cannot be imported ({error}); it reads Aria recordings: install it with "
            "`pip install --no-deps projectaria-tools==2.3.0` (13 MB; the extra `aria` also pulls a viewer of 1 GB)"
        ) from error


@dataclass
class NativeOutput:
    """What the C++ code printed, known when the block that caught it has ended."""

    text: str = ""

    def complaint(self) -> str:
        """Its last line that tells of an error; empty when none does."""
        lines = [line.strip() for line in self.text.splitlines()]
        errors = [line for line in lines if line and re.search(r"ERROR|fail|can.?t|can not", line, re.IGNORECASE)]
        return re.sub(r"^(\[[^\]]*\])+:?\s*", "", errors[-1]) if errors else ""


@contextmanager
def native_output() -> Iterator[NativeOutput]:
    """Catch what code outside of Python prints to the terminal; it goes to the log at level DEBUG.

    The process' streams are turned aside for as long as the block lasts, so keep it to the calls that print.
    """
    caught = NativeOutput()
    with _LOCK, tempfile.TemporaryFile() as file:
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [os.dup(stream) for stream in _STANDARD_STREAMS]
        try:
            for stream in _STANDARD_STREAMS:
                os.dup2(file.fileno(), stream)
            yield caught
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, copy in zip(_STANDARD_STREAMS, kept, strict=True):
                os.dup2(copy, stream)
                os.close(copy)
            file.seek(0)
            caught.text = _COLOURS.sub("", file.read().decode(errors="replace"))
            if caught.text:
                _LOGGER.debug("projectaria-tools: %s", caught.text.strip())
