"""A contact sheet for each TRUMANS recording: what its clips look like, on one page."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from manifests.atomic import write_bytes
from manifests.dataset import Dataset
from manifests.schema import Clip, ClipStatus
from render.contact_sheet import contact_sheet, encode_png
from render.video import FitPolicy, Frames, fit_frame, iter_frames

SHEETS_FOLDER = "contact_sheets"
"""Folder in the dataset, one PNG a recording."""

_CLIPS = 3
_COLUMNS = 6
_TILE_WIDTH = 180


def write_recording_sheets(dataset: Dataset, recording_ids: Iterable[str]) -> list[Path]:
    """Draw the first ready clips of each recording that has any, one PNG a recording.

    Raises:
        DwmError: a clip's video cannot be read, or the sheet cannot be written.
    """
    sheets = []
    for recording_id in recording_ids:
        chosen = (ds.field("recording_id") == recording_id) & (ds.field("status") == ClipStatus.READY.value)
        clips = sorted(dataset.clips.rows(where=chosen), key=lambda clip: clip.start_frame)
        if not clips:
            continue
        rows = [row for clip in islice(clips, _CLIPS) for row in _rows(dataset, clip)]
        title = f"{recording_id}: {len(clips)} clips, scene {clips[0].scene_id}"
        path = dataset.root / SHEETS_FOLDER / f"{recording_id}.png"
        image = contact_sheet(rows, columns=_COLUMNS, tile_width=_TILE_WIDTH, title=title)
        write_bytes(path, encode_png(image))
        sheets.append(path)
    return sheets


def _rows(dataset: Dataset, clip: Clip) -> list[tuple[str, Frames]]:
    paths = {"interaction": clip.interaction_path, "static": clip.static_path, "hands": clip.hands_path}
    return [
        (f"{name} from {clip.start_frame}", _small_frames(dataset.absolute(path)))
        for name, path in paths.items()
        if path is not None
    ]


def _small_frames(path: Path) -> Frames:
    """A video at the sheet's size, reduced while it is read: whole clips would take more memory than drawing them."""
    return np.stack([_reduced(frame) for frame in iter_frames(path)])


def _reduced(frame: Frames) -> Frames:
    height, width = frame.shape[:2]
    return fit_frame(frame, _TILE_WIDTH, round(height * _TILE_WIDTH / width), FitPolicy.STRETCH)
