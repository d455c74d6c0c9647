"""The benchmark's figure for papers: conditions, generated videos and ground truth as rows of frames (Figs. 3, 4)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dwm_model.results import BenchmarkResult, ClipResult
from manifests.atomic import atomic_path
from manifests.dataset import Dataset
from manifests.errors import DwmError
from render.video import Frames, read_clip_video

logger = logging.getLogger(__name__)

COLUMNS = 5
MAX_CLIPS = 3
_TILE_WIDTH_INCH = 1.5
_LABEL_WIDTH_INCH = 1.05
_TITLE_HEIGHT_INCH = 0.32
_GAP_INCH = 0.04
_DPI = 200


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
    width = _LABEL_WIDTH_INCH + columns * (_TILE_WIDTH_INCH + _GAP_INCH)
    banner_height = _TITLE_HEIGHT_INCH if banner else 0.0
    height = banner_height + sum(_block_height(block) for block in blocks)
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    if banner:
        figure.text(0.5, 1 - 0.16 / height, banner, ha="center", va="center", size=9, weight="bold", color="#8a1c1c")
    top = banner_height
    for block in blocks:
        _draw_block(figure, block, top, columns)
        top += _block_height(block)
    with atomic_path(path) as temporary:
        canvas.print_figure(temporary, format="png", dpi=_DPI, metadata={"Software": None})


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


def _tile_height(block: FigureBlock) -> float:
    _, height, width, _ = block.rows[0].frames.shape
    return float(_TILE_WIDTH_INCH * height / width)


def _block_height(block: FigureBlock) -> float:
    return _TITLE_HEIGHT_INCH + len(block.rows) * (_tile_height(block) + _GAP_INCH)


def _draw_block(figure: Any, block: FigureBlock, top: float, columns: int) -> None:
    """Draw one clip; ``top`` is the distance from the figure's upper edge, inches."""
    width, height = figure.get_size_inches()
    moments = np.linspace(0, len(block.rows[0].frames) - 1, columns).round().astype(int)
    figure.text(
        _LABEL_WIDTH_INCH / width,
        1 - (top + 0.2) / height,
        block.title,
        ha="left",
        va="center",
        size=8,
        style="italic",
        parse_math=False,
    )
    tile = _tile_height(block)
    for index, row in enumerate(block.rows):
        upper = top + _TITLE_HEIGHT_INCH + index * (tile + _GAP_INCH)
        middle = 1 - (upper + tile / 2) / height
        figure.text(
            (_LABEL_WIDTH_INCH - 0.08) / width, middle, row.label, ha="right", va="center", size=8, parse_math=False
        )
        for column, moment in enumerate(moments):
            left = (_LABEL_WIDTH_INCH + column * (_TILE_WIDTH_INCH + _GAP_INCH)) / width
            axes = figure.add_axes((left, 1 - (upper + tile) / height, _TILE_WIDTH_INCH / width, tile / height))
            axes.imshow(row.frames[moment], interpolation="bicubic", aspect="auto")
            axes.axis("off")
