"""A contact sheet for each scene of fixed-camera clips: video, static, hands, and the hands laid over the video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from manifests.dataset import Dataset
from manifests.schema import Clip
from render.hand_mask import hand_mask
from render.video import FitPolicy, Frames, fit_frame, iter_frames
from sources.sheets import CLIPS_A_SHEET, ready_clips, sheet_name, write_sheet

_TILE_WIDTH = 240
_OPACITY = 0.65
_STATIC_POLICY = "first_frame"


def write_scene_sheets(dataset: Dataset, scene_ids: Iterable[str]) -> list[Path]:
    """Draw the first ready clips of each scene that has any, one PNG a scene in `SHEETS_FOLDER`.

    Raises:
        DwmError: a clip's video cannot be read, or the sheet cannot be written.
    """
    sheets = []
    for scene_id in scene_ids:
        is_of_scene = (ds.field("scene_id") == scene_id) & (ds.field("static_policy") == _STATIC_POLICY)
        clips = ready_clips(dataset, is_of_scene)
        if not clips:
            continue
        rows = [
            row
            for clip in clips[:CLIPS_A_SHEET]
            for row in overlay_rows(dataset, clip, clip.recording_id.rpartition("/")[2])
        ]
        count = f"{len(clips)} fixed-camera clip{'s' if len(clips) > 1 else ''}"
        title = f"{scene_id}: {count}, hands by {clips[0].hand_estimator}"
        name = f"fixed-{sheet_name(scene_id)}"
        sheets.append(write_sheet(dataset, name, rows, tile_width=_TILE_WIDTH, title=title))
    return sheets


def overlay(picture: Frames, hands: Frames) -> Frames:
    """A frame uint8 [H, W, 3] with the hands of its hand video laid over it."""
    mask = hand_mask(hands)[..., None] * np.float32(_OPACITY)
    return np.asarray(np.rint(picture * (1 - mask) + hands * mask), np.uint8)


def overlay_rows(dataset: Dataset, clip: Clip, name: str) -> list[tuple[str, Frames]]:
    """The rows of a clip on a sheet, labelled with its ``name``: video, static, hands, hands over the video.

    Raises:
        DwmError: a video cannot be read.
    """
    paths = (clip.interaction_path, clip.static_path, clip.hands_path)
    streams = [iter_frames(dataset.absolute(path)) for path in paths if path is not None]
    if len(streams) < len(paths):
        return []
    tiles: list[list[Frames]] = [[], [], [], []]
    for frames in _together(streams):
        for kept, frame in zip(tiles, (*frames, overlay(frames[0], frames[2])), strict=True):
            kept.append(_reduced(frame))
    labels = (f"{name} video", f"{name} static", f"{name} hands", f"{name} overlay")
    return [(label, np.stack(frames)) for label, frames in zip(labels, tiles, strict=True)]


def _together(streams: Sequence[Iterator[Frames]]) -> Iterator[tuple[Frames, ...]]:
    return zip(*streams, strict=True)


def _reduced(frame: Frames) -> Frames:
    """A frame at the sheet's size: whole clips would take more memory than making them."""
    height, width = frame.shape[:2]
    return fit_frame(frame, _TILE_WIDTH, round(height * _TILE_WIDTH / width), FitPolicy.STRETCH)
