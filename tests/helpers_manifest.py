"""Small clips and tables that the manifest tests share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from manifests.errors import DwmError
from manifests.schema import Clip, ClipStatus, Source, Split
from manifests.store import Table

REPOSITORY = Path(__file__).resolve().parents[1]
MADE_AT = datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def clip(number: int, **changes: Any) -> Clip:
    """A ready clip of its own id; ``changes`` are field values."""
    values = {
        "clip_id": f"clip-{number:04d}",
        "source": Source.SYNTHETIC,
        "scene_id": "room",
        "recording_id": "take",
        "status": ClipStatus.READY,
        "created_at": MADE_AT,
    }
    return Clip.model_validate(values | changes)


def clips_table(root: Path) -> Table[Clip]:
    """The clips table below ``root``."""
    return Table(root / "manifest", Clip)


def part_files(table: Table[Clip]) -> list[Path]:
    """Part files of a table, sorted."""
    return sorted(table.parts.folder.glob("*.parquet"))


def assert_one_line(error: DwmError, *words: str) -> None:
    """The message is one line that holds all the words."""
    message = str(error)
    assert "\n" not in message
    for word in words:
        assert word in message


CHANGES: dict[str, Callable[[Table[Clip]], object]] = {
    "append": lambda table: table.append([clip(7), clip(8)]),
    "upsert": lambda table: table.upsert([clip(1, prompt="new"), clip(4, prompt="new"), clip(9)]),
    "delete": lambda table: table.delete(["clip-0001", "clip-0004", "clip-0005"]),
    "update": lambda table: table.update("clip-0001", prompt="new"),
    "set_values": lambda table: table.set_values("split", {"clip-0001": Split.TEST, "clip-0004": Split.TEST}),
    "compact": lambda table: table.compact(),
}
"""Every way to change a table of six clips in two parts, by name."""


def table_of_six(root: Path) -> Table[Clip]:
    """A table of clips 0 to 5 in two parts of three."""
    table = clips_table(root)
    for start in (0, 3):
        table.append(clip(number) for number in range(start, start + 3))
    return table


def snapshot(table: Table[Clip]) -> list[dict[str, object]]:
    return [row.model_dump() for row in table.rows()]
