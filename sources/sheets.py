"""What the contact sheets of all sources share: which clips are shown, how large, and where the PNG lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.dataset as ds

from manifests.atomic import write_bytes
from manifests.dataset import Dataset
from manifests.schema import Clip, ClipStatus
from render.contact_sheet import contact_sheet, encode_png
from render.video import Frames

SHEETS_FOLDER = "contact_sheets"
"""Folder in the dataset, one PNG a sheet."""

CLIPS_A_SHEET = 3
"""The first clips are shown."""

_COLUMNS = 6


def ready_clips(dataset: Dataset, where: ds.Expression) -> list[Clip]:
    """The ready clips of a sheet, in the order of their recordings and times."""
    ready = where & (ds.field("status") == ClipStatus.READY.value)
    return sorted(dataset.clips.rows(where=ready), key=lambda clip: (clip.recording_id, clip.start_frame))


def write_sheet(
    dataset: Dataset, name: str, rows: Sequence[tuple[str, Frames]], *, tile_width: int, title: str
) -> Path:
    """Draw rows of a label and frames [T, H, W, 3] and write ``<name>.png``; returns the file.

    Raises:
        DwmError: the sheet cannot be written.
    """
    path = dataset.root / SHEETS_FOLDER / f"{name}.png"
    write_bytes(path, encode_png(contact_sheet(rows, columns=_COLUMNS, tile_width=tile_width, title=title)))
    return path


def sheet_name(text: str) -> str:
    """A name of any letters as one of a file."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text)
