"""Prefect artifacts: tables, contact sheets and progress that a run shows in the UI."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from render.contact_sheet import encode_jpeg

MAX_SHEETS = 24
"""Contact sheets of a run that become artifacts; all of them lie beside the manifest."""


def artifact_key(text: str) -> str:
    """Text as the key of an artifact, which has lower-case letters, digits and dashes only."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def show_table(key: str, rows: Sequence[dict[str, str]], description: str) -> None:
    """Store a table artifact; each row holds its cells by column heading."""
    create_table_artifact(table=list(rows), key=key, description=description)


def show_markdown(key: str, text: str, description: str) -> None:
    """Store Markdown ``text``."""
    create_markdown_artifact(markdown=text, key=key, description=description)


def show_image(key: str, image: NDArray[np.uint8], description: str) -> None:
    """Store a uint8 RGB image [H, W, 3] inside the artifact, as a JPEG of moderate size."""
    uri = "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image)).decode("ascii")
    create_image_artifact(image_url=uri, key=key, description=description)


def show_sheets(paths: Sequence[Path], prefix: str, what: str) -> None:
    """Store the first few contact sheets, PNG files that lie beside the manifest; ``what`` says what each shows."""
    for path in paths[:MAX_SHEETS]:
        key = artifact_key(prefix + path.stem)
        with Image.open(path) as picture:
            show_image(key, np.asarray(picture.convert("RGB")), f"{what} {path.stem}")


class ProgressArtifact:
    """A progress bar in the UI, written only when its whole percentage changes."""

    def __init__(self, key: str, description: str) -> None:
        """Create the artifact at 0 percent."""
        created = create_progress_artifact(progress=0.0, key=key, description=description)
        self._artifact_id: UUID = created if isinstance(created, UUID) else UUID(str(created))
        self._percent = 0

    def update(self, done: int, total: int) -> None:
        """Show ``done`` of ``total`` steps."""
        percent = round(100 * done / max(total, 1))
        if percent != self._percent:
            self._percent = percent
            update_progress_artifact(artifact_id=self._artifact_id, progress=float(percent))
