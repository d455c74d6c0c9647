"""A contact sheet for each TRUMANS recording: what its clips look like, on one page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from manifests.dataset import Dataset
from manifests.schema import Clip
from render.video import FitPolicy, Frames, fit_frame, iter_frames
from sources.sheets import CLIPS_A_SHEET, ready_clips, write_sheet

_TILE_WIDTH = 180


def write_recording_sheets(dataset: Dataset, recording_ids: Iterable[str]) -> list[Path]:
    """Draw the first ready clips of each recording that has any, one PNG a recording.

    Raises:
        DwmError: a clip's video cannot be read, or the sheet cannot be written.
    """
    sheets = []
    for recording_id in recording_ids:
        clips = ready_clips(dataset, ds.field("recording_id") == recording_id)
        if not clips:
            continue
        rows = [row for clip in clips[:CLIPS_A_SHEET] for row in _rows(dataset, clip)]
        title = f"{recording_id}: {len(clips)} clips, scene {clips[0].scene_id}"
        sheets.append(write_sheet(dataset, recording_id, rows, tile_width=_TILE_WIDTH, title=title))
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
