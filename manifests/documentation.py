"""Writes `docs/manifest.md` from the row classes, so that the page never differs from the code.

Run `python -m manifests.documentation` after a change of `schema.py`; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from manifests import atomic
from manifests.columns import arrow_schema
from manifests.schema import SCHEMA_VERSION, TABLES, MaskId, Row

PAGE = Path(__file__).resolve().parent.parent / "docs" / "manifest.md"

_HEAD = f"""# The manifest

Schema version {SCHEMA_VERSION}. Written by `python -m manifests.documentation` from `manifests/schema.py`.

Each table is a folder of Parquet files, `manifest/<table>/*.parquet`: read it with pandas, pyarrow, duckdb or anything
else that reads Parquet. Paths are relative to the dataset folder. Conventions: OpenCV camera axes (x right, y down,
z forward), metres, pixel centres at +0.5, world-from-camera 4x4 matrices, hand arrays in the camera's frame, y-up
world.
"""


def _table_section(row_class: type[Row]) -> list[str]:
    """Heading, first line of the docstring and one row a column."""
    types = {field.name: str(field.type) for field in arrow_schema(row_class)}
    summary = (row_class.__doc__ or "").strip().splitlines()[0]
    lines = [f"\n## `{row_class.table_name}`\n", summary, "", "| column | type | meaning |", "|---|---|---|"]
    for name, field in row_class.model_fields.items():
        meaning = (field.description or "").replace("|", r"\|")
        lines.append(f"| `{name}` | {types[name]} | {meaning} |")
    return lines


def manifest_page() -> str:
    """The page's text."""
    lines = [_HEAD.rstrip("\n")]
    for row_class in TABLES.values():
        lines.extend(_table_section(row_class))
    mask_ids = {name: value for name, value in vars(MaskId).items() if name.isupper()}
    lines.extend(["\n## Mask ids\n", (MaskId.__doc__ or "").strip(), "", "| id | name |", "|---|---|"])
    lines.extend(f"| {value} | {name.lower()} |" for name, value in mask_ids.items())
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    atomic.write_text(PAGE, manifest_page())
