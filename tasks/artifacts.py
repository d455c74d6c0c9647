"""Prefect artifacts: tables, contact sheets and progress that a run shows in the UI."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from pydantic import BaseModel

LARGEST_DATA_URI_BYTES = 400_000
"""Images above this would make the API's rows too large; they are left to the report page."""


def show_table(key: str, rows: Sequence[BaseModel], description: str) -> None:
    """Store ``rows`` as a table artifact, one column a field."""
    create_table_artifact(table=[row.model_dump(mode="json") for row in rows], key=key, description=description)


def show_markdown(key: str, text: str, description: str) -> None:
    """Store Markdown ``text``."""
    create_markdown_artifact(markdown=text, key=key, description=description)


def show_image(key: str, png: bytes, description: str) -> bool:
    """Store a PNG image inside the artifact; False when it is too large for that."""
    if len(png) > LARGEST_DATA_URI_BYTES:
        return False
    uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    create_image_artifact(image_url=uri, key=key, description=description)
    return True


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
