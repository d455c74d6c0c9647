"""Checks of a dataset that need no media: rows, files, hashes, leftovers and leaks between splits."""

from __future__ import annotations

from dataclasses import dataclass


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
