"""The one exception that users are meant to read."""

from __future__ import annotations


class DwmError(Exception):
    """A problem that the user can mend: one line that names the file, the value and the remedy.

    The command line prints its message without a traceback (``--debug`` shows it) and exits with code 2 for bad
    usage or code 1 for a problem in the data.
    """
