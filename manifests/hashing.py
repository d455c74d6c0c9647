"""Hashes that name things: files, configurations, clips, code."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

_CODE_FOLDERS = ("flows", "tasks", "sources", "render", "manifests", "dwm_model")


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def hash_config(config: BaseModel) -> str:
    """SHA-256 of a configuration model's field values."""
    return hash_json(config.model_dump(mode="json"))


def short_id(*parts: str | int | float | None) -> str:
    """A 16-digit id from the values that define a thing (a clip, a generation); the same values give the same id."""
    return hash_json(list(parts))[:16]


@cache
def code_version() -> str:
    """Version of the running code: package version plus a hash over its own source files."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for folder in _CODE_FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return f"0.1.0+{digest.hexdigest()[:12]}"
