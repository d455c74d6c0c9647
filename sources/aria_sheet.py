"""A contact sheet for each Aria capture: recording, static render, hands, and the hands laid over the recording."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow.dataset as ds

from manifests.dataset import Dataset
from manifests.schema import Clip
from sources.fixed_camera_sheet import overlay_rows
from sources.sheets import CLIPS_A_SHEET, ready_clips, sheet_name, write_sheet

_TILE_WIDTH = 240


def write_capture_sheets(dataset: Dataset, recording_ids: Iterable[str]) -> list[Path]:
    """Draw the first ready clips of each capture that has any, one PNG a capture in `SHEETS_FOLDER`.

    Args:
        dataset: where the clips are.
        recording_ids: the captures' values of the column ``recording_id``.

    Raises:
        DwmError: a clip's video cannot be read, or the sheet cannot be written.
    """
    sheets = []
    for recording_id in recording_ids:
        clips = ready_clips(dataset, ds.field("recording_id") == recording_id)
        if not clips:
            continue
        shown = clips[:CLIPS_A_SHEET]
        rows = [row for clip in shown for row in overlay_rows(dataset, clip, f"from {clip.start_frame}")]
        name = sheet_name(recording_id)
        sheets.append(write_sheet(dataset, name, rows, tile_width=_TILE_WIDTH, title=_title(clips)))
    return sheets


def _title(clips: list[Clip]) -> str:
    """What is shown, and the figures of the first clip."""
    first = clips[0]
    count = f"{len(clips)} clip{'s' if len(clips) > 1 else ''}"
    figures = []
    if first.reconstruction_psnr_db is not None:
        figures.append(f"held-out {first.reconstruction_psnr_db:.1f} dB")
    if first.registration_px is not None:
        figures.append(f"registration {first.registration_px:.2f} px")
    if first.unseen_share is not None:
        figures.append(f"unseen {first.unseen_share:.1%}")
    if first.floater_share is not None:
        figures.append(f"floaters {first.floater_share:.1%}")
    return ", ".join([f"{first.recording_id}: {count}, hands by {first.hand_estimator}", *figures])
