"""The benchmark's figure for papers: conditions, generated videos and ground truth as rows of frames (Figs. 3, 4)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dwm_model.results import BenchmarkResult, ClipResult
from manifests.atomic import atomic_path
from manifests.dataset import Dataset
from manifests.errors import DwmError
from render.video import Frames, read_clip_video

logger = logging.getLogger(__name__)

COLUMNS = 5
MAX_CLIPS = 3
_DPI = 200
_TILE = 300
_LABEL = 210
_TITLE = 64
_GAP = 6
"""Widths of a frame and of the labels, height of a title, room between frames; pixels."""

_CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}


@dataclass(frozen=True)
class FigureRow:
    """One video of the figure."""

    label: str
    frames: Frames
    """uint8 [T, H, W, 3]."""


@dataclass(frozen=True)
class FigureBlock:
    """Videos of one clip, of one size and length."""

    title: str
    rows: tuple[FigureRow, ...]


def write_figure(
    path: Path, blocks: Sequence[FigureBlock], *, columns: int = COLUMNS, banner: str | None = None
) -> None:
    """Draw blocks of labelled videos below each other as PNG; the same input gives the same bytes.

    Args:
        path: PNG file to write.
        blocks: Clips; every row of a block shows the same, evenly spaced moments.
        columns: Frames a row; fewer when a video is shorter.
        banner: Warning above the figure.

    Raises:
        DwmError: there is nothing to draw, the videos of a block differ in length, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not blocks or any(not block.rows for block in blocks):
        raise DwmError(f"{path}: no videos to draw; generate some first")
    for block in blocks:
        lengths = {row.label: len(row.frames) for row in block.rows}
        if len(set(lengths.values())) > 1:
            raise DwmError(f"{path}: the videos of '{block.title}' differ in length ({lengths})")
    columns = min(columns, *(len(block.rows[0].frames) for block in blocks))
    layout = _Layout(blocks, columns, _TITLE if banner else 0)
    figure = Figure(figsize=(layout.width / _DPI, layout.height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    figure.figimage(layout.picture(), origin="upper")
    if banner:
        figure.text(0.5, 1 - _TITLE / 2 / layout.height, banner, **_CENTRED, size=9, weight="bold", color="#8a1c1c")
    for text, left, middle, style in layout.labels():
        figure.text(left / layout.width, 1 - middle / layout.height, text, parse_math=False, size=8, **style)
    with atomic_path(path) as temporary:
        canvas.print_figure(temporary, format="png", dpi=_DPI, metadata={"Software": None})


@dataclass(frozen=True)
class _Layout:
    """Where everything lies on the figure, in pixels from its upper left corner."""

    blocks: Sequence[FigureBlock]
    columns: int
    top: int
    """Room for the banner."""

    @property
    def width(self) -> int:
        return _LABEL + self.columns * (_TILE + _GAP)

    @property
    def height(self) -> int:
        return self.top + sum(_TITLE + len(block.rows) * (_tile_height(block) + _GAP) for block in self.blocks)

    def _rows(self) -> Iterator[tuple[FigureBlock, int, FigureRow | None]]:
        """Every block's title (row None) and rows with their upper edges."""
        upper = self.top
        for block in self.blocks:
            yield block, upper, None
            upper += _TITLE
            for row in block.rows:
                yield block, upper, row
                upper += _tile_height(block) + _GAP

    def picture(self) -> Frames:
        """All frames on white, uint8 [H, W, 3]."""
        canvas = np.full((self.height, self.width, 3), 255, np.uint8)
        for block, upper, row in self._rows():
            if row is None:
                continue
            height = _tile_height(block)
            for column, moment in enumerate(np.linspace(0, len(row.frames) - 1, self.columns).round().astype(int)):
                left = _LABEL + column * (_TILE + _GAP)
                shrinks = row.frames.shape[2] > _TILE
                filtering = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
                tile = cv2.resize(row.frames[moment], (_TILE, height), interpolation=filtering)
                canvas[upper : upper + height, left : left + _TILE] = tile
        return canvas

    def labels(self) -> Iterator[tuple[str, int, int, dict[str, Any]]]:
        """Text, anchor from the left, middle from the top, and alignment of every label."""
        for block, upper, row in self._rows():
            if row is None:
                yield block.title, _LABEL, upper + _TITLE * 5 // 8, {"ha": "left", "va": "center", "style": "italic"}
            else:
                yield row.label, _LABEL - 4 * _GAP, upper + _tile_height(block) // 2, {"ha": "right", "va": "center"}


def write_benchmark_figure(dataset: Dataset, result: BenchmarkResult, path: Path) -> bool:
    """Draw the first clips of a benchmark of each group, with every method's first seed.

    Returns:
        Whether there was a clip to draw: one that has all its videos.

    Raises:
        DwmError: the file cannot be written.
    """
    blocks = []
    for clip in _varied(result.clips):
        try:
            blocks.append(_clip_block(dataset, result, clip))
        except DwmError as error:
            logger.warning("clip %s is left out of the figure: %s", clip.clip_id, error)
        if len(blocks) == MAX_CLIPS:
            break
    if blocks:
        write_figure(path, blocks, banner=result.banner)
    return bool(blocks)


def _varied(clips: Sequence[ClipResult]) -> list[ClipResult]:
    """Clips such that every group comes before the second clip of any, and so for scenes within a group."""
    taken: dict[tuple[str | None, ...], int] = {}
    order = []
    for clip in clips:
        scene = taken[clip.group, clip.scene_id] = taken.get((clip.group, clip.scene_id), 0) + 1
        group = taken[(clip.group,)] = taken.get((clip.group,), 0) + 1
        order.append((scene, group, clip.clip_id, clip))
    return [entry[-1] for entry in sorted(order, key=lambda entry: entry[:-1])]


def _clip_block(dataset: Dataset, result: BenchmarkResult, clip: ClipResult) -> FigureBlock:
    paths = [("Static scene", clip.static_path), ("Hands", clip.hands_path)]
    for summary in result.methods:
        videos = [video for video in clip.videos if video.method == summary.description.name]
        paths.append((summary.description.name, videos[0].path if videos else None))
    paths.append(("Ground truth", clip.interaction_path))
    return FigureBlock(title=_title(clip), rows=tuple(_rows(dataset, result, clip, paths)))


def _rows(
    dataset: Dataset, result: BenchmarkResult, clip: ClipResult, paths: Sequence[tuple[str, str | None]]
) -> Iterator[FigureRow]:
    for label, path in paths:
        if path is None:
            raise DwmError(f"clip {clip.clip_id}: has no video for '{label}'; run the benchmark again")
        yield FigureRow(label, read_clip_video(dataset.absolute(path), **result.geometry.model_dump()))


def _title(clip: ClipResult) -> str:
    first_line = (clip.prompt.strip() or clip.action_label or clip.scene_id).splitlines()[0]
    return first_line if len(first_line) <= 100 else f"{first_line[:97].rstrip()}..."


def _tile_height(block: FigureBlock) -> int:
    _, height, width, _ = block.rows[0].frames.shape
    return int(_TILE * height // width)
