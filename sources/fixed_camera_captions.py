"""Captions of fixed-camera videos: which caption file a folder has, and which of its rows belongs to which video."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from manifests.errors import DwmError
from sources.caption_tables import (
    TABLE_SUFFIXES,
    CaptionRow,
    read_caption_file,
    read_sheet,
    read_text,
    video_key,
)
from sources.captions import ANNOTATION, CAPTION_FILE, Caption
from sources.taste_rob import CAPTIONS_FILE, SHEETS, FixedCameraFolder, FixedVideo, Subset

_SHOWN = 3


@dataclass
class CaptionBook:
    """Captions by video.

    Attributes:
        origin: ``prompt_origin`` of these captions.
        notes: what a user should know about the caption files as a whole.
        ambiguous: file names (the last part of a path) that several videos bear: a caption of that name is nobody's.
    """

    origin: str
    ambiguous: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    _rows: dict[tuple[Subset | None, str], list[CaptionRow]] = field(default_factory=lambda: defaultdict(list))

    def add(self, subset: Subset | None, rows: Iterable[CaptionRow], where: str) -> None:
        """Take the rows of a file or sheet; rows without id or caption are noted and left out."""
        without_id: list[int] = []
        without_caption: list[int] = []
        for row in rows:
            if not row.video:
                without_id.append(row.line)
            elif not row.caption:
                without_caption.append(row.line)
            else:
                self._rows[subset, row.video].append(row)
        for lines, what in ((without_id, "no id"), (without_caption, "no caption")):
            if lines:
                shown = ", ".join(map(str, lines[:_SHOWN])) + (", ..." if len(lines) > _SHOWN else "")
                self.notes.append(f"{where}: {len(lines)} rows have {what} and were left out (rows {shown})")

    def find(self, video: FixedVideo) -> Caption:
        """Caption of a video with reasons to look; its text is empty when there is none.

        In the release a row must name the video's scene, too (`Dinning` and `Dining` are one, and
        `Office_60491_to_70512` is an `Office`), unless only one row has the id. Rows that repeat a caption count
        once; of rows that differ the first is taken, with a flag.
        """
        rows = self._rows.get((video.subset, video_key(video.name)), [])
        short = _short_key(video)
        if not rows and video.subset is None and short not in self.ambiguous:  # a table may name the file alone
            rows = self._rows.get((None, short), [])
        if not rows:
            return Caption("", self.origin)
        in_scene = [row for row in rows if not row.scene or _scene_key(row.scene) == _scene_key(video.scene_id)]
        flags = []
        if video.subset is not None and not in_scene:
            flags.append(f"caption_scene: the caption's row {rows[0].line} is of scene '{rows[0].scene}'")
        chosen = in_scene or rows
        texts = list(dict.fromkeys(row.caption for row in chosen))
        if len(texts) > 1:
            lines = ", ".join(str(row.line) for row in chosen)
            flags.append(f"caption_conflict: rows {lines} give different captions, the first was taken")
        return Caption(texts[0], self.origin, tuple(flags))


def open_captions(folder: FixedCameraFolder, captions: Path | None = None) -> CaptionBook:
    """Captions of a folder: `captions.xlsx` of the release, else the folder's caption file and texts beside videos.

    Args:
        folder: the videos.
        captions: caption file, where it lies elsewhere or several are there.

    Raises:
        DwmError: a caption file is broken, lacks a sheet or a column, or several could be meant.
    """
    if folder.is_release:
        return _release_captions(folder, captions)
    counts = Counter(_short_key(video) for video in folder.videos)
    book = CaptionBook(CAPTION_FILE, ambiguous=frozenset(name for name, count in counts.items() if count > 1))
    path = captions or _caption_file(folder)
    if path is not None:
        book.add(None, read_caption_file(path), path.name)
    for video in folder.videos:
        beside = (folder.root / video.path).with_suffix(".txt")
        if beside.is_file() and beside != path:
            try:
                book.add(None, [CaptionRow(1, video_key(video.name), "", read_text(beside))], beside.name)
            except DwmError as error:  # one bad text is no reason to stop: its video is built, flagged `no_caption`
                book.notes.append(str(error))
    if path is None and not book.notes and not any(book.find(video).text for video in folder.videos):
        book.notes.append(f"{folder.root.name}: no caption file (captions.xlsx, .csv or .txt); prompts say nothing")
    return book


def _release_captions(folder: FixedCameraFolder, captions: Path | None) -> CaptionBook:
    book = CaptionBook(ANNOTATION)
    beside = [folder.root / CAPTIONS_FILE, folder.root.parent / CAPTIONS_FILE]
    path = captions or next((candidate for candidate in beside if candidate.is_file()), None)
    if path is None:
        book.notes.append(f"{folder.root.name}: {CAPTIONS_FILE} is missing; prompts say nothing")
        return book
    for subset in dict.fromkeys(video.subset for video in folder.videos if video.subset is not None):
        book.add(subset, read_sheet(path, SHEETS[subset]), f"{path.name}, sheet {SHEETS[subset]}")
    return book


def _caption_file(folder: FixedCameraFolder) -> Path | None:
    """The folder's own caption file: `captions.*` or `prompts.*`, else its only table.

    Raises:
        DwmError: several could be meant.
    """
    stems = {Path(video.path).stem for video in folder.videos}
    tables = [path for path in sorted(folder.root.glob("*")) if path.suffix.lower() in TABLE_SUFFIXES]
    tables = [path for path in tables if not path.name.startswith((".", "~$"))]
    named = [path for path in tables if path.stem.lower() in {"captions", "prompts"}]
    others = [path for path in tables if path.suffix.lower() != ".txt" and path.stem not in stems]
    found = named or others
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DwmError(f"{folder.root}: several caption files ({names}); name the one to use (captions)")
    return found[0] if found else None


def _short_key(video: FixedVideo) -> str:
    return video_key(video.name.rpartition("/")[2])


def _scene_key(scene: str) -> str:
    """`Office_60491_to_70512` as office; the release spells dining "Dinning"."""
    name = scene.strip().rpartition("/")[2].split("_")[0].lower().replace(" ", "")
    return "dining" if name == "dinning" else name
