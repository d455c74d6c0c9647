"""Contact sheets: evenly spaced frames of aligned videos in labelled rows, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from manifests.errors import DwmError
from render.framing import FitPolicy, Frames, fit_frame

_BACKGROUND = (24, 25, 28)
_LABEL_COLOUR = (226, 228, 232)
_NOTE_COLOUR = (140, 145, 154)
_GUTTER = 4
_MARGIN = 14
_MAX_LABEL_WIDTH = 220


def contact_sheet(
    rows: Sequence[tuple[str, Frames]], *, columns: int = 6, tile_width: int = 240, title: str | None = None
) -> NDArray[np.uint8]:
    """Draw videos below each other, each as ``columns`` frames from its first to its last.

    Args:
        rows: Label and frames uint8 [T, H, W, 3] of each row, such as interaction, static, hands. Long labels wrap.
        columns: Frames a row; fewer when every video is shorter.
        tile_width: Width of a frame on the sheet, pixels; heights keep each video's aspect ratio.
        title: Line above the rows.

    Returns:
        uint8 RGB [H, W, 3]; the same for the same input.

    Raises:
        DwmError: no rows, or a row without frames.
    """
    if not rows:
        raise DwmError("contact sheet: no rows to draw")
    for label, frames in rows:
        if len(frames) == 0:
            raise DwmError(f"contact sheet: row '{label}' has no frames")
    columns = min(columns, max(len(frames) for _, frames in rows))
    font_size = max(13, tile_width // 14)
    font, small = _font(font_size), _font(max(11, font_size * 4 // 5))
    labels = [_wrapped(label, font) for label, _ in rows]
    label_width = max(_size(label, font)[0] for label in labels)
    heights = [max(1, round(tile_width * frames.shape[1] / frames.shape[2])) for _, frames in rows]
    row_heights = [max(height, _size(label, font)[1]) for height, label in zip(heights, labels, strict=True)]
    left = _MARGIN + label_width + _MARGIN
    lengths = {len(frames) for _, frames in rows}
    numbers = evenly_spaced(lengths.pop(), columns) if len(lengths) == 1 else []
    title_height = _size(title, font)[1] + _MARGIN if title else 0
    top = _MARGIN + title_height + (_size("0", small)[1] + _GUTTER if len(numbers) else 0)
    tiles_width = columns * (tile_width + _GUTTER) - _GUTTER
    width = max(left + tiles_width, _MARGIN + (_size(title, font)[0] if title else 0)) + _MARGIN
    height = top + sum(row_heights) + _GUTTER * (len(rows) - 1) + _MARGIN
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.multiline_text((_MARGIN, _MARGIN), title, font=font, fill=_LABEL_COLOUR)
    for column, number in enumerate(numbers):
        middle = left + column * (tile_width + _GUTTER) + tile_width // 2
        draw.text((middle, top - _GUTTER), f"frame {number}", font=small, fill=_NOTE_COLOUR, anchor="md")
    for (_, frames), label, tile_height, row_height in zip(rows, labels, heights, row_heights, strict=True):
        middle = top + row_height // 2
        draw.multiline_text((_MARGIN, middle), label, font=font, fill=_LABEL_COLOUR, anchor="lm")
        for column, number in enumerate(evenly_spaced(len(frames), columns)):
            tile = fit_frame(frames[number], tile_width, tile_height, FitPolicy.STRETCH)
            position = (left + column * (tile_width + _GUTTER), top + (row_height - tile_height) // 2)
            sheet.paste(Image.fromarray(tile), position)
        top += row_height + _GUTTER
    return np.asarray(sheet)


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """Indices of at most ``count`` frames, evenly from the first to the last."""
    count = min(count, num_frames)
    return [round(index * (num_frames - 1) / max(1, count - 1)) for index in range(count)]


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """PNG bytes of an RGB image uint8 [H, W, 3]; the same for the same image."""
    _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    return data.tobytes()


def encode_jpeg(image: NDArray[np.uint8], max_width: int = 1200, quality: int = 85) -> bytes:
    """JPEG bytes of a uint8 RGB image [H, W, 3], at most ``max_width`` wide: small enough to be kept in a database."""
    height, width = image.shape[:2]
    if width > max_width:
        size = (max_width, round(height * max_width / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow: the same letters on every machine."""
    return ImageFont.load_default(size)


def _size(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> tuple[int, int]:
    """Width and height of a text of one or more lines, pixels."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left, _, right, _ = draw.multiline_textbbox((0, 0), text, font=font)
    _, top, _, bottom = draw.multiline_textbbox((0, 0), "\n".join("Ag" for _ in text.split("\n")), font=font)
    return int(np.ceil(right - left)) + 1, int(np.ceil(bottom - min(top, 0)))


def _wrapped(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Break a label between words where it is wider than the label column may be."""
    lines: list[str] = []
    for word in label.split(" "):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and _size(joined, font)[0] <= _MAX_LABEL_WIDTH:
            lines[-1] = joined
        else:
            lines.append(word)
    return "\n".join(lines)
