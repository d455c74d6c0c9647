"""Caption files: rows of id, scene and caption from xlsx sheets, csv files and plain text."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import DwmError

TABLE_SUFFIXES = (".xlsx", ".csv", ".txt")
"""Kinds of caption files."""

_ID_NAMES = ("id", "video", "video_id", "file", "filename", "name", "stem")
_SCENE_NAMES = ("scene",)
_CAPTION_NAMES = ("caption", "prompt", "text", "description")


@dataclass(frozen=True)
class CaptionRow:
    """A row of a caption file.

    Attributes:
        line: its line or sheet row, from 1.
        video: what it calls the video, without suffix; numbers without leading zeros. Empty when missing.
        scene: its scene; empty when unknown.
        caption: the text; empty when missing.
    """

    line: int
    video: str
    scene: str
    caption: str


def video_key(name: str) -> str:
    """A video's name as caption rows are looked up by: no folder suffix, no leading zeros, lower case."""
    text = name.strip().replace("\\", "/")
    stem, dot, suffix = text.rpartition(".")
    if dot and stem and suffix.isalnum() and not suffix.isdigit() and len(suffix) <= 4:
        text = stem
    return str(int(text)) if text.isascii() and text.isdigit() else text.lower()


def read_sheet(path: Path, sheet: str | None) -> list[CaptionRow]:
    """Rows of one sheet of an xlsx file with the columns id, (scene,) caption, in any order.

    Cells are read as values: formulas are taken as the program that saved them computed them.

    Args:
        path: the file.
        sheet: name of the sheet, case and hyphens aside; the first one when None.

    Raises:
        DwmError: the file is missing or no workbook, has no such sheet, or the sheet lacks a column.
    """
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    _require_file(path)
    try:
        workbook = load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DwmError(f"{path}: no readable xlsx workbook ({error}); save it as xlsx again") from error
    try:
        names = workbook.sheetnames
        chosen = names[0] if sheet is None else next((name for name in names if _plain(name) == _plain(sheet)), "")
        if not chosen:
            raise DwmError(f"{path}: has no sheet '{sheet}' (only {', '.join(names)}); rename or add the sheet")
        values = workbook[chosen].iter_rows(values_only=True)
        return list(_rows(f"{path}, sheet '{chosen}'", ([_text(cell) for cell in row] for row in values)))
    finally:
        workbook.close()


def read_caption_file(path: Path) -> list[CaptionRow]:
    """Rows of an xlsx, csv or txt file for a folder of videos.

    A csv file (comma, semicolon or tab) has a header with an id column (`id`, `video`, `file`, `name`) and a caption
    column (`caption`, `prompt`, `text`); an xlsx file the same in its first sheet. A txt file has one
    `<video><tab><caption>` a line, without a header.

    Raises:
        DwmError: the file is missing, of another kind, not UTF-8, lacks a column, or a line of text has no tab.
    """
    _require_file(path)
    suffix = path.suffix.lower()
    if suffix == ".xlsx":
        return read_sheet(path, None)
    if suffix not in TABLE_SUFFIXES:
        raise DwmError(f"{path}: captions are read from {', '.join(TABLE_SUFFIXES)}; save the table as one of them")
    text = read_text(path)
    if suffix == ".txt":
        return list(_text_rows(path, text))
    try:
        dialect = csv.Sniffer().sniff(text.split("\n", 1)[0], delimiters=",;\t")
    except csv.Error:
        dialect = csv.excel
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), dialect))
    except csv.Error as error:
        raise DwmError(f"{path}: no readable csv table ({error}); save it again as comma-separated UTF-8") from error
    return list(_rows(str(path), table))


def read_text(path: Path) -> str:
    """A text file as it is, UTF-8, line ends as newlines, without blank space at its ends.

    Raises:
        DwmError: it is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DwmError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise DwmError(f"{path}: no such file; check the path of the captions")


def _text_rows(path: Path, text: str) -> Iterator[CaptionRow]:
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        name, tab, caption = content.partition("\t")
        if not tab:
            raise DwmError(f"{path}: line {line} has no tab; write <video><tab><caption> on every line")
        yield CaptionRow(line, video_key(name), "", caption.strip())


def _rows(where: str, table: Iterable[list[str]]) -> Iterator[CaptionRow]:
    rows = iter(table)
    header = [name.strip().lower() for name in next(rows, [])]
    video = _column(where, header, _ID_NAMES)
    caption = _column(where, header, _CAPTION_NAMES)
    scene = next((header.index(name) for name in _SCENE_NAMES if name in header), None)
    for line, cells in enumerate(rows, start=2):
        padded = [*cells, *[""] * (len(header) - len(cells))]
        if not any(cell.strip() for cell in padded):
            continue
        yield CaptionRow(
            line,
            video_key(padded[video]) if padded[video].strip() else "",
            padded[scene].strip() if scene is not None else "",
            padded[caption].strip(),
        )


def _column(where: str, header: list[str], names: tuple[str, ...]) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    shown = ", ".join(filter(None, header)) or "nothing"
    raise DwmError(f"{where}: no column '{names[0]}' in the first row (it has {shown}); name the columns there")


def _text(cell: object) -> str:
    """A cell as text; whole numbers without a decimal point, since a spreadsheet stores ids as numbers."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
