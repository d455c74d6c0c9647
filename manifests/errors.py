"""The exceptions that users are meant to read."""

from __future__ import annotations

from typing import ClassVar


class DwmError(Exception):
    """A problem that the user can mend: one line that names the file, the value and the remedy.

    The command line prints the message without a traceback (``--debug`` shows it) and exits with ``exit_code``.
    """

    exit_code: ClassVar[int] = 1
    """1: the data or the machine has a problem."""


class UsageError(DwmError):
    """The command or a setting was given a value that it cannot take."""

    exit_code: ClassVar[int] = 2
