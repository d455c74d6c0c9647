"""Contact sheets of a dataset's clips as image artifacts."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pyarrow.dataset as ds
from prefect import task

from manifests.atomic import write_bytes
from manifests.dataset import Dataset
from manifests.schema import Clip, ClipStatus
from render.contact_sheet import contact_sheet, encode_png
from render.video import Frames, read_video
from tasks.artifacts import show_image

_COLUMNS = 5
_TILE_WIDTH = 150


def _rows(dataset: Dataset, clip: Clip) -> list[tuple[str, Frames]]:
    """The three videos of a clip with their labels."""
    paths = {"interaction": clip.interaction_path, "static": clip.static_path, "hands": clip.hands_path}
    return [(name, read_video(dataset.absolute(path)).frames) for name, path in paths.items() if path is not None]


@task(name="contact-sheet")
def show_contact_sheet(dataset: Path, count: int = 3) -> Path | None:
    """Draw the first ready clips, save the sheet beside the manifest and show it in the UI; None without clips."""
    opened = Dataset.open(dataset)
    ready = opened.clips.rows(where=ds.field("status") == ClipStatus.READY.value)
    rows = [row for clip in islice(ready, count) for row in _rows(opened, clip)]
    if not rows:
        return None
    sheet = contact_sheet(rows, columns=_COLUMNS, tile_width=_TILE_WIDTH, title=f"{dataset.name}: first clips")
    path = opened.root / "contact_sheet.png"
    write_bytes(path, encode_png(sheet))
    show_image("dataset-contact-sheet", sheet, "Interaction, static and hand videos of the first clips")
    return path
