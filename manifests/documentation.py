"""Writes `docs/manifest.md` from the row classes, so that the page never differs from the code.

Run `python -m manifests.documentation` after a change of `schema.py`; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from manifests import atomic
from manifests.columns import arrow_schema
from manifests.schema import SCHEMA_VERSION, TABLES, MaskId, Row
from manifests.splits import KEPT_LEVELS, SplitPolicy, forbidden_levels

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


_SPLITS_HEAD = """
## Splits and leaks

`dwm split` puts clips into train, validation and test and writes how into `splits.json`. It then audits what the splits
share: the same interaction video under two ids (`clip`), clips that look alike (`near_duplicate`), recordings and
scenes. A policy declares at which levels they must share nothing:

| policy | splits must share no | splitting itself keeps together |
|---|---|---|
"""

_SPLITS_END = """
`dwm split` prints the table of all levels and ends with 1 when one is shared that must not be; `dwm check` names it as
an error, with what ends it, and leaks at other levels as flags. `--may-share` replaces what the policy allows, and is
remembered:

```bash
dwm split out/dataset --policy recording-disjoint
dwm split out/dataset --policy in-order --may-share clip --may-share scene
dwm check out/dataset
```

In code, `manifests.leaks.require_no_leak(assign_splits(...).leaks)` stops a build in the same way; its error carries
the table. Lists are audited before any media is there with `dwm check-lists`: see
[official_layout.md](official_layout.md#what-published-lists-share).
"""


def _splits_section() -> str:
    """The policies and what each promises."""
    rows = []
    for policy in SplitPolicy:
        forbidden = ", ".join(f"`{level.value}`" for level in forbidden_levels(policy, None))
        kept = ", ".join(f"`{level.value}`" for level in KEPT_LEVELS[policy]) or "nothing: the lists decide"
        rows.append(f"| `{policy.value}` | {forbidden} | {kept} |\n")
    return _SPLITS_HEAD + "".join(rows) + _SPLITS_END.rstrip("\n")


def manifest_page() -> str:
    """The page's text."""
    lines = [_HEAD.rstrip("\n")]
    for row_class in TABLES.values():
        lines.extend(_table_section(row_class))
    mask_ids = {name: value for name, value in vars(MaskId).items() if name.isupper()}
    lines.extend(["\n## Mask ids\n", (MaskId.__doc__ or "").strip(), "", "| id | name |", "|---|---|"])
    lines.extend(f"| {value} | {name.lower()} |" for name, value in mask_ids.items())
    lines.append(_splits_section())
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    atomic.write_text(PAGE, manifest_page())
